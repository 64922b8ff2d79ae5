"""The weights of the modules after the pooling: read as sentence-transformers writes them, refused by name when they are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import write_json
from layouts import HIDDEN, dense, laid, moved
from messages import naming
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense
from torch import Tensor, nn

import minisbert
from minisbert import CheckpointError, MinisbertWarning
from minisbert.inference.engine import finish
from minisbert.pooling import ACTIVATIONS

Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules") / "one"
    laid(folder, after=[("Dense", dense(HIDDEN, 12)), ("LayerNorm", {"dimension": 12})])
    return folder


def test_the_table_has_every_activation_of_torch_that_works_on_each_value_alone_and_needs_no_argument() -> None:
    from torch.nn.modules import activation

    left_out = {
        "GLU",  # halves the vector
        "MultiheadAttention",
        "PReLU",  # has a weight
        "RReLU",  # is random
        "Softmax", "Softmax2d", "Softmin", "LogSoftmax",  # look at the whole vector, along a dimension that is not given
        "Threshold",  # needs arguments
    }  # fmt: skip
    assert set(ACTIVATIONS) == (set(activation.__all__) - left_out) | {"Identity"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_dense_layer_with_any_activation_gives_what_sentence_transformers_gives(
    healthy: Path, tmp_path: Path, activation: str
) -> None:
    theirs = moved(Dense(HIDDEN, 12, activation_function=getattr(nn, activation)()), seed=3)
    (tmp_path / "2_Dense").mkdir()
    theirs.save(str(tmp_path / "2_Dense"))
    rows = json.loads((healthy / "modules.json").read_text(encoding="utf-8"))[:3]
    for file in healthy.rglob("*"):
        if file.is_file() and file.parent.name not in ("2_Dense", "3_LayerNorm"):
            copy = tmp_path / file.relative_to(healthy)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    write_json(tmp_path / "modules.json", rows)
    encoder = minisbert.load(tmp_path, dtype=torch.float64, device="cpu")
    vectors = torch.linspace(-9, 9, 40 * HIDDEN, dtype=torch.float64).view(40, HIDDEN)
    with torch.no_grad():
        expected = theirs.double()({"sentence_embedding": vectors})["sentence_embedding"]
        torch.testing.assert_close(finish(encoder.modules, vectors), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("folder", "change", "parts"),
    [
        ("2_Dense", lambda w: w.pop("linear.weight"), ("linear.weight", "missing", [12, 32])),
        ("2_Dense", lambda w: w.pop("linear.bias"), ("linear.bias", "missing", [12])),
        ("2_Dense", lambda w: w.update({"linear.weight": torch.ones(32, 12)}), ("linear.weight", [32, 12], [12, 32])),
        ("2_Dense", lambda w: w.update({"linear.bias": torch.ones(12).int()}), ("linear.bias", "I32", "floating-point")),
        ("2_Dense", lambda w: w["linear.weight"].view(-1)[5].fill_(torch.nan), ("linear.weight", "NaN", "1,000,000")),
        ("2_Dense", lambda w: w["linear.bias"][5].fill_(torch.inf), ("linear.bias", "infinite", "1,000,000")),
        ("3_LayerNorm", lambda w: w.pop("norm.bias"), ("norm.bias", "missing", [12])),
        ("3_LayerNorm", lambda w: w.update({"norm.weight": torch.ones(1)}), ("norm.weight", [1], [12])),
        ("3_LayerNorm", lambda w: w.clear(), ("norm.weight", "missing", [12])),
    ],
)
def test_wrong_weights_of_a_module_are_named(healthy: Path, folder: str, change: Change, parts: tuple[object, ...]) -> None:
    file = healthy / folder / "model.safetensors"
    before = file.read_bytes()
    tensors = load_file(file)
    change(tensors)
    save_file(tensors or {"other": torch.ones(1)}, file)
    try:
        with pytest.raises(CheckpointError, match=naming(f"{folder}/model.safetensors", f"{folder}/config.json", *parts)):
            minisbert.load(healthy, device="cpu")
    finally:
        file.write_bytes(before)


def test_the_values_of_a_module_are_looked_at_only_when_all_of_it_is_there(healthy: Path) -> None:
    file = healthy / "2_Dense/model.safetensors"
    before = file.read_bytes()
    save_file({"linear.weight": torch.full((12, HIDDEN), torch.nan)}, file)
    try:
        with pytest.raises(CheckpointError) as caught:
            minisbert.load(healthy, device="cpu")
        assert str(caught.value).splitlines()[1:] == ["  linear.bias: missing, expected [12]"]
    finally:
        file.write_bytes(before)


def test_a_module_without_a_file_of_weights_or_with_a_broken_one_is_named(healthy: Path) -> None:
    file = healthy / "2_Dense/model.safetensors"
    before = file.read_bytes()
    try:
        file.write_bytes(before[:-1])
        with pytest.raises(CheckpointError, match=naming("2_Dense/model.safetensors", "safetensors")):
            minisbert.load(healthy, device="cpu")
        file.unlink()
        with pytest.raises(CheckpointError, match=naming("2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")):
            minisbert.load(healthy, device="cpu")
    finally:
        file.write_bytes(before)


def test_a_tensor_of_a_module_that_is_not_used_is_named_in_a_warning(healthy: Path) -> None:
    file = healthy / "2_Dense/model.safetensors"
    before = file.read_bytes()
    try:
        save_file(load_file(file) | {"left.over": torch.ones(1)}, file)
        with pytest.warns(MinisbertWarning, match=naming("2_Dense/model.safetensors", "left.over")):
            minisbert.load(healthy, device="cpu")
    finally:
        file.write_bytes(before)


def test_the_weights_of_modules_are_widened_from_half_precision(healthy: Path) -> None:
    file = healthy / "2_Dense/model.safetensors"
    before = file.read_bytes()
    try:
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}
        save_file(halves, file)
        linear = minisbert.load(healthy, device="cpu").modules[0].get_submodule("linear")
        assert isinstance(linear, nn.Linear)
        assert linear.weight.dtype == torch.float32
        assert linear.weight.equal(halves["linear.weight"].float())
    finally:
        file.write_bytes(before)


def test_a_trace_goes_through_the_default_prompt_the_modules_and_the_truncation_as_encode_does(tmp_path: Path) -> None:
    after = [("Dense", dense(HIDDEN, 12)), ("LayerNorm", {"dimension": 12}), ("Normalize", None)]
    usage = {"prompts": {"mine": "the cat "}, "default_prompt_name": "mine", "truncate_dim": 7}
    laid(tmp_path / "one", after=after, usage=usage)
    encoder = minisbert.load(tmp_path / "one", dtype=torch.float64, device="cpu")
    trace = minisbert.trace("sat on the mat", "is red", model=encoder)
    assert trace.a.tokens[1:3] == ["the", "cat"]
    assert trace.a.embedding.equal(encoder.encode("sat on the mat"))
    torch.testing.assert_close(trace.a.layer_vectors[-1], trace.a.embedding, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=naming("pair_matrix", "Tanh")):
        _ = trace.pair_matrix


def test_the_page_of_a_trace_shows_each_module_with_its_formula_and_its_code(tmp_path: Path) -> None:
    after = [("Dense", dense(HIDDEN, 12)), ("LayerNorm", {"dimension": 12}), ("Normalize", None)]
    laid(tmp_path / "one", after=after)
    trace = minisbert.trace("the cat", model=minisbert.load(tmp_path / "one", device="cpu"))
    trace.save_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    formulas = [re.sub("<[^>]+>", "", math) for math in re.findall("<math.*?</math>", page, re.DOTALL)]
    shown = [formula for formula in formulas if formula.startswith("s←")]
    assert shown == ["s←Tanh(Ws+b)", "s←LayerNorm(s)", "s←s‖s‖"]
    for name in "Dense", "LayerNorm", "Normalize":
        assert f"{name}.forward" in page


def test_a_trace_of_a_truncated_model_still_splits_the_cosine_exactly(tmp_path: Path) -> None:
    laid(tmp_path / "one", after=[("Normalize", None)], usage={"truncate_dim": 7})
    encoder = minisbert.load(tmp_path / "one", dtype=torch.float64, device="cpu")
    trace = minisbert.trace("the cat sat on the mat", "the dog is red", model=encoder)
    assert trace.pair_matrix.sum().item() == pytest.approx(trace.cosine, abs=1e-12)


def test_a_trace_of_a_prompt_that_is_not_pooled_gives_its_tokens_no_share(tmp_path: Path) -> None:
    laid(tmp_path / "one", usage={"prompts": {"mine": "the cat "}, "default_prompt_name": "mine"})
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True, "include_prompt": False}
    write_json(tmp_path / "one/1_Pooling/config.json", pooling)
    encoder = minisbert.load(tmp_path / "one", dtype=torch.float64, device="cpu")
    trace = minisbert.trace("sat", model=encoder).a
    assert trace.embedding.equal(encoder.encode("sat"))
    assert trace.tokens == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    torch.testing.assert_close(trace.pooling_weights, torch.tensor([0, 0, 0, 0.5, 0.5], dtype=torch.float64))


def test_a_wrong_prompt_is_named(healthy: Path) -> None:
    encoder = minisbert.load(healthy, device="cpu")
    with pytest.raises(ValueError, match=naming("prompt_name", "'passage'", "'query', 'document'")):
        encoder.encode("a", prompt_name="passage")
    for name in "prompt", "prompt_name":
        with pytest.raises(TypeError, match=naming(name, "int", "str")):
            encoder.encode("a", **{name: 1})
    with pytest.raises(ValueError, match=naming("prompt", r"'\ud800'", 0)):
        encoder.encode("a", prompt="\ud800")
    encoder.default_prompt_name = "passage"
    for use in encoder.encode, partial(minisbert.trace, model=encoder):
        with pytest.raises(ValueError, match=naming("default_prompt_name", "'passage'", "'query', 'document'")):
            use("a")
    assert encoder.encode("a", prompt_name="query").shape == (12,)


@pytest.mark.parametrize(
    ("value", "error", "parts"),
    [
        (0, ValueError, (0, 1)),
        (13, ValueError, (13, 1, 12)),
        (True, TypeError, ("bool", "int")),
        ("8", TypeError, ("str", "int")),
    ],
)
def test_a_wrong_truncate_dim_is_named(healthy: Path, value: object, error: type[Exception], parts: tuple[object, ...]) -> None:
    message = naming("truncate_dim", *parts)
    with pytest.raises(error, match=message):
        minisbert.load(healthy, device="cpu", truncate_dim=value)  # type: ignore[arg-type]
    encoder = minisbert.load(healthy, device="cpu")
    with pytest.raises(error, match=message):
        encoder.encode("a", truncate_dim=value)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        encoder.truncate_dim = value  # type: ignore[assignment]
    assert encoder.truncate_dim is None
