"""The page for sentences that are typed in: whom it answers, what it refuses and says, and how it works in a browser."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from conftest import PAIR
from messages import naming
from playwright.sync_api import sync_playwright

import minisbert
from minisbert import SentenceEncoder
from minisbert.cli import main
from minisbert.tracing.serve import LONGEST, REMEMBERED, TraceServer, with_form

pytestmark = pytest.mark.xdist_group("browser")  # started once, in one worker

MINILM = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return minisbert.load(MINILM, device="cpu")


@pytest.fixture
def loaded() -> list[str]:
    """The names that the server loaded, in order."""
    return []


@pytest.fixture
def server(minilm: SentenceEncoder, tiny_folder: Path, loaded: list[str]) -> Iterator[TraceServer]:
    def load(model: str) -> SentenceEncoder:
        loaded.append(model)
        return minilm if model == MINILM else minisbert.load(tiny_folder if model == "<tiny>" else model, local_files_only=True)

    with TraceServer([MINILM, "<tiny>", "not/here"], load) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    assert not any(each.is_alive() for each in server.threads), "no thread is left that could free tensors while Python ends"


def ask(server: TraceServer, path: str, method: str = "GET", host: str = "") -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def send(server: TraceServer, **fields: str) -> tuple[int, str]:
    """What the form would send → the status and the page."""
    status, _, page = ask(server, f"/{server.token}/?{urlencode(fields)}")
    return status, page


def problem(page: str) -> str:
    return re.search("<p role=alert>(.*?)</p>", page, re.DOTALL)[1]


def test_the_page_is_that_of_the_trace_with_a_form_at_its_top(server: TraceServer, minilm: SentenceEncoder) -> None:
    status, headers, page = ask(server, f"/{server.token}/?{urlencode({'a': PAIR[0], 'b': PAIR[1], 'model': MINILM})}")
    vectors = minilm.encode(list(PAIR), normalize_embeddings=True)
    shown = float(re.search('<output id="answer" data-value="([^"]*)"', page)[1])
    assert (status, shown) == (200, pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6))
    form = re.search(r'<body[^>]*>(<form class="serve".*?</form>)', page, re.DOTALL)[1]
    assert page == with_form(minisbert.trace(*PAIR, model=minilm).html(), form), "nothing else is changed"
    policy = re.search('Security-Policy" content="([^"]*)"', page)[1]
    assert headers["Content-Security-Policy"] == f"{policy}; frame-ancestors 'none'"
    assert re.search("script-src 'sha256-[^']*'", policy)
    assert "form-action 'self'" in policy
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")


def test_the_form_fits_every_page_that_a_trace_gives(minilm: SentenceEncoder) -> None:
    for trace in minisbert.trace("a cat", model=minilm), minisbert.trace("<body> form-action 'none'", "a", model=minilm):
        page = with_form(trace.html(), "<form></form>")
        head, _, body = page.partition("<form></form>")
        assert re.search(r"</head>\s*<body[^>]*>$", head)
        assert "form-action 'self'" in head
        assert "form-action 'none'" not in head.partition("<title>")[0]
        assert "<form></form>" not in body


def test_a_request_needs_the_token_the_host_and_get(server: TraceServer, loaded: list[str]) -> None:
    path, port = f"/{server.token}/?a=cat", server.server_port
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32
    for wrong in (
        "/",
        "/?a=cat",
        "/favicon.ico",
        f"/{server.token}",
        f"/{server.token[:-1]}/",
        f"/{server.token}/page.html",
        "/%FF/",
        "/é/",
    ):
        raw = f"GET {wrong} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("latin-1")
        assert reply(server, raw).startswith("HTTP/1.0 403 "), wrong
    for host in "evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}":
        assert ask(server, path, host=host)[0] == 403, host
    assert reply(server, f"GET {path} HTTP/1.1\r\n\r\n".encode()).startswith("HTTP/1.0 403 "), "no Host at all"
    twice = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    assert reply(server, twice.encode()).startswith("HTTP/1.0 403 ")
    for method in "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "NONSENSE":
        status, headers, page = ask(server, path, method)
        assert (status, headers["Allow"], bool(page)) == (405, "GET", method != "HEAD")
    assert reply(server, b"GET /" + b"x" * 70_000 + b" HTTP/1.0\r\n\r\n").startswith("HTTP/1.0 414 ")
    assert loaded == [], "nothing was computed for any of them"
    assert ask(server, path, host=f"localhost:{port}")[0] == 200


def reply(server: TraceServer, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


@pytest.mark.filterwarnings("ignore:.*were cut:minisbert.MinisbertWarning")
def test_what_is_wrong_with_the_input_is_said_in_the_page(server: TraceServer, loaded: list[str]) -> None:
    for fields, expected in (
        ({"a": " ", "b": "x"}, "First sentence: found no text, expected a sentence. Type one."),
        ({"a": "x" * (LONGEST + 1)}, "First sentence: found 2,001 characters, expected at most 2,000. Shorten it."),
        ({"a": "x", "b": "€" * (LONGEST + 1)}, "Second sentence: found 2,001 characters, expected at most 2,000. Shorten it."),
        ({"a": "x", "model": "../<x>"}, "Model: found '../<x>', expected one of the list. Choose one there."),
    ):
        status, page = send(server, **fields)
        assert (status, problem(page)) == (400, escape(expected)), fields
        assert f'value="{escape(fields["a"])}"' in page, "what was typed stays in the form"
    assert loaded == []
    status, page = send(server, a="x", model="not/here")
    assert status == 400
    assert "not/here" in problem(page)
    assert send(server, a="😀" * LONGEST, b="😀" * LONGEST, model="<tiny>")[0] == 200, "as long as it may be"
    for query in "a=%FF", "a=1&b=2&model=3&swap=4&more=5":
        assert ask(server, f"/{server.token}/?{query}")[0] == 400


@pytest.mark.filterwarnings("ignore:.*were cut:minisbert.MinisbertWarning")
def test_html_in_the_input_comes_out_as_text(server: TraceServer) -> None:
    odd = "\"><script>alert(1)</script><body onload='x'> &amp; {{title}} {number} \\1"
    status, page = send(server, a=odd, b="</form>", model="<tiny>")
    assert status == 200
    assert "<script>alert" not in page
    assert f'value="{escape(odd)}"' in page
    assert "<option selected>&lt;tiny&gt;</option>" in page
    assert f'<a href="?{escape(urlencode({"a": odd, "b": "</form>", "model": "<tiny>"}))}">{escape(odd[:59])}' in page


def test_the_history_holds_the_last_pairs_and_swapping_leads_to_the_other_order(server: TraceServer) -> None:
    for number in range(REMEMBERED + 2):
        send(server, a=f"cat {number}", model="<tiny>")
    _, page = send(server, a="cat 5", model="<tiny>")
    links = re.findall(r"<li><a [^>]*>([^<]*)</a>", page.partition("</form>")[0])
    assert links == ["cat 5", *(f"cat {number}" for number in range(REMEMBERED + 1, 2, -1) if number != 5), "cat 2"]
    query = urlencode({"a": "one", "b": "two", "model": "<tiny>", "swap": "1"})
    status, headers, _ = ask(server, f"/{server.token}/?{query}")
    swapped = urlencode({"a": "two", "b": "one", "model": "<tiny>"})
    assert (status, headers["Location"]) == (303, f"/{server.token}/?{swapped}")


def test_requests_at_once_are_all_answered_and_the_model_is_loaded_once(server: TraceServer, loaded: list[str]) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: send(server, a=f"the cat {number}", model="<tiny>"), range(8)))
    assert loaded == ["<tiny>"]
    for number, (status, page) in enumerate(answers):
        assert status == 200
        assert f'value="the cat {number}"' in page


def test_in_a_browser_two_sentences_are_typed_sent_swapped_and_found_again(server: TraceServer) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.address)
        first, second = page.get_by_label("First sentence"), page.get_by_label("Second sentence")
        first.fill(PAIR[0])
        first.press("Tab")
        page.keyboard.type(PAIR[1])
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer")
        cosine = page.locator("#answer").get_attribute("data-value")
        assert page.evaluate("document.documentElement.classList.contains('js')"), "the page's script is allowed to run"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_role("button", name="Swap").press("Enter")
        page.wait_for_url(lambda url: "a=Someone" in url)
        assert (first.input_value(), second.input_value()) == PAIR[::-1]
        assert float(page.locator("#answer").get_attribute("data-value")) == pytest.approx(float(cosine), abs=1e-6)
        page.get_by_text("History (2)").press("Enter")
        page.get_by_role("link", name=f"{PAIR[0]} · {PAIR[1]}").press("Enter")
        page.wait_for_url(lambda url: "a=A+man" in url)
        assert first.input_value() == PAIR[0]
        browser.close()
    assert complaints == []


def test_the_command_prints_the_address_serves_and_ends_at_ctrl_c() -> None:
    words = [sys.executable, "-m", "minisbert", "trace", *PAIR, "--serve", "--model", MINILM, "--device", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        try:
            address = urlsplit(process.stdout.readline().strip())
            assert re.fullmatch(r"127\.0\.0\.1:\d+", address.netloc)
            connection = http.client.HTTPConnection(address.netloc, timeout=60)
            connection.request("GET", address.path)
            answer = connection.getresponse()
            page = answer.read().decode()
            assert (answer.status, 'id="answer"' in page, f'value="{PAIR[1]}"' in page) == (200, True, True)
            assert re.findall("<option.*?</option>", page) == [f"<option selected>{MINILM}</option>"], "once, not by both its names"
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, printed, said) == (130, "", "minisbert: the page is at this address until Ctrl-C\n")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["a"], ("SENTENCE", "--out PATH")),
        (["--out", "page.html"], ("SENTENCE", "--out PATH")),
        (["a", "--out", "page.html", "--port", "1"], ("--serve", "--port")),
        (["--serve", "--out", "page.html"], ("--serve", "--out")),
        (["--serve", "--port", "70000"], ("--port", 70000, 0, 65535)),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: list[str], parts: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", *words]) == 2
    assert naming(*parts).search(capsys.readouterr().err)


def test_a_port_that_is_taken_is_an_error(server: TraceServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--serve", "--model", MINILM, "--port", str(server.server_port)]) == 2
    assert "Address already in use" in capsys.readouterr().err
