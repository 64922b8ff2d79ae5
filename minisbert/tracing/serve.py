"""The page of a trace, for sentences that are typed in: a server on the loopback address, for the person at this machine alone.

Every request needs the token of the address and a Host header that names this machine, so that no other page in the browser can
ask. No file is served. The page is the one that `Trace.html` gives, with a form at its top.
"""

from __future__ import annotations

import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlencode

from minisbert.encoder import SentenceEncoder
from minisbert.errors import MinisbertError
from minisbert.tracing import trace
from minisbert.tracing.html import shortened

LONGEST = 2000
"""Characters of a sentence; together, percent-encoded, two of them fit a request line."""

REMEMBERED = 20
"""Pairs in the history."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'"

FRAME = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
    "<title>minisbert trace</title><style>html {{ color-scheme: light dark; font-family: system-ui, sans-serif; }} "
    "body {{ margin: 0; }} main {{ padding: 1rem clamp(1rem, 3vw, 3rem); }}</style></head>"
    "<body><main><h1>How a sentence becomes a vector</h1><p>{text}</p></main></body></html>"
)


class TraceServer(ThreadingHTTPServer):
    """Answers at `address`, on 127.0.0.1 only; `serve_forever` runs it. Models stay loaded, and one trace is made at a time.

    Args:
        models: the names that may be chosen; the first is the choice at the start.
        load: a name → its encoder; called once for each name.
        start: the sentences of the first page; empty for a form alone.
        port: 0 for one that is free.

    Raises:
        OSError: if the port is taken.
    """

    def __init__(
        self, models: Sequence[str], load: Callable[[str], SentenceEncoder], start: tuple[str, str] = ("", ""), port: int = 0
    ) -> None:
        self.models, self.load, self.start = models, load, start
        self.token = secrets.token_urlsafe(24)
        self.style = files("minisbert.tracing").joinpath("serve.css").read_text("utf-8")
        self.encoders: dict[str, SentenceEncoder] = {}
        self.history: list[tuple[str, str, str]] = []  # a, b, model; the newest first; replaced, never changed
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []  # those that answer
        super().__init__(("127.0.0.1", port), _Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.address = f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a new thread, for which `server_close` waits."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self.threads = [other for other in self.threads if other.is_alive()] + [thread]
        thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its connection is no error; all else is printed as always."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def server_close(self) -> None:
        """Waits for a trace that is being made, closes the port, and waits up to a second for threads that have just answered.

        A thread that still frees tensors while Python ends would crash the program.
        """
        with self.lock:
            super().server_close()
        end = time.monotonic() + 1
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))

    def encoder(self, model: str) -> SentenceEncoder:
        """The encoder of one of `models`, loaded at the first call."""
        if model not in self.encoders:
            self.encoders[model] = self.load(model)
        return self.encoders[model]

    def page(self, fields: Mapping[str, str]) -> tuple[int, str]:
        """What the form sent → the status and the page."""
        a, b = (fields.get(name, start if "a" not in fields else "") for name, start in zip("ab", self.start, strict=True))
        model = fields.get("model", self.models[0])
        if "a" not in fields and not a:
            return 200, with_form(FRAME.format(policy=POLICY, text="Type one sentence, or two to compare."), self.form(a, b, model))
        try:
            self._check(a, b, model)
            with self.lock:
                page = trace(self.encoder(model), a, b if b.strip() else None).html()
                self.history = [(a, b, model), *(each for each in self.history if each != (a, b, model))][:REMEMBERED]
        except (MinisbertError, ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
            problem = str(error) or type(error).__name__
            page = FRAME.format(policy=POLICY, text="There is no trace of this: the message above says why.")
            return 400, with_form(page, self.form(a, b, model, problem))
        return 200, with_form(page, self.form(a, b, model))

    def _check(self, a: str, b: str, model: str) -> None:
        for name, text in (("First sentence", a), ("Second sentence", b)):
            if len(text) > LONGEST:
                raise ValueError(f"{name}: found {len(text):,} characters, expected at most {LONGEST:,}. Shorten it.")
        if not a.strip():
            raise ValueError("First sentence: found no text, expected a sentence. Type one.")
        if model not in self.models:
            raise ValueError(f"Model: found {shortened(model, 100)!r}, expected one of the list. Choose one there.")

    def form(self, a: str, b: str, model: str, problem: str = "") -> str:
        """The two sentences, the choice of the model, and the history, as HTML."""
        options = "".join(f"<option{' selected' if name == model else ''}>{escape(name)}</option>" for name in self.models)
        links = "".join(
            f'<li><a href="?{escape(urlencode({"a": one, "b": other, "model": name}))}">{escape(shortened(one, 60))}'
            f"{' · ' if other else ''}{escape(shortened(other, 60))}</a> ({escape(name)})</li>"
            for one, other, name in self.history
        )
        fields = "".join(
            f'<label>{label}<input name="{name}" value="{escape(text)}" dir="auto" autocomplete="off"></label>'
            for label, name, text in (("First sentence", "a", a), ("Second sentence (may be empty)", "b", b))
        )
        return (
            f'<form class="serve" role="search" aria-label="Type your own sentences"><style>{self.style}</style>{fields}'
            f"<div><label>Model <select name=model>{options}</select></label><button>Trace</button>"
            "<button name=swap value=1>Swap the sentences</button></div>"
            + (f"<p role=alert>{escape(problem)}</p>" if problem else "")
            + (f"<details><summary>History ({len(self.history)})</summary><ul>{links}</ul></details>" if links else "")
            + "</form>"
        )


def with_form(page: str, form: str) -> str:
    """The page with the form at the top of its body, and with a policy that lets it be sent."""
    page = page.replace("form-action 'none'", "form-action 'self'", 1)
    return re.sub(r"<body[^>]*>", lambda body: body[0] + form, page, count=1)


class _Handler(BaseHTTPRequestHandler):
    server: TraceServer
    server_version, sys_version, timeout = "minisbert", "", 10

    def parse_request(self) -> bool:
        """Reads the request, and refuses it unless it is from the page itself: then the methods below are never called."""
        if not super().parse_request():
            return False
        hosts, path = self.headers.get_all("Host", []), self.path.partition("?")[0]
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            self.send_error(403, "Host: expected 127.0.0.1 or localhost. Open the address that the command printed.")
        elif not secrets.compare_digest(path.encode(), f"/{self.server.token}/".encode()):
            self.send_error(403, "The address has no valid token. Open the address that the command printed.")
        elif self.command != "GET":
            self.send_error(405, "Method: expected GET.")
        else:
            return True
        return False

    def do_GET(self) -> None:
        """The page; or, for the button that swaps, the way to it."""
        try:
            query = self.path.partition("?")[2]
            fields = dict(parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=4))
        except ValueError:
            self.send_error(400, "The address is not one that the form makes. Type the sentences again.")
            return
        if fields.pop("swap", None):
            fields |= {"a": fields.get("b", ""), "b": fields.get("a", "")}
            self._answer(303, "", {"Location": f"/{self.server.token}/?{urlencode(fields)}"})
        else:
            self._answer(*self.server.page(fields))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Whatever is refused, here and by http.server itself."""
        page = FRAME.format(policy=POLICY, text=escape(message or explain or "The request was refused."))
        self._answer(code, page, {"Allow": "GET"} if code == 405 else {})

    def _answer(self, status: int, page: str, headers: Mapping[str, str] | None = None) -> None:
        body = page.encode()
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        self.send_response(status)
        for name, value in {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{policy[1] if policy else POLICY}; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        with suppress(ConnectionError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server names it
        """Prints nothing: the address has the token in it."""
