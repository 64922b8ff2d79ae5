"""What is encoded: one row of `WORKLOADS` for each workload."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SENTENCES = 2758
"""So many sentences are in the test split of the STS benchmark."""

WORDS = re.findall(
    r"\w+",
    "the a of in on and to is are with for at from by man woman dog child people water street house book music game car market "
    "company president country minister police plane river mountain guitar horse kitchen field group team report price share plays "
    "runs walks eats says holds rides cuts makes jumps sits stands small large young old red white black new first last two three",
)


@dataclass
class Workload:
    """What is encoded.

    Attributes:
        calls: the texts of each call of `encode`.
        limit: the most tokens of a text; None: the model's own limit.
        single: each call gets a string, not a list of one string.
    """

    calls: list[list[str]]
    limit: int | None = None
    single: bool = False

    @property
    def texts(self) -> list[str]:
        """The texts of all calls."""
        return [text for call in self.calls for text in call]


@dataclass(frozen=True)
class Source:
    """What a workload is made from.

    Attributes:
        sentences: the sentences.
        share: the fraction of the full workload that is wanted.
        tokens_in: counts the tokens of a text.
        rng: gives the same values in every run.
    """

    sentences: Sequence[str]
    share: float
    tokens_in: Callable[[str], int]
    rng: random.Random

    def some(self, count: int) -> int:
        """The wanted share of a count, at least 4."""
        return max(4, round(count * self.share))

    def shuffled(self) -> list[str]:
        """The sentences in another order."""
        return self.rng.sample(self.sentences, len(self.sentences))

    def paragraph(self, least: int, most: int) -> str:
        """Sentences joined until they have at least `least` tokens, and at most `most`."""
        text = ""
        while self.tokens_in(text) < least:
            longer = f"{text} {self.rng.choice(self.sentences)}".strip()
            if self.tokens_in(longer) <= most:
                text = longer
        return text


def short(source: Source) -> Workload:
    """The 2,758 sentences of the STS benchmark's test split, 14 tokens on average."""
    return Workload([list(source.sentences[:: max(1, round(1 / source.share))])])


def mixed(source: Source) -> Workload:
    """600 paragraphs of these sentences, 57 tokens on average, of very different lengths."""
    least = [max(6, min(240, round(source.rng.lognormvariate(3.55, 0.85)))) for _ in range(source.some(600))]
    return Workload([[source.paragraph(tokens, 256) for tokens in least]])


def long(source: Source) -> Workload:
    """48 texts of 256 to 512 tokens, with the limit set to 512."""
    return Workload([[source.paragraph(source.rng.randint(256, 480), 512) for _ in range(source.some(48))]], limit=512)


def one(source: Source) -> Workload:
    """300 calls with a single sentence of ordinary length."""
    ordinary = sorted(source.shuffled(), key=lambda text: abs(len(text) - 50))
    return Workload([[ordinary[index % len(ordinary)]] for index in range(source.some(300))], single=True)


def thirty_two(source: Source) -> Workload:
    """40 calls with 32 sentences."""
    count = min(32, len(source.sentences))
    return Workload([source.rng.sample(source.sentences, count) for _ in range(source.some(40))])


def duplicates(source: Source) -> Workload:
    """1,200 sentences, of which a third occur a second time."""
    unique = source.shuffled()[: source.some(800)]
    doubled = unique + unique[: len(unique) // 2]
    source.rng.shuffle(doubled)
    return Workload([doubled])


WORKLOADS: dict[str, Callable[[Source], Workload]] = {
    "short": short,
    "mixed": mixed,
    "long": long,
    "one": one,
    "thirty-two": thirty_two,
    "duplicates": duplicates,
}


def make_workloads(
    sentences: Sequence[str], share: float, tokens_in: Callable[[str], int], names: Iterable[str] = tuple(WORKLOADS)
) -> dict[str, Workload]:
    """The named workloads. A workload has the same texts in every run, whichever others are made."""
    return {name: WORKLOADS[name](Source(sentences, share, tokens_in, random.Random(name))) for name in names}  # noqa: S311


def sentences_of(data: Path | None, count: int) -> tuple[list[str], str]:
    """The sentences of stsb-test.tsv, or as many made-up ones of about the same lengths; and a description of them."""
    if data is not None:
        rows = [line.split("\t") for line in (data / "stsb-test.tsv").read_text("utf-8").splitlines()[1:]]
        return [text for row in rows for text in row[1:3]][:count], "STS benchmark, test split"
    rng = random.Random(0)  # noqa: S311
    made = [" ".join(rng.choices(WORDS, k=max(3, min(40, round(rng.lognormvariate(2.25, 0.5)))))) + "." for _ in range(count)]
    return made, "made-up sentences"
