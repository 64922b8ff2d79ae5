"""scripts/benchmark: its workloads are what they say, its arithmetic is right, and it refuses to time what does not agree."""

from __future__ import annotations

import doctest
import json
import math
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from checkpoints import TINY_VOCAB
from messages import naming

import minisbert

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # the processes that it starts need it too

from benchmark import exports, interface, measure, report, search, systems
from benchmark.__main__ import parse
from benchmark.figures import FIGURES, Request, fresh
from benchmark.interface import Setting, Way
from benchmark.measure import Result
from benchmark.workloads import WORKLOADS, Workload, make_workloads, sentences_of

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = [word for word in TINY_VOCAB if word.isalpha()]


@pytest.fixture(scope="module")
def workloads(minilm_folder: Path) -> tuple[dict[str, Workload], dict[str, list[int]]]:
    """A tenth of all workloads, made-up sentences, and the tokens of their texts."""
    tokenizer = minisbert.load(str(minilm_folder)).tokenizer
    tokenizer.max_length = 512
    sentences, _ = sentences_of(None, 2758)
    made = make_workloads(sentences, 0.1, lambda text: len(tokenizer([text]).ids[0]))
    return made, {name: [len(ids) for ids in tokenizer(workload.texts).ids] for name, workload in made.items()}


def test_the_workloads_are_what_they_say(workloads: tuple[dict[str, Workload], dict[str, list[int]]]) -> None:
    made, tokens = workloads
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
    sentences, _ = sentences_of(None, 300)
    first, second = (make_workloads(sentences, 0.02, lambda text: len(text.split())) for _ in range(2))
    assert first == second


def test_real_sentences_are_read_where_there_are_any(sts_folder: Path) -> None:
    sentences, kind = sentences_of(sts_folder, 10_000)
    assert len(sentences) == 2758
    assert sentences[:2] == ["A girl is styling her hair.", "A girl is brushing her hair."]
    assert kind == "STS benchmark, test split"


@pytest.mark.parametrize("way", interface.WAYS, ids=str)
def test_every_way_computes_every_sentence_once_within_its_bound(way: Way) -> None:
    lengths = [3, 700, 5, 5, 5, 90, 3, 5000] * 40
    found = interface.batches(lengths, way)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= way.tokens
        assert way.padded or len({lengths[index] for index in batch}) == 1


def test_a_ratio_is_taken_within_a_round() -> None:
    # The second round was ten times slower for both: the ratio does not see it.
    assert measure.ratios([1.0, 10.0, 1.0], [2.0, 20.0, 3.0]) == {"median": 2.0, "low": 2.0, "high": 3.0}


def test_a_percentile_is_taken_over_the_calls_of_all_rounds() -> None:
    result = Result(rounds=[[float(n) for n in range(1, 100)], [7.0]])
    assert result.medians() == [50.0, 7.0]
    assert result.percentile(99) == 98.0
    assert Result(rounds=[[3.0, 1.0]]).percentile(99) == 3.0


@pytest.mark.parametrize(
    ("precision", "near", "far"),
    [("float32", [[1 + 1e-5, 1.0]], [[1 + 2e-4, 1.0]]), ("int8", [[2.0, 1.8]], [[1.0, 0.2]])],
)
def test_vectors_that_do_not_agree_are_not_timed(precision: str, near: list[list[float]], far: list[list[float]]) -> None:
    right = np.ones((1, 2))
    measured = {"float32": 1e-5, "int8": 1 - 3.8 / math.sqrt(2 * (2**2 + 1.8**2))}
    assert measure.difference(np.array(near), right, "x", precision) == pytest.approx(measured[precision])
    for wrong in np.array(far), np.ones((2, 2)), right * np.nan:
        with pytest.raises(SystemExit, match=naming("x on short")):
            measure.difference(wrong, right, "x on short", precision)


def figures() -> dict[str, object]:
    speeds = {"minisbert": 1.0, "onnxruntime": 1.5, "openvino": 1.25, "sentence-transformers": 2.0, "gemm": 0.8}
    rounds = {name: [[seconds] * 20, [seconds * 2] * 20] for name, seconds in speeds.items()}
    results = {
        "short": {name: Result(rounds=[calls[:1] for calls in each]) for name, each in rounds.items()},
        "one": {name: Result(rounds=each) for name, each in rounds.items()},
    }
    return report.summary(results, {"short": Workload([["a", "b", "c", "d"]]), "one": Workload([["a"]] * 20, single=True)})


def test_the_goals_are_said_against_the_best_peer() -> None:
    said = "minisbert 1.25 × the best float32 peer (openvino: ); 2.00 × sentence-transformers; 1.25 × the time of its own products"
    assert list(report.goals(figures())) == [f"short: {said}", f"one: {said}"]


def test_the_table_has_a_row_for_each_system_and_percentiles_of_calls() -> None:
    lines = report.table(figures()).splitlines()
    assert lines[:2] == ["| system | short | one |", "|---|---|---|"]
    assert lines[3] == "| onnxruntime | 2/s, 1.50 [1.50–1.50] | 2250.00 ms (p99 3000.00), 1.50 [1.50–1.50] |"


