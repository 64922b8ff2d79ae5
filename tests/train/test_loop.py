"""The loop: it learns, it repeats itself bit for bit, it goes on after any end, and says clearly what is wrong."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import without_modules
from messages import naming
from torch import Tensor, nn
from train.made import evaluator, rows

import minisbert
from minisbert.checkpoint.families import to_hub_names
from minisbert.errors import CheckpointError, NotFiniteError
from minisbert.train import (
    CosineSimilarityLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
    embed,
    fit,
)


def load(tiny_folder: Path) -> minisbert.SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


def weights(encoder: minisbert.SentenceEncoder) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in to_hub_names(encoder.bert).items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_embed_gives_the_vectors_of_encode_with_gradients(minilm_folder: Path, sts_sentences: list[str]) -> None:
    encoder = load(minilm_folder)
    texts = [*sts_sentences[:20], "a", sts_sentences[0]]
    expected = encoder.encode(texts)
    found = embed(encoder, texts)
    assert found.requires_grad
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert not embed(encoder, texts[:2]).requires_grad


def test_embed_puts_the_prompt_before_each_text(tiny_folder: Path) -> None:
    encoder = load(tiny_folder)
    encoder.prompts["query"] = "the cat "
    expected = encoder.encode(["sat on"], prompt_name="query")
    torch.testing.assert_close(embed(encoder, ["sat on"], prompt_name="query").detach(), expected, rtol=0, atol=1e-5)


def test_training_raises_the_correlation_and_encode_uses_the_new_weights(tiny_folder: Path, tmp_path: Path) -> None:
    encoder, judge = load(tiny_folder), evaluator()
    before, vector = judge(encoder)["spearman_cosine"], encoder.encode("a man")
    history = fit(encoder, rows(300), loss=CosineSimilarityLoss(), epochs=4, learning_rate=3e-3, evaluate=judge)
    after = judge(encoder)["spearman_cosine"]
    assert after > before + 0.1
    assert history.best is not None
    assert after == pytest.approx(history.best.value, abs=1e-6)
    assert not torch.equal(vector, encoder.encode("a man"))
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in encoder.bert.parameters())
    assert not encoder.bert.training
    encoder.save(tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved").encode("a man"), encoder.encode("a man"), rtol=0, atol=0)
    history.save_svg(tmp_path / "run.svg")
    drawing = (tmp_path / "run.svg").read_text("utf-8")
    assert drawing.count("<polyline") == 3
    assert "spearman_cosine" in drawing
    history.save_svg(tmp_path / "run.svg")  # over its own
    (tmp_path / "run.svg").write_text("<svg>precious</svg>")
    with pytest.raises(FileExistsError, match=naming(tmp_path / "run.svg")):
        history.save_svg(tmp_path / "run.svg")


def test_the_progress_bar_has_loss_rate_speed_and_the_last_evaluation(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(load(tiny_folder), rows(20), loss=CosineSimilarityLoss(), evaluate=evaluator(), evaluate_every=1, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert re.search(r"2/2 .*loss 0\.\d+, rate \d\.\de-\d+, [\d,]+ tokens/s, spearman_cosine -?0\.\d+", shown), shown


def test_one_seed_gives_the_same_bits_and_another_does_not(tiny_folder: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        encoder = load(tiny_folder)
        state = torch.get_rng_state()
        fit(encoder, rows(40), loss=CosineSimilarityLoss(), learning_rate=1e-3, seed=seed)
        assert torch.equal(state, torch.get_rng_state())  # the caller's random numbers are untouched
        found.append(weights(encoder))
        torch.rand(3)  # nor do they matter
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_several_batches_a_step_have_the_gradient_of_one_large_batch(tiny_folder: Path) -> None:
    found = []
    for options in ({"batch_size": 32}, {"batch_size": 8, "gradient_accumulation": 4}):
        encoder = minisbert.load(tiny_folder, device="cpu", dtype=torch.float64)
        for module in encoder.bert.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.0
        history = fit(encoder, rows(32), loss=CosineSimilarityLoss(), warmup=0, learning_rate=1e-3, **options)  # type: ignore[arg-type]
        assert len(history.steps) == 1
        found.append(history.steps[0])
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-10)
    assert found[0].gradient_norm == pytest.approx(found[1].gradient_norm, rel=1e-10)
    assert found[0].tokens == found[1].tokens


@pytest.mark.parametrize("options", [{"precision": torch.bfloat16}, {"gradient_checkpointing": True}], ids=str)
def test_options_that_save_time_or_memory_train_as_well(tiny_folder: Path, options: dict[str, Any]) -> None:
    plain = fit(load(tiny_folder), rows(64), loss=CosineSimilarityLoss(), learning_rate=1e-3)
    other = fit(load(tiny_folder), rows(64), loss=CosineSimilarityLoss(), learning_rate=1e-3, **options)
    assert [step.loss for step in other.steps] == pytest.approx([step.loss for step in plain.steps], rel=0.05)


def test_a_plain_bert_is_trained_and_read_by_both_references(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    without_modules(tmp_path / "plain")
    with pytest.warns(minisbert.MinisbertWarning, match="mean"):
        encoder = load(tmp_path / "plain")
    loss = SoftmaxLoss(encoder.dimension, 3)
    classifier = loss.classifier.weight.detach().clone()
    data = {"premise": [a for a, _, _ in rows(48)], "hypothesis": [b for _, b, _ in rows(48)], "label": [i % 3 for i in range(48)]}
    fit(encoder, data, loss=loss, learning_rate=1e-3, save_to=tmp_path / "out")
    assert not torch.equal(classifier, loss.classifier.weight)
    expected = encoder.encode(["a man", "the cat sat on the mat."])
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(
        ["a man", "the cat sat on the mat."], convert_to_tensor=True
    )
    torch.testing.assert_close(expected, theirs, rtol=0, atol=1e-5)
    batch = AutoTokenizer.from_pretrained(tmp_path / "out")(["a man"], return_tensors="pt")
    states = AutoModel.from_pretrained(tmp_path / "out").eval()(**batch)[0]
    torch.testing.assert_close(expected[:1], states.mean(dim=1).detach(), rtol=0, atol=1e-5)


# --- ends and beginnings ------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, traceback, torch, minisbert
import torch._dynamo  # the first optimizer of a process imports it; here once for all forks
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from train.made import evaluator, rows
from minisbert.train import CosineSimilarityLoss, fit

def run(out):
    encoder = minisbert.load({folder!r}, device="cpu")
    judge = evaluator(10)
    def evaluate(encoder):
        print("evaluated", flush=True)
        return judge(encoder)
    fit(encoder, rows(100), loss=CosineSimilarityLoss(), epochs=3, batch_size=10, learning_rate=1e-3, save_to=out, save_every=3,
        evaluate=evaluate, evaluate_every=2)
    encoder.save(out + "-last")

for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            print(os.getpid(), flush=True)
            run(line.strip())
            status = 0
        except KeyboardInterrupt:
            status = 130
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Run:
    """A training run in a forked process of the program."""

    def __init__(self, program: subprocess.Popen[str], out: Path) -> None:
        assert program.stdin is not None
        assert program.stdout is not None
        self.lines = program.stdout
        program.stdin.write(f"{out}\n")
        program.stdin.flush()
        self.pid = int(self.lines.readline())

    def wait_for_an_evaluation(self) -> None:
        """Every second step has one."""
        assert self.lines.readline() == "evaluated\n"

    def status(self) -> int:
        """Waits for its end."""
        return int(next(line for line in self.lines if line.startswith("ended")).split()[1])


@pytest.fixture(scope="module")
def program(tiny_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """It imports everything once and forks for each run, which makes many runs cheap."""
    code = PROGRAM.format(tests=str(Path(__file__).parent.parent), folder=str(tiny_folder))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


def step_on_disk(out: Path) -> int:
    from minisbert.train.state import SavedState, state_file

    return SavedState(state_file(out)).step if state_file(out).exists() else 0


def test_a_run_killed_at_ten_random_steps_ends_with_the_bits_of_one_that_was_not(
    program: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert Run(program, tmp_path / "whole").status() == 0
    choose, killed = random.Random(0), 0
    for _ in range(10):
        run = Run(program, tmp_path / "killed")
        for _ in range(choose.randint(1, 3)):
            run.wait_for_an_evaluation()
        time.sleep(choose.random() * 0.02)  # somewhere in what follows: a step, a save of the model, or of the state
        os.kill(run.pid, signal.SIGKILL)
        killed += run.status() == -signal.SIGKILL
    assert killed >= 5
    assert 0 < step_on_disk(tmp_path / "killed") <= 30
    assert Run(program, tmp_path / "killed").status() == 0
    for name in "whole", "whole-last":
        expected, found = (weights(load(tmp_path / other)) for other in (name, name.replace("whole", "killed")))
        assert same(expected, found), name
    assert [path.name for path in (tmp_path / "killed.training").iterdir()] == ["state.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_ctrl_c_writes_the_state_after_the_step_under_way(program: subprocess.Popen[str], tmp_path: Path) -> None:
    run = Run(program, tmp_path / "out")
    run.wait_for_an_evaluation()
    os.kill(run.pid, signal.SIGINT)
    assert run.status() == 130, "KeyboardInterrupt"
    assert step_on_disk(tmp_path / "out") >= 2


def test_a_finished_run_is_not_repeated_and_another_one_is_not_continued(tiny_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"loss": CosineSimilarityLoss(), "learning_rate": 1e-3, "save_to": tmp_path / "out"}
    first, again = load(tiny_folder), load(tiny_folder)
    history = fit(first, rows(40), **options)
    start = time.perf_counter()
    assert fit(again, rows(40), **options) == history
    assert time.perf_counter() - start < 60
    assert same(weights(first), weights(again))
    with pytest.raises(CheckpointError, match=naming("out.training", "learning_rate", "'0.001'", "'0.002'")):
        fit(load(tiny_folder), rows(40), **(options | {"learning_rate": 2e-3}))
    with pytest.raises(CheckpointError, match=naming("out.training", "data")):
        fit(load(tiny_folder), rows(41), **options)


def test_a_broken_state_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training/state.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(CheckpointError, match=naming("out.training/state.safetensors")):
        fit(load(tiny_folder), rows(20), loss=CosineSimilarityLoss(), save_to=tmp_path / "out")


def test_a_folder_with_anything_else_is_left_alone(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        fit(load(tiny_folder), rows(20), loss=CosineSimilarityLoss(), save_to=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_run_in_the_same_folder_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"loss": CosineSimilarityLoss(), "save_to": tmp_path / "out"}

    def second(_: minisbert.SentenceEncoder) -> float:
        with pytest.raises(CheckpointError, match=naming("save_to", tmp_path / "out")):
            fit(load(tiny_folder), rows(20), **options)
        return 0.5

    assert len(fit(load(tiny_folder), rows(20), evaluate=second, **options).evaluations) == 1
    fit(load(tiny_folder), rows(20), **options | {"save_to": tmp_path / "other"})


class BreaksAt(nn.Module):
    """A loss that is NaN in one step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.calls, self.step, self.inside = 0, step, CosineSimilarityLoss()

    def forward(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        self.calls += 1
        value: Tensor = self.inside(embeddings, labels)
        return value * torch.nan if self.calls == self.step else value


def test_nan_stops_the_run_names_the_rows_and_overwrites_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    encoder = load(tiny_folder)
    options: dict[str, Any] = {"batch_size": 10, "save_to": tmp_path / "out", "save_every": 2, "evaluate_every": 2}
    with pytest.raises(NotFiniteError, match=naming("step 4", "epoch 1", "rows", "loss", "nan")):
        fit(encoder, rows(60), loss=BreaksAt(4), evaluate=evaluator(10), **options)
    assert step_on_disk(tmp_path / "out") == 2
    assert all(tensor.isfinite().all() for tensor in weights(encoder).values())
    assert load(tmp_path / "out").encode("a man").isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"examples": [("a", "b", 0.5), ("a", "b", 1.5)]}, ValueError, ("row 1", 1.5, -1, 1)),
        ({"examples": [("a", "b", 0.5), ("a", "b", float("nan"))]}, ValueError, ("row 1", "nan", -1, 1)),
        ({"examples": [("a", "b", 0), ("a", "b", 3)], "loss": SoftmaxLoss(32)}, ValueError, ("row 1", 3, 0, 2)),
        ({"examples": [("a", "b"), ("a", " ")]}, ValueError, ("examples", "row 1", "column 1", "empty")),
        ({"examples": [("a", "b")]}, ValueError, ("no labels",)),
        ({"examples": [("a", "b", "c", 1.0)]}, ValueError, ("3 columns", 2)),
        ({"examples": []}, ValueError, ("examples", "no rows")),
        ({"examples": [("a", "b", 1.0), ("a",)]}, ValueError, ("examples", "row 1", "('a',)", 3)),
        ({"examples": {"a": ["x"], "b": ["y", "z"]}}, ValueError, ("examples", "'a': 1, 'b': 2")),
        ({"examples": "a b"}, TypeError, ("examples", "str", "list", "dict")),
        ({"examples": [("a", "b", 1.0)], "loss": MultipleNegativesRankingLoss()}, ValueError, ("labels", "none")),
        ({"epochs": 0}, ValueError, ("epochs", 0)),
        ({"warmup": 2}, ValueError, ("warmup", 2, 0, 1)),
        ({"learning_rate": "fast"}, TypeError, ("learning_rate", "str", "number")),
        ({"learning_rate": float("nan")}, ValueError, ("learning_rate", "nan", 0)),
        ({"precision": torch.float16}, ValueError, ("precision", torch.float16, torch.bfloat16)),
        ({"save_every": 0, "save_to": "nowhere"}, ValueError, ("save_every", 0, 1)),
    ],
)
def test_what_is_wrong_is_said_before_training(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    parts: tuple[Any, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = load(tiny_folder)
    before = weights(encoder)
    with pytest.raises(error, match=naming(*parts)):
        fit(encoder, **({"examples": rows(4), "loss": CosineSimilarityLoss()} | options))
    assert same(before, weights(encoder))
    assert not list(tmp_path.iterdir())


def test_half_precision_weights_and_wrong_widths_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match=naming("encoder", torch.bfloat16, torch.float32)):
        fit(minisbert.load(tiny_folder, device="cpu", dtype=torch.bfloat16), rows(4), loss=CosineSimilarityLoss())
    with pytest.raises(ValueError, match=naming("matryoshka_dims", 64, 32)):
        fit(load(tiny_folder), [("a", "b"), ("c", "d")], loss=MatryoshkaLoss(MultipleNegativesRankingLoss(), [64]))
    with pytest.raises(TypeError, match="SoftmaxLoss"):
        MatryoshkaLoss(SoftmaxLoss(32), [8])


def test_texts_that_are_cut_are_counted(tiny_folder: Path) -> None:
    with pytest.warns(minisbert.MinisbertWarning, match=naming("1 of 2", "32 tokens")):
        fit(load(tiny_folder), [("a " * 50, "b", 0.5), ("a", "b", 1.0)], loss=CosineSimilarityLoss())


def test_the_history_in_the_state_is_json_that_anyone_can_read(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    fit(load(tiny_folder), rows(20), loss=CosineSimilarityLoss(), save_to=tmp_path / "out")
    with safe_open(tmp_path / "out.training/state.safetensors", "pt") as opened:
        about = json.loads(opened.metadata()["about"])
    assert about["finished"]
    assert [step["number"] for step in about["history"]["steps"]] == [1, 2]
