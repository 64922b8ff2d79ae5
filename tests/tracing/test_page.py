"""The page of a trace, in a real Chromium: it opens from disk without a network, shows encode's values, answers hand and key.

Chromium is Debian's (`apt-get install chromium`), driven by playwright.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import axe_core_python
import pytest
import torch
from checkpoints import save_tiny, write_json
from conftest import PAIR
from messages import naming
from playwright.sync_api import Browser, Locator, Page, Route, sync_playwright
from programs import Programs
from torch.nn import functional as F

import minisbert
from minisbert import SentenceEncoder
from minisbert.cli import main
from minisbert.tracing import Trace
from minisbert.train import fit
from minisbert.train.losses import CosineSimilarityLoss

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ODD = (
    '<script>document.title = "run"</script> <img src=x onerror="document.title = \'run\'"> &amp; "quotes" \'x\' {{title}} \x07 '
    "{number} unbelievable 😀 שלום \u202eabc 東京 \\u003c </script> ${x}"
)
LONG_WORD = "pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 300

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


class Pages:
    """One page for each set of options, into which the tests load their files one after the other.

    A new page takes about as long as loading a file.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.pages: dict[tuple[object, ...], Page] = {}
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, path: Path, *, width: int = 1280, height: int = 800, **options: object) -> Page:
        key = tuple(options.items())
        if key not in self.pages:
            context = self.browser.new_context(offline=True, **options)
            context.route("**/*", self._only_files)
            self.pages[key] = context.new_page()
            self.pages[key].on("console", lambda message: self.complaints.append(message.text))
            self.pages[key].on("pageerror", lambda error: self.complaints.append(str(error)))
        page = self.pages[key]
        page.goto("about:blank")
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(media="null")
        page.mouse.move(0, 0)
        page.goto(path.as_uri())
        return page

    def _only_files(self, route: Route) -> None:
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()


@pytest.fixture(scope="module")
def pages(browser: Browser) -> Pages:
    return Pages(browser)


@pytest.fixture
def opened(pages: Pages) -> Iterator[Open]:
    """Opens a page from disk with the network cut; in the end nothing but the file was asked for, and no error was logged."""
    pages.complaints.clear()
    pages.requests.clear()
    yield pages.open
    assert pages.complaints == []
    assert all(url.startswith("file:") and url.endswith(".html") for url in pages.requests), pages.requests


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceEncoder:
    return minisbert.load(minilm_folder, device="cpu")


@pytest.fixture(scope="module")
def pair(minilm: SentenceEncoder) -> Trace:
    return minisbert.trace(*PAIR, model=minilm, corpus=["A man eats.", "The sky is <b>blue</b>.", "Food"])