def test_the_report_states_what_limits_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = report.machine(2)
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["limited_by"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert found["processor"]
    assert found["versions"]["torch"] == torch.__version__


def test_the_picture_has_a_bar_for_each_system() -> None:
    picture = ET.fromstring(report.plot(figures(), "a < b & c"))  # noqa: S314
    titles = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[:2] == ["minisbert, short: 1.00", "onnxruntime, short: 0.67"]


TEXTS = [" ".join(WORDS[: n % 23 + 1]) + " ." * (n // 23) for n in range(92)]
"""Enough for several batches."""


def test_processes_take_turns_and_agree(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PAUSE", 0)  # nothing is measured here
    workloads = {"short": Workload([TEXTS]), "one": Workload([["a man"], ["the cat"]], single=True)}
    names = ["minisbert", "sentence-transformers", "gemm"]
    tuned: dict[str, dict[str, object]] = {}
    found = measure.compare(names, workloads, Setting(tiny_folder, tiny_folder, 2, "wall"), 2, tuned=tuned)
    for name in names:
        assert [len(calls) for calls in found["one"][name].rounds] == [2, 2]
        assert min(call for calls in found["short"][name].rounds for call in calls) > 0
    assert found["short"]["sentence-transformers"].difference <= 1e-5
    assert found["short"]["gemm"].difference is None
    assert len(found["short"]["gemm"].tried) == 2  # all threads on one batch, and one batch for each thread
    assert set(tuned["short/gemm"]) == {"tokens", "padded", "apart"}


def test_products_are_spread_over_threads(tiny_folder: Path) -> None:
    gemm = systems.Gemm(Setting(tiny_folder, tiny_folder, 2, "wall"))
    seen: list[tuple[str, int]] = []
    gemm.linears[0].register_forward_pre_hook(lambda _, inputs: seen.append((threading.current_thread().name, len(inputs[0]))))
    for apart in False, True:
        gemm.encode(TEXTS, Way(apart=apart))
    once = len(seen) // 2
    assert once > 2
    assert sorted(size for _, size in seen[:once]) == sorted(size for _, size in seen[once:])
    assert {name for name, _ in seen[:once]} == {"MainThread"}
    assert "MainThread" not in {name for name, _ in seen[once:]}


def test_one_thread_leaves_one_way_to_try(tiny_folder: Path) -> None:
    way, (known, vectors, tried) = measure.prepare(
        systems.Gemm(Setting(tiny_folder, tiny_folder, 1, "wall")), Workload([TEXTS]), None
    )
    assert (way, known, vectors, tried) == (Way(), Way(), None, {})


def test_a_system_that_fails_is_named(tiny_folder: Path) -> None:
    with pytest.raises(SystemExit, match=naming("minisbert", "ModelNotFoundError", tiny_folder / "none")):
        measure.compare(["minisbert"], {}, Setting(tiny_folder / "none", tiny_folder, 1, "wall"), 1)


def test_memory_is_counted_from_torch_alone(tiny_folder: Path) -> None:
    figure = FIGURES["memory"]
    found = figure.measure(Request(Setting(tiny_folder, tiny_folder, 1, "wall"), ["a man"] * 10))
    assert 50 < found["torch"] < found["peak"]
    assert found["on_top"] == pytest.approx(found["peak"] - found["torch"] - found["weights"])
    (line,) = figure.lines(json.loads(json.dumps(found)))
    assert f"peak {found['peak']:.0f} MB = torch {found['torch']:.0f} + " in line


def test_all_searches_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAUSE", 0)  # nothing is measured here
    monkeypatch.setattr(search, "SECONDS", 0)
    for size, searches in (search.Size(3000, 5), search.SEARCHES), (search.Size(200), search.MINERS):
        runs = {  # faiss has threads of its own
            name: [(fresh if name == "faiss" else lambda call, *given: call(*given))(search.searched, name, size, 1, "cpu")]
            for name in searches
        }
        rows = search.summed(runs)
        assert all(row["seconds"] > 0 for row in rows.values())
        lines = list(search.search_lines({str(size): json.loads(json.dumps(rows))}))
        assert [f", {name}: " in line for name, line in zip(rows, lines, strict=True)] == [True] * len(rows)
        wrong = runs | {"other": [runs["minisbert"][0] | {"found": [[0]] * len(runs["minisbert"][0]["found"])}]}
        with pytest.raises(ValueError, match=naming("other", "0.", "minisbert", 0.999)):
            search.summed(wrong)


def test_every_system_names_exports_that_exist() -> None:
    for row in systems.SYSTEMS.values():
        assert set(row.exports) <= set(exports.EXPORTS)
        assert row.precision in measure.AGREEMENT


def test_the_readme_names_every_row() -> None:
    readme = (SCRIPTS / "benchmark/README.md").read_text("utf-8")
    assert [name for name in [*systems.SYSTEMS, *WORKLOADS, *FIGURES] if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("module", [interface, measure, search])
def test_the_examples_of_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_the_command_starts_from_its_folder() -> None:
    run = subprocess.run([sys.executable, SCRIPTS / "benchmark", "--help"], capture_output=True, text=True, check=True)
    text = "".join(run.stdout.split())  # names are broken at hyphens
    assert all(name in text for name in systems.SYSTEMS)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--rounds", "0"], ("--rounds", 0, 1)),
        (["--share", "2"], ("--share", 2.0, 0, 1)),
        (["--data", "nowhere"], ("--data", "stsb-test.tsv", "nowhere")),
        (["--systems", "none"], ("--systems", "'none'")),
    ],
)
def test_wrong_options_are_named(arguments: list[str], parts: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert naming(*parts).search(capsys.readouterr().err)


def test_a_family_is_a_model_of_bert_bases_size_for_the_systems_that_run_it() -> None:
    options = parse(["--family", "mpnet"])
    assert options.model == "mpnet-base"
    assert options.systems == ["minisbert", "sentence-transformers", "minisbert-int8", "gemm"]
    assert len(parse(["--family", "bert"]).systems) > 3
