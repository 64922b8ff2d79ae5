"""scripts/benchmark.py: its workloads are what they say, its arithmetic is right, and it refuses to time what does not agree."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from checkpoints import TINY_VOCAB, save_tiny

import minisbert

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # for the processes that it starts, too

import benchmark
from benchmark import Result, Way, Workload

WORDS = [word for word in TINY_VOCAB if word.isalpha()]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timed")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def workloads(minilm_folder: Path) -> tuple[dict[str, Workload], dict[str, list[int]]]:
    """A tenth of all workloads, made-up sentences, and the tokens of their texts."""
    tokenizer = minisbert.load(str(minilm_folder)).tokenizer
    tokenizer.max_length = 512
    sentences, _ = benchmark.sentences_of(None, 2758)
    made = benchmark.make_workloads(sentences, 0.1, lambda text: len(tokenizer([text]).ids[0]))
    return made, {name: [len(ids) for ids in tokenizer(workload.texts).ids] for name, workload in made.items()}


def test_the_workloads_are_what_they_say(workloads: tuple[dict[str, Workload], dict[str, list[int]]]) -> None:
    made, tokens = workloads
    assert list(made) == ["short", "mixed", "long", "one", "thirty-two", "duplicates"]
    assert 10 < statistics.mean(tokens["short"]) < 18
    assert 45 < statistics.mean(tokens["mixed"]) < 75
    assert min(tokens["mixed"]) < 16
    assert 128 < max(tokens["mixed"]) <= 256
    assert min(tokens["long"]) >= 256
    assert max(tokens["long"]) <= 512
    assert made["long"].limit == 512
    assert {len(call) for call in made["one"].calls} == {1}
    assert {len(call) for call in made["thirty-two"].calls} == {32}
    doubled = made["duplicates"].texts
    assert len(doubled) - len(set(doubled)) == len(doubled) // 3


def test_the_workloads_are_the_same_at_every_run() -> None:
    sentences, _ = benchmark.sentences_of(None, 300)
    first, second = (benchmark.make_workloads(sentences, 0.02, lambda text: len(text.split())) for _ in range(2))
    assert first == second


def test_real_sentences_are_read_where_there_are_any(sts_folder: Path) -> None:
    sentences, kind = benchmark.sentences_of(sts_folder, 10_000)
    assert len(sentences) == 2758
    assert sentences[:2] == ["A girl is styling her hair.", "A girl is brushing her hair."]
    assert kind == "STS benchmark, test split"


@pytest.mark.parametrize("way", benchmark.WAYS, ids=str)
def test_every_way_computes_every_sentence_once_within_its_bound(way: Way) -> None:
    lengths = [3, 700, 5, 5, 5, 90, 3, 5000] * 40
    found = benchmark.batches(lengths, way)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= way.tokens
        assert way.padded or len({lengths[index] for index in batch}) == 1


def test_a_ratio_is_taken_within_a_round() -> None:
    # The second round was ten times slower for both: the ratio does not see it.
    assert benchmark.ratios([1.0, 10.0, 1.0], [2.0, 20.0, 3.0]) == {"median": 2.0, "low": 2.0, "high": 3.0}


def test_quantiles_are_those_of_the_calls() -> None:
    result = Result(rounds=[[float(n) for n in range(1, 101)], [7.0]])
    assert result.figures() == [50.5, 7.0]
    assert result.figures(0.99) == [99.0, 7.0]


def test_vectors_that_do_not_agree_are_not_timed() -> None:
    right = np.ones((2, 3), dtype=np.float32)
    assert benchmark.difference(right + 1e-6, right, "x") == pytest.approx(1e-6, rel=0.1)
    for wrong in right + 2e-4, right[:1], right * np.nan:
        with pytest.raises(SystemExit, match=r"the vectors of x on short .*Nothing is timed"):
            benchmark.difference(wrong, right, "x on short")


def figures() -> dict[str, object]:
    speeds = {"minisbert": 1.0, "onnxruntime": 1.5, "openvino": 1.25, "sentence-transformers": 2.0, "gemm": 0.8}
    results = {"short": {name: Result(rounds=[[seconds], [seconds * 2]]) for name, seconds in speeds.items()}}
    return benchmark.summary(results, {"short": Workload("short", [["a", "b", "c", "d"]])})


def test_the_goals_are_said_against_the_best_peer() -> None:
    assert list(benchmark.goals(figures())) == [
        "short: 1.25 × the best peer (openvino: ); 2.00 × sentence-transformers; 1.25 of its own GEMMs' time"
    ]


def test_the_table_has_a_row_for_each_system() -> None:
    lines = benchmark.table(figures()).splitlines()
    assert lines[:2] == ["| system | short |", "|---|---|"]
    assert lines[3] == "| onnxruntime | 2/s, 1.50 [1.50–1.50] |"


def test_the_picture_has_a_bar_for_each_system() -> None:
    picture = ET.fromstring(benchmark.plot(figures(), "a < b & c"))  # noqa: S314
    titles = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[:2] == ["minisbert, short: 1.00", "onnxruntime, short: 0.67"]


def test_processes_take_turns_and_agree(tiny: Path) -> None:
    texts = [" ".join(WORDS[:n]) for n in range(1, 9)]
    workloads = {"short": Workload("short", [texts]), "one": Workload("one", [["a man"], ["the cat"]], single=True)}
    names = ["minisbert", "sentence-transformers", "gemm"]
    tuned: dict[str, object] = {}
    found = benchmark.compare(names, workloads, (tiny, tiny, 1, "wall"), 2, tuned, lambda _: None, lambda: None)
    for name in names:
        assert [len(calls) for calls in found["one"][name].rounds] == [2, 2]
        assert min(call for calls in found["short"][name].rounds for call in calls) > 0
    assert found["short"]["sentence-transformers"].difference <= 1e-5
    assert found["short"]["gemm"].difference is None
    assert tuned["short/gemm"] == {"tokens": 0, "padded": False, "apart": False}


def test_a_system_that_fails_is_named(tiny: Path) -> None:
    with pytest.raises(SystemExit, match=r"benchmark: minisbert failed:\n(.|\n)*Error: (.|\n)*none"):
        benchmark.compare(["minisbert"], {}, (tiny / "none", tiny, 1, "wall"), 1, {}, lambda _: None, lambda: None)


def test_memory_is_counted_from_torch_alone(tiny: Path) -> None:
    found = benchmark.measure_memory(tiny, 1, ["a man"] * 10)
    assert 50 < found["torch"] < found["peak"]
    assert found["on_top"] == pytest.approx(found["peak"] - found["torch"] - found["weights"])
    json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: found 0, expected at least 1"),
        (["--share", "2"], "--share: found 2.0, expected more than 0, up to 1"),
        (["--data", "nowhere"], "--data: found no stsb-test.tsv in nowhere"),
        (["--systems", "none"], "invalid choice: 'none'"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.parse(arguments)
    assert message in capsys.readouterr().err