@pytest.fixture(scope="module")
def pair_file(pair: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "pair.html"
    pair.save_html(path)
    return path


@pytest.fixture(scope="module")
def odd_file(minilm: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "odd.html"
    minisbert.trace(ODD, LONG_WORD, model=minilm, corpus=["</script>", ODD]).save_html(path)
    return path


def number(text: str) -> float:
    return float(text.replace("−", "-").removesuffix("%"))


def say(page: Page, where: str) -> str:
    return page.locator(where).first.inner_text()


# The values


def test_the_values_on_the_page_are_those_of_encode(opened: Open, pair_file: Path, minilm: SentenceEncoder) -> None:
    page = opened(pair_file)
    vectors = minilm.encode(list(PAIR))
    for name, vector in zip("ab", vectors, strict=True):
        shown = page.locator(f'[data-embedding="{name}"]').text_content()
        assert torch.equal(torch.tensor([float(text) for text in shown.split()]), vector)  # every bit
    cosine = F.cosine_similarity(*vectors.double(), dim=0).item()
    assert page.locator("#answer").inner_text() == f"{cosine:.6f}" == "0.688833"
    assert float(page.locator("#answer").get_attribute("data-value")) == pytest.approx(cosine, abs=1e-12)


def test_the_pairs_of_tokens_add_up_to_the_cosine_on_the_page(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    cells = [
        [number(text) for text in row.locator("td[data-j]").all_inner_texts()]
        for row in page.locator("#pair-matrix tbody tr").all()
    ]
    shown = torch.tensor(cells, dtype=torch.float64)
    assert (shown - pair.pair_matrix).abs().max() <= 0.5e-4 + 1e-12
    for axis, sums in (1, "tbody td.sum"), (0, "tfoot td.sum:not(:last-child)"):
        expected = pair.pair_matrix.sum(dim=axis)
        assert [number(text) for text in page.locator(f"#pair-matrix {sums}").all_inner_texts()] == pytest.approx(
            expected.tolist(), abs=1e-4
        )
    assert page.locator("#pair-matrix tfoot td:last-child").inner_text() == "0.6888"


def test_attention_and_moves_are_those_of_the_trace(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    page.locator("#all-layers").click()
    for name, one in ("a", pair.a), ("b", pair.b):
        for layer in range(6):
            rows = page.locator(f'.attention[data-sentence="{name}"][data-layer="{layer}"] .did tbody tr').all()
            for row, weights in zip(rows, one.attention[layer].mean(dim=0), strict=True):
                most = weights.argmax().item()
                said = row.locator("td").first.text_content().split(",")[0]
                assert said == f"{one.tokens[most]} {100 * weights[most].item():.0f} %"
            moved = [
                number(text)
                for text in page.locator(f'[data-sentence="{name}"][data-layer="{layer}"] .did td:last-child').all_text_contents()
            ]
            cosines = F.cosine_similarity(one.hidden[layer].double(), one.hidden[layer + 1].double(), dim=1)
            assert moved == pytest.approx((1 - cosines).tolist(), abs=0.51e-3)
    texts = page.locator("#cosine-title").locator("xpath=ancestor::section").locator("tbody td").all_text_contents()
    assert [number(text) for text in texts] == pytest.approx(pair.layer_cosines.tolist(), abs=0.51e-6)


def test_float64_values_are_complete_too(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    t = minisbert.trace("the cat sat", model=minisbert.load(tmp_path, device="cpu", dtype=torch.float64))
    shown = re.search(r'data-embedding="a">([^<]*)<', t.html())[1]
    assert torch.equal(torch.tensor([float(text) for text in shown.split()], dtype=torch.float64), t.a.embedding)


def test_the_source_lines_are_those_of_the_installed_files(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file)
    shown = []
    for source in page.locator(".source").all():
        file, first = re.fullmatch(r"minisbert/([\w/]+\.py), line (\d+)", source.locator("summary span").inner_text()).groups()
        lines = (Path(minisbert.__file__).parent / file).read_text("utf-8").splitlines()
        for line in source.locator(".line").all():
            assert line.text_content().strip() == lines[int(line.get_attribute("data-n")) - 1].strip()
        assert source.locator(".line").first.get_attribute("data-n") == first
        shown.append(source.locator("summary code").inner_text())
        assert '"""' not in source.text_content()
    assert {"TextTokenizer.__call__", "Embeddings.forward", "attend", "SelfAttention.forward", "FeedForward.forward"} <= set(shown)
    assert {"Layer.forward", "pool", "Normalize.forward", "pair_matrix", "contributions"} <= set(shown)


def test_every_step_has_its_formula_line_shape_and_paper(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file)
    steps = page.locator("section.step").all()
    links = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert links == ["#text", *(f"#{step.get_attribute('id')}" for step in steps)]
    assert page.locator("nav b").all_inner_texts()[:8] == [
        "Text",
        "Tokens",
        "Vectors",
        "Layers",
        "Mean",
        "Vector",
        "Cosine",
        "Pairs",
    ]
    assert len(steps) == 8
    for step in steps:
        assert len(step.locator(".plain").inner_text()) > 60
        hows = step.locator(".how").all()
        assert hows
        for how in hows:
            assert how.locator("math, .formula p").count() > 0
            assert re.search(r"\[.*\]", how.locator("dd").first.inner_text())
            assert re.search(r"section \d|linearity", how.locator("dd").nth(1).inner_text())
            for source in how.locator(".source").all():
                assert source.get_attribute("open") is None
                assert 1 <= source.locator(".line").count() <= 5  # what the formula is about, and no more


# Hand and key


def attention(page: Page, name: str, layer: int, head: int) -> Locator:
    """The view of a sentence in a layer, opened, with this head; -1 is the average."""
    box = page.locator(f"#layer-{layer + 1}")
    if box.get_attribute("open") is None:
        box.locator("> summary").click()
    box.locator(f'.head input[value="{head}"]').check(force=True)
    return box.locator(f'.attention[data-sentence="{name}"]')


def test_pointing_at_a_token_shows_its_attention(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    box = attention(page, "a", 0, -1)
    before, curves = box.locator(".say").inner_text(), box.locator(".curves").inner_html()
    token = pair.a.tokens.index("eating")
    box.locator(".flow .from text").nth(token).hover()
    said = box.locator(".say").inner_text()
    average = pair.a.attention[0].mean(dim=0)
    assert said.startswith("Average of the heads: “eating” attends to ")
    check_weights(said, average[token], pair.a.tokens)
    assert box.locator(".curves").inner_html() != curves
    box.locator(".flow .to text").nth(token).hover()
    said = box.locator(".say").inner_text()
    assert "“eating” is attended to by " in said
    check_weights(said, average[:, token], pair.a.tokens)
    page.mouse.move(0, 0)
    assert (box.locator(".say").inner_text(), box.locator(".curves").inner_html()) == (before, curves)


def check_weights(said: str, weights: torch.Tensor, tokens: list[str]) -> None:
    """“token” 31 %, …: the largest, each within what a byte can say."""
    found = re.findall(r"“([^”]+)” (\d+) %", said)
    assert len(found) >= 3
    order = weights.argsort(descending=True).tolist()
    assert found[0][0] == tokens[order[0]]
    for (token, percent), at in zip(found, order, strict=False):
        best = min((abs(100 * weights[j].item() - int(percent)) for j, name in enumerate(tokens) if name == token))
        assert best < 0.75, (token, percent, weights[at])


def test_the_matrix_of_a_head_can_be_chosen_and_pointed_at(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    box = attention(page, "b", 0, -1)
    picture = box.locator(".matrix image")
    average = picture.get_attribute("href")
    attention(page, "b", 0, 2)
    assert picture.get_attribute("href") != average
    matrix = box.locator(".matrix")
    left, top, cell = (int(matrix.get_attribute(f"data-{name}")) for name in ("left", "top", "cell"))
    i, j = pair.b.tokens.index("having"), pair.b.tokens.index("meal")
    scale = matrix.bounding_box()["width"] / float(matrix.get_attribute("width"))
    matrix.hover(position={"x": scale * (left + cell * (j + 0.5)), "y": scale * (top + cell * (i + 0.5))})
    weight = 100 * pair.b.attention[0, 2, i, j].item()
    said = box.locator(".say").inner_text()
    percent = re.fullmatch(r"Head 3: “having” takes (\d+) % from “meal”\.", said)[1]
    assert abs(int(percent) - weight) < 0.51
    attention(page, "b", 0, -1)
    assert picture.get_attribute("href") == average


def test_it_opens_on_the_most_telling_head_and_a_and_b_show_the_same(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    (layer,) = [int(box.get_attribute("data-layer")) for box in page.locator(".layer[open]").all()]
    head = int(page.locator(".layer[open] .head input:checked").get_attribute("value"))
    strength = torch.zeros(6, 12)
    for one in pair.a, pair.b:
        words = range(1, len(one.tokens) - 2)  # all but [CLS], the full stop and [SEP]
        for i in words:
            strength += torch.stack([one.attention[:, :, i, j] for j in words if abs(i - j) > 1]).amax(dim=0) / len(words)
    assert (layer, head) == divmod(strength.argmax().item(), 12)
    for name in "ab":
        assert say(page, f'.layer[open] [data-sentence="{name}"] .say').startswith(f"Head {head + 1}.")


def test_a_clicked_token_shows_query_keys_scores_and_softmax(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    box = attention(page, "a", 3, 5)
    token = pair.a.tokens.index("eating")
    box.locator(".flow .from text").nth(token).click()
    panel = box.locator(".scores")
    assert panel.locator("h4").inner_text() == "“eating” in layer 4, head 6: softmax of q·k / √32"
    assert panel.locator("canvas").count() == 1 + len(pair.a.tokens)
    rows = [row.locator("td").all_inner_texts()[1:] for row in panel.locator("tbody tr").all()]
    scores = pair.a.key[3, 5] @ pair.a.query[3, 5, token] / 32**0.5
    assert [number(score) for score, _ in rows] == pytest.approx(scores.tolist(), abs=0.0051)
    assert [number(weight) for _, weight in rows] == pytest.approx(pair.a.attention[3, 5, token].tolist(), abs=0.00051)
    page.mouse.move(0, 0)
    assert panel.is_visible()
    assert "Pinned" in box.locator(".say").evaluate("(say) => getComputedStyle(say, '::after').content")
    box.locator(".flow .from text").nth(token).click()
    assert panel.is_hidden()


def test_attention_answers_to_the_keyboard_alone(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    box = attention(page, "a", 0, -1)
    at_rest = box.locator(".say").inner_text()
    page.locator("#layer-1 .mean input").focus()
    page.keyboard.press("Tab")  # from the heads to the picture
    assert page.evaluate("document.activeElement.className") == "look"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "“a” attends to " in box.locator(".say").inner_text()
    page.keyboard.press("ArrowRight")
    assert re.search(r"“a” takes \d+ % from “\[CLS\]”", box.locator(".say").inner_text())
    page.keyboard.press("Enter")
    assert "Choose a head" in box.locator(".scores").inner_text()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowLeft")  # from the average to the last head
    assert "head 12: softmax" in box.locator(".scores").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert box.locator(".say").inner_text() == at_rest
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert "“[SEP]” attends to " in box.locator(".say").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "“[CLS]” is attended to by " in box.locator(".say").inner_text()


def test_layers_open_by_key_and_all_at_once(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file)
    layers = page.locator(".layer")
    assert [layer.get_attribute("open") is not None for layer in layers.all()] == [False] * 5 + [True]
    page.locator("#layer-2 > summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#layer-2 .flow").first.is_visible()
    page.locator("#all-layers").press("Enter")
    assert page.locator(".layer[open]").count() == 6
    page.locator("#all-layers").press("Enter")
    assert page.locator(".layer[open]").count() == 0


def test_pointing_at_a_token_shows_with_whom_it_is_similar(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    i, j = pair.a.tokens.index("eating"), pair.b.tokens.index("meal")
    words = page.locator(".spoken.b .tok")
    before = words.nth(j).get_attribute("style")
    page.locator(".spoken.a .tok").nth(i).hover()
    share = pair.pair_matrix[i]
    said = say(page, "#pair-say")
    assert said.startswith(f"“eating” adds {share.sum().item():.4f} to the cosine, 0.6888: most with “meal” {share[j].item():.4f}")
    tints = [float(word.get_attribute("style").split(":")[1].rstrip("; ")) for word in words.all()]
    assert tints == pytest.approx((share * 64 / 2).clamp(max=1).tolist(), abs=0.01)
    page.mouse.move(0, 0)
    assert say(page, "#pair-say").startswith("All 64 pairs of tokens add to it: together 0.6888.")
    assert words.nth(j).get_attribute("style").replace(" ", "").rstrip(";") == before.replace(" ", "").rstrip(";")
    page.locator(f'#pair-matrix td[data-i="{i}"][data-j="{j}"]').hover()
    assert say(page, "#matrix-say") == "“eating” and “meal” add 0.0467 to the cosine, 0.6888."
    page.locator(f'#pair-matrix th[data-j="{j}"]').hover()
    assert say(page, "#matrix-say").startswith(f"“meal” adds {pair.pair_matrix[:, j].sum().item():.4f}")


def test_pairs_answer_to_the_keyboard_alone(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    page.locator("#pair-matrix").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert say(page, "#matrix-say").startswith(f"“a” and “someone” add {pair.pair_matrix[1, 1].item():.4f}")
    assert page.locator("#pair-matrix td.on").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("#pair-matrix td.on").count() == 0
    page.locator(".spoken.b .tok").first.focus()
    page.keyboard.press("ArrowRight")
    assert say(page, "#pair-say").startswith("“someone” adds ")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert say(page, "#pair-say").startswith("“someone” adds ")  # pinned
    page.keyboard.press("Escape")
    assert say(page, "#pair-say").startswith("All 64 pairs")


def test_a_tap_pins_and_a_second_one_releases(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file, width=390, has_touch=True, is_mobile=True)
    word = page.locator(".spoken.a .tok", has_text="eating")
    word.tap()
    assert say(page, "#pair-say").startswith("“eating” adds ")
    assert word.get_attribute("aria-pressed") == "true"
    page.locator(".spoken.b .tok", has_text="meal").tap()
    assert say(page, "#pair-say").startswith("“meal” adds ")
    page.locator(".spoken.b .tok", has_text="meal").tap()
    assert say(page, "#pair-say").startswith("All 64 pairs")
    text = page.locator(".layer[open] .flow .from text").nth(3)
    text.tap()
    assert page.locator(".layer[open] .scores").first.is_visible()
    strip = page.locator('.strip[data-vector="a"]')
    strip.tap()
    assert say(page, "#number-a").startswith("number 19")


def test_an_unrelated_pair_is_pale_and_says_what_pulls_apart(opened: Open, minilm: SentenceEncoder, tmp_path: Path) -> None:
    t = minisbert.trace("The stock market fell sharply today.", "A cat sleeps on the warm windowsill.", model=minilm)
    t.save_html(tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    strengths = [float(word.get_attribute("style").removeprefix("--v:")) for word in page.locator(".spoken.a .tok").all()]
    assert strengths == pytest.approx((t.pair_matrix.sum(dim=1).abs() * len(t.a.tokens)).tolist(), abs=1e-3)
    assert max(strengths) < 0.25  # of the related pair the strongest are full
    more, less = (t.pair_matrix[sign * t.pair_matrix > 0].sum().item() for sign in (1, -1))
    together = f"pull together, {more:.4f}; {(t.pair_matrix < 0).sum()} pull apart, −{-less:.4f}. The sum is −{-t.cosine:.4f}."
    assert together in say(page, "#pair-say")
    page.locator(".spoken.a .tok", has_text="stock").hover()
    given = t.pair_matrix[t.a.tokens.index("stock")]
    said = say(page, "#pair-say")
    assert said.startswith(f"“stock” takes {-given.sum().item():.4f} away from the cosine, −{-t.cosine:.4f}: with ")
    assert f"“{t.b.tokens[given.argmin()]}” −{-given.min().item():.4f}" in said
    worst = page.locator(".tops .did").nth(1).locator("tbody tr").first
    assert number(worst.locator(".bar").inner_text()) == pytest.approx(t.pair_matrix.min().item(), abs=1e-4)
    assert (
        "%" not in page.locator("#pairs").inner_text() + page.locator("#text").inner_text() + page.locator("#pooling").inner_text()
    )


def test_special_tokens_and_punctuation_can_be_faded(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file)
    background = "(word) => getComputedStyle(word).backgroundColor"
    words = page.locator(".spoken.a .tok").all()
    before = [word.evaluate(background) for word in words]
    page.locator("#fade").press("Enter")
    faded = [word.evaluate(background) == "rgba(0, 0, 0, 0)" for word in words]
    assert faded == [True] + [False] * 5 + [True] * 2  # [CLS] … . [SEP]
    page.locator("#fade").press("Enter")
    assert [word.evaluate(background) for word in words] == before


def test_the_strip_stays_in_sight_and_the_arrow_keys_walk_the_sections(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file, reduced_motion="reduce")
    seen = []
    for _ in range(9):
        page.keyboard.press("ArrowRight")
        (current,) = page.locator("nav a[aria-current=step]").all()
        seen.append(current.get_attribute("href"))
        top = page.locator(seen[-1]).bounding_box()["y"]
        assert 0 <= top - page.locator("nav").bounding_box()["height"] < 40, seen[-1]
        assert page.locator("nav").bounding_box()["y"] == 0
    assert seen == [link.get_attribute("href") for link in page.locator("nav a").all()][1:] + seen[-1:]
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.id") == "pairs-title"
    page.locator('nav a[href="#text"]').click()
    assert page.evaluate("scrollY") == 0


def test_a_number_of_the_vector_can_be_read(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file)
    strip = page.locator('.strip[data-vector="a"]')
    strip.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    said = say(page, "#number-a")
    assert number(said.removeprefix("number 2 of 384: ")) == pytest.approx(pair.a.embedding[1].item(), rel=1e-8)
    page.keyboard.press("End")
    assert say(page, "#number-a").startswith("number 384 of 384: ")
    page.keyboard.press("Escape")
    strip.hover()
    assert say(page, "#number-a").startswith("number 19")


# Any text, any screen, any reader


def test_any_text_is_shown_and_none_is_run(opened: Open, odd_file: Path) -> None:
    page = opened(odd_file)
    assert page.title().startswith("<script>document")
    shown = page.locator(".spoken.a .text").inner_text()
    assert shown == ODD.replace("\x07", "␇")
    assert page.locator(".spoken.b .text").inner_text() == LONG_WORD
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("#neighbours li").first.is_visible()
    page.locator(".spoken.a .tok").first.hover()
    assert "[CLS]" in say(page, "#pair-say")


def test_a_script_that_got_in_would_not_be_run(opened: Open, odd_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(odd_file.read_text("utf-8").replace("<main>", "<main><script>document.title = 'run'</script>"), "utf-8")
    context = opened(odd_file).context
    page = context.new_page()  # a page of its own, whose complaint is expected
    page.goto(broken.as_uri())
    assert page.title() != "run"
    assert page.locator("html.js").count() == 1
    page.close()


@pytest.mark.parametrize("file", ["pair_file", "odd_file"])
@pytest.mark.parametrize("width", [320, 360, 768, 1920])
def test_no_screen_is_too_narrow(opened: Open, request: pytest.FixtureRequest, file: str, width: int) -> None:
    page = opened(request.getfixturevalue(file), width=width)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_pictures_grow_with_a_wide_screen_and_keep_their_size_on_a_phone(opened: Open, pair_file: Path) -> None:
    for width, larger in (390, False), (1920, True):
        page = opened(pair_file, width=width)
        for picture in "#embeddings svg", ".moves svg", ".layer[open] .flow", ".layer[open] .matrix", ".chart >> visible=true":
            first = page.locator(picture).first
            scale = first.bounding_box()["width"] / float(first.get_attribute("width"))
            assert scale > 1.1 if larger else scale > 0.999, (picture, width)
            assert scale == pytest.approx(1) or first.bounding_box()["width"] <= width, (picture, width)
            assert first.bounding_box()["height"] == pytest.approx(scale * float(first.get_attribute("height")), abs=1)


def test_a_line_of_code_is_broken_on_a_wide_screen_only(opened: Open, pair_file: Path) -> None:
    for width, broken in (390, False), (1280, True):
        page = opened(pair_file, width=width)
        page.evaluate("for (const details of document.querySelectorAll('.source')) details.open = true")
        heights = [line.bounding_box()["height"] for line in page.locator("#pooling .line").all()]
        assert (max(heights) > 1.5 * min(heights)) is broken


def test_the_pieces_of_a_word_follow_one_another_as_its_letters_do(opened: Open, odd_file: Path) -> None:
    page = opened(odd_file)
    for word, right_to_left in ("שלום", True), ("unbelievable", False):
        pieces = page.locator(".word", has_text=word).first.locator(".piece")
        first, last = pieces.first.bounding_box(), pieces.last.bounding_box()
        assert (first["x"] > last["x"]) is right_to_left


def test_a_table_of_a_layer_is_as_wide_as_its_column(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file, width=1440)
    page.locator(".layer[open] details summary").first.click()
    assert page.locator(".layer[open] .scroll:has(.did)").first.evaluate("(box) => box.scrollWidth - box.clientWidth") <= 0


def test_without_javascript_it_is_a_whole_document(opened: Open, pair_file: Path, pair: Trace) -> None:
    page = opened(pair_file, java_script_enabled=False)
    assert page.locator("#answer").inner_text() == "0.688833"
    assert page.locator(".js-only >> visible=true").count() == 0
    assert page.locator(".head.mean").first.is_hidden()
    page.locator("#layer-5 > summary").click()
    assert page.locator("#layer-5 .flow").first.is_visible()
    assert page.locator("#layer-5 .flow path").count() > 2 * 8
    assert page.locator("#layer-5 .thumb").count() == 24
    page.locator("#layer-5 details summary").first.click()
    assert page.locator("#layer-5 .did").first.locator("tbody tr").count() == len(pair.a.tokens)
    assert page.locator("#pair-matrix td[data-j]").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(opened: Open, pair_file: Path, scheme: str) -> None:
    page = opened(pair_file, color_scheme=scheme)
    colours = page.evaluate(
        """() => {
          const probe = document.body.appendChild(document.createElement('i'));
          const rgb = (name) => {
            probe.style.color = `var(--${name})`;
            return getComputedStyle(probe).color.match(/\\d+/g).map(Number);
          };
          return Object.fromEntries(['ink', 'soft', 'a', 'b', 'paper', 'card', 'code'].map((name) => [name, rgb(name)]));
        }"""
    )
    assert (luminance(colours["paper"]) > 0.5) is (scheme == "light")
    for text, ground in [(text, ground) for text in ("ink", "soft") for ground in ("paper", "card", "code")] + [
        ("paper", "a"),
        ("paper", "b"),
        ("a", "code"),
        ("b", "code"),
    ]:
        light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)  # WCAG 2.2, success criterion 1.4.3


def luminance(rgb: list[int]) -> float:
    parts = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_on_paper_it_is_black_on_white_without_buttons(opened: Open, pair_file: Path) -> None:
    page = opened(pair_file, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("nav").is_hidden()
    assert page.locator("#all-layers").is_hidden()
    assert len(page.pdf()) > 50_000


OVERLAPPING = """() => {
  const boxes = [...document.querySelectorAll('svg, p, table, h2, h3, .say, .how, figcaption, fieldset')].filter((element) =>
    element.getClientRects().length && !element.closest('details:not([open])') &&
    !element.parentElement.closest('.how, table, fieldset, svg'));
  return boxes.flatMap((one, i) => boxes.slice(i + 1).filter((other) => {
    const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
    return !one.contains(other) && !other.contains(one) && a.left < b.right - 2 && b.left < a.right - 2 && a.top < b.bottom - 2 &&
      b.top < a.bottom - 2;
  }).map((other) => one.outerHTML.slice(0, 80) + other.outerHTML.slice(0, 80)));
}"""


def test_screen_readers_are_told_what_everything_is(opened: Open, odd_file: Path) -> None:
    page = opened(odd_file)
    page.locator("#all-layers").click()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("svg:not([aria-label]), img:not([alt]), input:not([name]), section:not([aria-labelledby])").count() == 0
    assert page.locator("[tabindex='0']:not([aria-label]):not(table, .tok)").count() == 0
    assert page.locator("table:not(:has(caption))").count() == 0
    unlabelled = "[...document.querySelectorAll('input')].filter((i) => !i.labels.length || !i.labels[0].textContent.trim()).length"
    assert page.evaluate(unlabelled) == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    described = page.evaluate("[...document.querySelectorAll('[aria-describedby]')].map((e) => e.getAttribute('aria-describedby'))")
    assert set(described) <= set(ids)
    assert set(described) == set(page.evaluate("[...document.querySelectorAll('[aria-live=polite]')].map((e) => e.id)"))


def axe(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds: the rule, and the first element that breaks it."""
    script = Path(axe_core_python.__file__).with_name("axe.min.js").read_text("utf-8")
    page.evaluate(script + "; true")
    found = page.evaluate("axe.run({ resultTypes: ['violations'] }).then((results) => results.violations)")
    return [(rule["id"], rule["nodes"][0]["html"][:300]) for rule in found]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_core_finds_nothing(opened: Open, pair_file: Path, scheme: str, width: int) -> None:
    page = opened(pair_file, width=width, color_scheme=scheme, bypass_csp=True)
    page.evaluate("for (const details of document.querySelectorAll('.source, #pooling details')) details.open = true")
    page.evaluate("for (const layer of document.querySelectorAll('.layer')) layer.open = false")
    attention(page, "a", 2, 1).locator(".flow .from text").nth(2).click()
    if scheme == "dark":
        page.locator("#fade").click()
    assert axe(page) == []


# Sizes and kinds of models


def test_twelve_layers_of_32_tokens_stay_below_two_megabytes(tmp_path: Path) -> None:
    save_tiny(tmp_path, hidden_size=96, num_hidden_layers=12, num_attention_heads=12)
    t = minisbert.trace(
        "the cat sat on a mat . " * 4 + "red water", "the dog is on the red mat ! " * 3 + "a man , a dog .", model=str(tmp_path)
    )
    assert len(t.a.tokens) == len(t.b.tokens) == 32
    assert t.a.attention.shape == (12, 12, 32, 32)
    missing = 2 * 13 * (768 - 96)  # the values of the vectors of a model as wide as bert-base
    assert len(t.html().encode()) + missing < 2_000_000


def test_a_single_sentence_has_no_pair_steps(opened: Open, minilm: SentenceEncoder, tmp_path: Path) -> None:
    minisbert.trace("", model=minilm).save_html(tmp_path / "one.html")
    page = opened(tmp_path / "one.html")
    assert page.locator("h1").inner_text() == "How a sentence becomes a vector"
    assert page.locator("section.step").count() == 5
    assert page.locator(".badge").count() == 0
    assert page.locator(".word").count() == 2


def test_a_long_pair_is_drawn_with_the_average_of_its_heads(opened: Open, minilm: SentenceEncoder, tmp_path: Path) -> None:
    a, b = "The sky is blue and the sea is green. " * 12, "A man is eating food with a friend. " * 40
    with pytest.warns(minisbert.MinisbertWarning, match=naming("b:", "256")):
        minisbert.trace(a, b, model=minilm).save_html(tmp_path / "long.html")
    page = opened(tmp_path / "long.html", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".heads").count() == 0
    assert "pieces were cut" in page.locator(".cut").inner_text()
    page.locator(".layer[open] .flow .from text").nth(3).hover()
    assert say(page, ".layer[open] .say").startswith("Average of the heads: “is” attends to ")
    assert page.locator("#pair-matrix tbody tr").count() == 16  # the fifteen strongest tokens, and the others in one row
    assert number(page.locator("#pair-matrix tfoot td:last-child").inner_text()) == pytest.approx(
        float(page.locator("#answer").get_attribute("data-value")), abs=1e-4
    )
    assert page.locator("#pairs svg.grid").count() == 1
    page.set_viewport_size({"width": 718, "height": 1000})  # as a sheet of A4
    page.emulate_media(media="print")
    assert page.evaluate(OVERLAPPING) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 360, "height": 800})
    box = page.locator(".layer[open] .tall").first
    assert box.bounding_box()["height"] < 700
    page.mouse.move(0, 0)
    page.locator(".layer[open] .look").first.focus()
    page.keyboard.press("ArrowUp")  # the last token, far below
    assert box.evaluate("(box) => box.scrollTop") > 500


def test_of_a_model_that_was_trained_here_it_says_how(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny")
    encoder = minisbert.load(tmp_path / "tiny", device="cpu")
    rows = [("the cat sat", "a cat", 0.9), ("a dog", "red water", 0.1)] * 4
    history = fit(encoder, rows, loss=CosineSimilarityLoss(), batch_size=4, save_to=tmp_path / "mine", show_progress_bar=False)
    page = minisbert.trace("the cat sat", "a dog", model=str(tmp_path / "mine")).html()
    losses = " → ".join(f"{step.loss:.4f}" for step in history.steps)
    assert f"trained by minisbert: 2 steps, loss {losses}" in page
    assert "trained by minisbert" not in minisbert.trace("a dog", model=str(tmp_path / "tiny")).html()


def test_a_relative_attention_bias_is_shown(opened: Open, tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type="mpnet")
    t = minisbert.trace("the cat sat on a mat", "a dog", model=str(tmp_path))
    t.save_html(tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    assert page.locator("#bias svg.grid").count() == 2
    box = attention(page, "a", 1, 0)
    box.locator(".flow .from text").nth(1).click()
    rows = [[number(cell) for cell in row.locator("td").all_inner_texts()[1:]] for row in box.locator(".scores tbody tr").all()]
    scores = t.a.key[1, 0] @ t.a.query[1, 0, 1] / t.a.key.shape[-1] ** 0.5
    for row, score, bias, weight in zip(rows, scores, t.a.attention_bias[0, 1], t.a.attention[1, 0, 1], strict=True):
        assert row == pytest.approx([float(x) for x in (score, bias, score + bias, weight)], abs=0.0051)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("max", "in each dimension the largest value"),
        ("cls", "the vector of its first token"),
        ("weightedmean", "later ones count more"),
        (["cls", "mean_sqrt_len_tokens", "lasttoken"], "followed by the sum of its tokens' vectors, divided by √n"),
    ],
)
def test_every_pooling_has_its_words(opened: Open, tmp_path: Path, mode: str | list[str], said: str) -> None:
    save_tiny(tmp_path)
    write_json(tmp_path / "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": mode})
    minisbert.trace("the cat sat", "a man", model=str(tmp_path)).save_html(tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    assert said in page.locator("#pooling .plain").inner_text()
    if mode == "max":
        assert "its cosine is not a sum over pairs" in page.locator("#pairs").inner_text().lower()
        assert page.locator("#pair-matrix").count() == 0
    else:
        assert page.locator("#pair-matrix").is_visible()


def test_a_notebook_shows_it_in_a_sandbox(opened: Open, pair: Trace, tmp_path: Path) -> None:
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{pair._repr_html_()}", "utf-8")
    page = opened(tmp_path / "notebook.html")
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts"
    frame = page.frame_locator("iframe")
    assert frame.locator("#answer").inner_text() == "0.688833"
    frame.locator(".spoken.a .tok").nth(4).hover()
    assert frame.locator("#pair-say").inner_text().startswith("“eating” adds ")
    frame.locator('nav a[href="#pairs"]').click()  # it scrolls; without the script it would load the notebook into the frame
    assert frame.locator('nav a[aria-current=step][href="#pairs"]').count() == 1
    assert frame.locator("#answer").inner_text() == "0.688833"


# The picture


def test_the_picture_in_the_repository_is_what_the_package_draws(minilm_folder: Path, tmp_path: Path) -> None:
    """Its values may differ in the last digit from processor to processor; its texts and shapes may not."""
    t = minisbert.trace(*PAIR, model=minisbert.load(minilm_folder, device="cpu"))
    t.encoder.model = "all-MiniLM-L6-v2"
    t.save_svg(tmp_path / "trace.svg")
    t.save_svg(tmp_path / "trace.svg")  # over its own
    committed = Path(__file__).parents[2] / "scripts/trace.svg"
    old, new = (re.split(r"(-?\d+\.\d+)", path.read_text("utf-8")) for path in (committed, tmp_path / "trace.svg"))
    assert old[::2] == new[::2]
    assert [float(value) for value in old[1::2]] == pytest.approx([float(value) for value in new[1::2]], abs=0.11)
    assert committed.stat().st_size < 60_000
    (tmp_path / "other.svg").write_text("<svg></svg>")
    with pytest.raises(FileExistsError, match=naming(tmp_path / "other.svg")):
        t.save_svg(tmp_path / "other.svg")
    with pytest.raises(ValueError, match=naming("svg", "a", 32, 24)):
        minisbert.trace("the " * 30, "a", model=t.encoder).svg()


# The command


def test_the_command_writes_the_page_and_opens_it(minilm_folder: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    (tmp_path / "corpus.txt").write_text("A man eats.\nThe sky is blue.\n")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "minisbert",
            "trace",
            *PAIR,
            "--out",
            "page.html",
            "--open",
            "--model",
            minilm_folder,
            "--corpus",
            "corpus.txt",
        ],
        cwd=tmp_path,
        env=os.environ | {"BROWSER": str(browser), "PYTHONPATH": str(Path(minisbert.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "0.688833\n"
    assert result.stderr == "minisbert: wrote the page page.html\n"
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "The closest of 2 texts" in page
    assert (tmp_path / "opened").read_text() == (tmp_path / "page.html").as_uri() + "\n"


def test_the_command_says_as_json_what_it_did(minilm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = str(tmp_path / "page.html")
    for sentences, cosine in (PAIR, pytest.approx(0.688833, abs=1e-6)), (PAIR[:1], None):
        assert main(["trace", *sentences, "--out", page, "--json", "--model", str(minilm_folder)]) == 0
        done = json.loads(capsys.readouterr().out)
        assert done == {"page": page, "tokens": done["tokens"], "cosine": cosine}
        assert [tokens[1:-1] for tokens in done["tokens"]] == [
            sentence.lower().replace(".", " .").split() for sentence in sentences
        ]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["a", "--out", "nowhere/page.html"], ("--out", "folder", "nowhere'")),
        (["a", "--out", "page.html", "--corpus", "absent.txt"], ("absent.txt", "No such file")),
        (["a", "--out", "page.html", "--corpus", "empty.txt"], ("corpus", "no text", "one")),
    ],
)
def test_the_command_says_what_is_wrong(
    minilm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    assert main(["trace", *arguments, "--model", str(minilm_folder)]) == 2
    assert naming(*parts).search(capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["empty.txt"]


def test_a_file_that_is_no_page_is_not_overwritten(pair: Trace, tmp_path: Path) -> None:
    for _ in range(2):
        pair.save_html(tmp_path / "page.html")
    (tmp_path / "page.html").write_text("precious")
    with pytest.raises(FileExistsError, match=naming(tmp_path / "page.html")):
        pair.save_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "precious"


def test_the_package_works_from_a_zip_file(tmp_path: Path, programs: Programs) -> None:
    """As zipapp and Spark's --py-files carry it."""
    save_tiny(tmp_path / "model")
    package = Path(minisbert.__file__).parent
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        for path in package.rglob("*"):
            if path.suffix in (".py", ".html", ".css", ".js"):
                archive.write(path, path.relative_to(package.parent))
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site.zip")!r})
import minisbert
assert "site.zip" in minisbert.__file__
minisbert.trace("a man", "a cat", model={str(tmp_path / "model")!r}).save_html({str(tmp_path / "page.html")!r})
minisbert.load({str(tmp_path / "model")!r}).save({str(tmp_path / "saved")!r})
"""
    done = programs.run(code)
    assert done.returncode == 0, done.stderr
    expected = minisbert.trace("a man", "a cat", model=str(tmp_path / "model")).html()
    assert (tmp_path / "page.html").read_text("utf-8") == expected
    assert minisbert.load(tmp_path / "saved").encode("a man").equal(minisbert.load(tmp_path / "model").encode("a man"))
