"""Weights: the table of names both ways, every form of file, and every way in which a tensor can be wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import finder, save_tiny, write_json
from conftest import PAIR
from containers import CONTAINERS, relay, replace_weights, weights_of
from messages import naming
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import BertConfig as ReferenceConfig
from transformers import BertForMaskedLM, BertModel

import minisbert
from minisbert import CheckpointError, MinisbertWarning
from minisbert.bert import Bert, BertConfig
from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.families import HUB_NAMES, IGNORED, current_name, names, to_hub_names
from minisbert.checkpoint.fields import MissingFileError
from minisbert.checkpoint.weights import (
    FLOATS,
    LARGEST_VALUE,
    MOST_SHARDS,
    _wrapper_of,
    checksum,
    load_weights,
    non_finite,
    open_file,
    open_weights,
)

WORDS = "embeddings.word_embeddings.weight"
QUERY, KEY, VALUE = (f"encoder.layer.1.attention.self.{part}.weight" for part in ("query", "key", "value"))


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def expected(tiny_folder: Path) -> Tensor:
    return minisbert.load(tiny_folder).encode(PAIR)


def vectors(folder: Path) -> Tensor:
    return minisbert.load(folder).encode(PAIR)


def refused(folder: Path, *parts: object) -> str:
    with pytest.raises(CheckpointError, match=naming(*parts)) as caught:
        minisbert.load(folder)
    return str(caught.value)


# --- names --------------------------------------------------------------------------------------------------------------------


def test_the_table_gives_exactly_the_names_of_transformers(tiny_folder: Path) -> None:
    bert = minisbert.load(tiny_folder).bert
    reference = BertModel.from_pretrained(tiny_folder, add_pooling_layer=False)
    theirs = {name for name, _ in reference.named_parameters()}
    ours = [name for row in names(bert.config).values() for name in row]
    assert len(ours) == len(set(ours))
    assert set(ours) == theirs
    assert set(names(bert.config)) == {name for name, _ in bert.named_parameters()}


def test_weights_go_to_the_hub_s_names_and_transformers_loads_them(tiny_folder: Path) -> None:
    state = to_hub_names(minisbert.load(tiny_folder).bert)
    stored = weights_of(tiny_folder)
    assert state.keys() == stored.keys()
    for name in stored:
        assert torch.equal(state[name], stored[name]), name
    reference = BertModel(ReferenceConfig.from_pretrained(tiny_folder), add_pooling_layer=False)
    reference.load_state_dict(state)  # strict: nothing missing, nothing left over


def test_query_key_and_value_are_stacked_in_this_order(tiny_folder: Path) -> None:
    stored = weights_of(tiny_folder)
    fused = minisbert.load(tiny_folder).bert.state_dict()["layers.1.attention.qkv.weight"]
    assert torch.equal(fused, torch.cat([stored[QUERY], stored[KEY], stored[VALUE]]))


def test_every_parameter_is_filled_and_none_is_left_on_the_meta_device(tiny_folder: Path) -> None:
    bert = minisbert.load(tiny_folder).bert
    assert {parameter.device.type for parameter in bert.parameters()} == {"cpu"}
    with torch.device("meta"):
        assert {name for name, _ in Bert(bert.config).named_parameters()} == set(names(bert.config))


def test_the_table_has_no_row_twice() -> None:
    ours = [row for _, row in HUB_NAMES]
    assert len(ours) == len(set(ours))


@pytest.mark.parametrize(
    ("old", "today"),
    [
        (f"bert.{WORDS}", WORDS),
        ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
        ("encoder.layer.0.output.LayerNorm.beta", "encoder.layer.0.output.LayerNorm.bias"),
        ("bert.encoder.layer.11.output.dense.bias", "encoder.layer.11.output.dense.bias"),
        ("roberta.embeddings.LayerNorm.weight", "roberta.embeddings.LayerNorm.weight"),
        ("gamma", "gamma"),
        ("LayerNorm.gammas", "LayerNorm.gammas"),
        ("bert.bert.x", "bert.x"),
    ],
)
def test_a_name_of_any_era_has_one_of_today(old: str, today: str) -> None:
    assert current_name(old) == today


def of_tensorflow(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("rename", [of_tensorflow, lambda name: f"bert.{name}", lambda name: f"bert.{of_tensorflow(name)}"])
def test_old_names_give_the_same_vectors(folder: Path, expected: Tensor, rename: Callable[[str], str]) -> None:
    renamed = {rename(name): tensor for name, tensor in weights_of(folder).items()}
    assert renamed.keys() != weights_of(folder).keys()
    replace_weights(folder, renamed)
    assert torch.equal(vectors(folder), expected)


WRAPPED: dict[str, Callable[[BertModel], torch.nn.Module]] = {
    "module.": torch.nn.DataParallel,
    "_orig_mod.": torch.compile,
    "_orig_mod.module.": lambda model: torch.compile(torch.nn.DataParallel(model)),
    "model.": lambda model: torch.nn.ModuleDict({"model": model, "loss": torch.nn.Linear(2, 2)}),
    "0.auto_model.": lambda model: torch.nn.Sequential(torch.nn.ModuleDict({"auto_model": model})),  # sentence-transformers until 5
}


@pytest.mark.parametrize("prefix", WRAPPED)
def test_weights_of_a_wrapped_model_are_taken_with_a_warning(folder: Path, expected: Tensor, prefix: str) -> None:
    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    state = {name: tensor.clone() for name, tensor in WRAPPED[prefix](model).state_dict().items()}
    assert f"{prefix}{WORDS}" in state
    replace_weights(folder, state)
    with pytest.warns(MinisbertWarning) as caught:
        encoder = minisbert.load(folder)
    assert repr(prefix) in str(caught[0].message)
    assert ["loss.weight" in str(warning.message) for warning in caught[1:]] == [True] * (prefix == "model.")
    assert torch.equal(encoder.encode(PAIR), expected)


def test_the_state_of_a_sentence_transformer_is_taken(folder: Path, expected: Tensor) -> None:
    replace_weights(folder, {name: tensor.clone() for name, tensor in SentenceTransformer(str(folder)).state_dict().items()})
    with pytest.warns(MinisbertWarning, match=r"'0\.(auto_)?model\.'"):
        assert torch.equal(minisbert.load(folder).encode(PAIR), expected)


def test_a_wrapped_model_with_a_head_is_taken_and_what_it_lacks_is_named_as_it_would_be_there(
    folder: Path, expected: Tensor
) -> None:
    state = {f"module.bert.{name}": tensor for name, tensor in weights_of(folder).items()}
    replace_weights(folder, state | {"module.cls.predictions.bias": torch.zeros(2)})
    with pytest.warns(MinisbertWarning, match=r"'module\.'") as caught:
        assert torch.equal(minisbert.load(folder).encode(PAIR), expected)
    assert len(caught) == 1
    del state[f"module.bert.{KEY}"]
    replace_weights(folder, state)
    message = refused(folder, f"module.{KEY}", "layers.1.attention.qkv.weight", "missing")
    assert len(message.splitlines()) == 2


def test_a_prefix_of_no_wrapper_and_two_models_in_one_file_are_named_and_not_taken(folder: Path) -> None:
    state = weights_of(folder)
    other = {f"text.tower.{name}": tensor for name, tensor in state.items()}
    replace_weights(folder, other)
    refused(folder, 37, '"text.tower."', "state_dict()")
    both = {f"{side}.{name}": tensor.clone() for side in ("model", "module") for name, tensor in state.items()}
    replace_weights(folder, both)
    refused(folder, '"model." (str) and with "module." (str)')
    del other[f"text.tower.{KEY}"]
    replace_weights(folder, other)
    assert '"text.tower."' not in refused(folder, 37, KEY, "missing")


@pytest.mark.parametrize(
    ("stored", "wrapper", "named"),
    [
        (["roberta.e.w"], "", ""),
        (["module.roberta.e.w"], "module.", ""),
        (["tower.roberta.e.w", "other"], "", '"tower."'),
        (["tower.x"], "", ""),
    ],
)
def test_a_wrapper_stands_before_the_prefix_of_any_family(stored: list[str], wrapper: str, named: str) -> None:
    found, hint = _wrapper_of(stored, ["e.w"], "roberta.")
    assert (found, bool(hint)) == (wrapper, bool(named))
    assert named in hint


def test_of_many_prefixes_eight_are_named() -> None:
    _, hint = _wrapper_of([f"tower{n}.e.w" for n in range(9)], ["e.w"], "roberta.")
    assert [f"tower{n}" in hint for n in range(9)] == [True] * 8 + [False]


def test_what_transformers_saves_with_a_masked_word_head_loads_without_a_word(folder: Path, tmp_path: Path) -> None:
    config = ReferenceConfig.from_pretrained(folder)
    torch.manual_seed(0)
    with_head = BertForMaskedLM(config)
    with_head.bert.load_state_dict(weights_of(folder))
    before = vectors(folder)
    with_head.save_pretrained(folder)
    stored = weights_of(folder)
    assert f"bert.{WORDS}" in stored
    assert any(name.startswith("cls.") for name in stored)
    assert torch.equal(vectors(folder), before)


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "pooler.dense.weight",
        "bert.pooler.dense.bias",
        "cls.predictions.bias",
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.seq_relationship.weight",
        "classifier.weight",
        "qa_outputs.bias",
    ],
)
def test_an_ignored_tensor_gives_no_warning(folder: Path, expected: Tensor, name: str) -> None:
    value = torch.arange(40)[None] if name.endswith("_ids") else torch.full((3,), torch.nan)  # not even looked at
    replace_weights(folder, weights_of(folder) | {name: value})
    assert torch.equal(vectors(folder), expected)


def test_every_row_of_ignored_says_why() -> None:
    for pattern, why in IGNORED:
        assert pattern
        assert len(why) > 10


@pytest.mark.parametrize(
    "name", ["embeddings.extra.weight", "encoder.layer.2.output.dense.bias", "pooler", "cls", "x.pooler.dense.bias"]
)
def test_any_other_tensor_that_is_not_used_is_named_in_a_warning(folder: Path, expected: Tensor, name: str) -> None:
    replace_weights(folder, weights_of(folder) | {name: torch.zeros(3)})
    with pytest.warns(MinisbertWarning, match=naming("not used", name)):
        encoder = minisbert.load(folder)
    assert torch.equal(encoder.encode(PAIR), expected)


# --- tensors that are not what they should be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "file", "integers"), [("safetensors", "model.safetensors", "I32"), ("zip", "pytorch_model.bin", "int32")]
)
def test_everything_that_is_wrong_is_said_in_one_error(folder: Path, form: str, file: str, integers: str) -> None:
    state = weights_of(folder)
    del state[KEY], state["encoder.layer.0.output.LayerNorm.bias"]
    state[WORDS] = state[WORDS][:-1]
    state["embeddings.LayerNorm.weight"] = state["embeddings.LayerNorm.weight"][None]
    state[QUERY] = state[QUERY].to(torch.int32)
    state["bert.embeddings.LayerNorm.bias"] = state["embeddings.LayerNorm.bias"].clone()
    replace_weights(folder, state)
    relay(folder, form)
    message = refused(
        folder,
        file,
        6,
        "config.json",
    )
    lines = message.splitlines()[1:]
    for parts in (
        (KEY, "layers.1.attention.qkv.weight", "missing", [32, 32]),
        ("encoder.layer.0.output.LayerNorm.bias", "layers.0.feed_forward_norm.bias", "missing", [32]),
        (WORDS, "embeddings.word.weight", [32, 32], [33, 32]),
        ("embeddings.LayerNorm.weight", "embeddings.norm.weight", [1, 32], [32]),
        (QUERY, "layers.1.attention.qkv.weight", integers, "floating-point"),
        ("embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.bias"),
    ):
        assert any(map(naming(*parts).search, lines)), parts
    assert len(lines) == 6


def test_a_file_of_another_model_names_at_most_forty_tensors(folder: Path) -> None:
    replace_weights(folder, {"model.layers.0.weight": torch.zeros(2)})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"num_hidden_layers": 12})
    message = refused(folder, "missing", "157 more")
    assert len(message.splitlines()) == 42


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 2 * LARGEST_VALUE, -3e38])
@pytest.mark.parametrize("name", [WORDS, VALUE, "embeddings.LayerNorm.bias"])
def test_a_value_that_no_model_has_is_found(folder: Path, name: str, value: float) -> None:
    state = weights_of(folder)
    state[name].view(-1)[17] = value
    replace_weights(folder, state)
    refused(folder, name, "found", "finite", "1,000,000")


def test_values_that_become_infinite_in_half_precision_are_found(folder: Path) -> None:
    state = weights_of(folder)
    state[WORDS][3, 3] = 70_000.0
    replace_weights(folder, state)
    minisbert.load(folder)
    with pytest.raises(CheckpointError, match=naming(WORDS, "NaN", "1,000,000")):
        minisbert.load(folder, dtype=torch.float16)


# --- precision ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", *CONTAINERS])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly(folder: Path, kind: torch.dtype, form: str) -> None:
    stored = {name: tensor.to(kind) for name, tensor in weights_of(folder).items()}
    relay(folder, form, dtype=kind)
    bert = minisbert.load(folder).bert
    assert bert.embeddings.word.weight.dtype == torch.float32
    for name, tensor in to_hub_names(bert).items():
        assert torch.equal(tensor, stored[name].float()), name


@pytest.mark.parametrize("form", ["safetensors", *CONTAINERS])
def test_double_precision_is_rounded_with_a_warning_or_kept_when_asked_for(folder: Path, form: str) -> None:
    stored = {name: tensor.double() + 1e-9 for name, tensor in weights_of(folder).items()}
    replace_weights(folder, stored)
    relay(folder, form)
    with pytest.warns(MinisbertWarning, match=naming("float64", "float32", "dtype=torch.float64")):
        rounded = to_hub_names(minisbert.load(folder).bert)
    kept = to_hub_names(minisbert.load(folder, dtype=torch.float64).bert)
    for name, value in stored.items():
        assert torch.equal(rounded[name], value.float())
        assert torch.equal(kept[name], value)


@pytest.mark.parametrize("dtype", FLOATS.values())
def test_the_precision_asked_for_is_that_of_every_parameter(tiny_folder: Path, dtype: torch.dtype) -> None:
    bert = minisbert.load(tiny_folder, dtype=dtype).bert
    assert {parameter.dtype for parameter in bert.parameters()} == {dtype}
    assert torch.equal(bert.embeddings.word.weight, weights_of(tiny_folder)[WORDS].to(dtype))


# --- memory -------------------------------------------------------------------------------------------------------------------

PEAK = """
import os, pathlib, sys, minisbert
from minisbert.bert import Bert
from minisbert.bert import BertConfig; from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.weights import load_weights, open_weights
import minisbert.checkpoint.pickle_reader, pickletools, zipfile, torch
with torch.device("meta"):
    bert = Bert(BertConfig(30000, 512, 3, 8, 2048, 64))

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

for folder in map(pathlib.Path, sys.argv[1:]):
    if os.fork():
        os.wait()
        continue
    before = kilobytes("VmRSS")
    load_weights(bert, open_weights(lambda file: p if (p := folder / file).is_file() else None, ""))
    print(kilobytes("VmHWM") - before)
    break
"""
FORMS = [("safetensors", 1), ("safetensors", 3), ("zip", 1), ("stream", 1)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[tuple[str, int], int], dict[str, Tensor]]:
    """How much a process grows that loads 100 MB of weights in each form, of which 61 MB are one tensor; and the weights.

    Each is loaded in a process of its own, forked from one that has imported everything and loaded nothing.
    """
    state = to_hub_names(Bert(BertConfig(30000, 512, 3, 8, 2048, 64)))
    folders = [tmp_path_factory.mktemp("large") for _ in FORMS]
    for folder, (form, parts) in zip(folders, FORMS, strict=True):
        replace_weights(folder, state)
        relay(folder, form, parts)
    done = subprocess.run([sys.executable, "-c", PEAK, *folders], capture_output=True, text=True, check=True)
    return {form: int(line) * 1024 for form, line in zip(FORMS, done.stdout.splitlines(), strict=True)}, state


@pytest.mark.parametrize(("form", "parts"), FORMS)
def test_weights_are_held_in_memory_once(
    large: tuple[dict[tuple[str, int], int], dict[str, Tensor]], form: str, parts: int
) -> None:
    grown, state = large[0][form, parts], large[1]
    weights = sum(tensor.nbytes for tensor in state.values())
    largest = max(tensor.nbytes for tensor in state.values())
    # What is read stands beside the parameters one tensor at a time; a second copy of all would be 38 MB more.
    assert weights < grown < weights + largest + 12e6


# --- forms and shards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("form", ["safetensors", *CONTAINERS])
def test_every_form_gives_the_same_bits(folder: Path, expected: Tensor, form: str, parts: int) -> None:
    relay(folder, form, parts)
    assert torch.equal(vectors(folder), expected)


def test_shards_that_transformers_wrote_are_read(folder: Path, expected: Tensor) -> None:
    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert (folder / "model.safetensors.index.json").is_file()
    assert torch.equal(vectors(folder), expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("safetensors", 1), ("safetensors", 2)),
        (("safetensors", 1), ("zip", 1)),
        (("safetensors", 2), ("zip", 1)),
        (("zip", 1), ("zip", 2)),
    ],
)
def test_of_several_forms_the_one_that_transformers_takes_is_taken(
    folder: Path, tmp_path: Path, first: tuple[str, int], second: tuple[str, int]
) -> None:
    save_tiny(tmp_path / "other", seed=1)
    relay(folder, *first)
    relay(tmp_path / "other", *second)
    for path in tmp_path.glob("other/*model*"):
        shutil.copy(path, folder / path.name) if "modules" not in path.name else None
    reference = BertModel.from_pretrained(folder, add_pooling_layer=False)
    assert torch.equal(minisbert.load(folder).bert.embeddings.word.weight, reference.embeddings.word_embeddings.weight)


@pytest.fixture(params=["safetensors", "zip"])
def index(request: pytest.FixtureRequest, folder: Path) -> Path:
    """The index of a checkpoint whose weights are in two shards."""
    relay(folder, request.param, parts=2)
    (path,) = folder.glob("*.index.json")
    return path


def change_map(index: Path, change: Callable[[dict[str, Any]], None]) -> str:
    values = json.loads(index.read_text())
    change(values["weight_map"])
    write_json(index, values)
    return refused(index.parent, index.name)


def test_an_index_without_a_map_is_refused(index: Path) -> None:
    for value in ({}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"x": 1}}, {"weight_map": {"x": None}}):
        write_json(index, value)
        refused(index.parent, index.name, "'weight_map'", "expected an object")
    index.write_text("[]")
    refused(index.parent, index.name, "[] (list)", "object")


@pytest.mark.parametrize(
    "name", ["../x{}", "/etc/x{}", "sub/x{}", "x.txt", "", ".{}", "a\\b{}", "C:x{}", "\0{}", "é{}", "x" * 300 + "{}"]
)
def test_a_shard_whose_name_is_no_plain_file_name_is_refused(index: Path, name: str) -> None:
    ending = ".safetensors" if "safetensors" in index.name else ".bin"
    message = change_map(index, lambda where: where.update({WORDS: name.format(ending)}))
    assert naming("plain name", ending).search(message)


def test_a_missing_shard_is_named(index: Path) -> None:
    part = json.loads(index.read_text())["weight_map"][WORDS]
    (index.parent / part).unlink()
    refused(index.parent, index.name, 1, part, "no such file")


def test_a_tensor_in_two_shards_is_refused(index: Path) -> None:
    parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if parts[0].endswith("bin"):
        states = [torch.load(index.parent / part, weights_only=True) for part in parts]
        torch.save(states[0] | states[1], index.parent / parts[0])
    else:
        from safetensors.torch import load_file

        states = [load_file(index.parent / part) for part in parts]
        save_file(states[0] | states[1], index.parent / parts[0])
    refused(index.parent, index.name, f"in {parts[0]}", f"for {parts[1]}")


def test_a_tensor_that_is_listed_and_not_there_or_there_and_not_listed_is_named(index: Path) -> None:
    part = json.loads(index.read_text())["weight_map"][WORDS]
    assert naming('"extra"', f"listed for {part}", "not in").search(change_map(index, lambda where: where.update(extra=part)))
    assert naming(f'"{WORDS}"', f"in {part}", "not listed").search(change_map(index, lambda where: where.pop(WORDS)))


def test_too_many_shards_are_refused_before_any_is_opened(index: Path) -> None:
    ending = ".safetensors" if "safetensors" in index.name else ".bin"
    message = change_map(index, lambda where: where.update({f"t{n}": f"x{n}{ending}" for n in range(2000)}))
    assert naming("2,002", "1,024").search(message)


def test_without_any_weights_the_forms_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "pytorch_model.bin", ".index.json")


# --- what mutation testing found untested -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([LARGEST_VALUE, -LARGEST_VALUE], ()),
        ([LARGEST_VALUE, LARGEST_VALUE], ()),
        ([-LARGEST_VALUE, -LARGEST_VALUE], ()),
        ([1.0, 1.0], ()),  # a layer norm that was never trained
        ([0.0, 2.5e6], (0, "2.5e+06", "1,000,000")),
        ([-2.5e6, 1.0], ("-2.5e+06", 1, "1,000,000")),
        ([0.0, torch.inf], ("NaN or infinite", "1,000,000")),
        ([-torch.inf, 0.0], ("NaN or infinite", "1,000,000")),
        ([torch.nan, 0.0], ("NaN or infinite", "1,000,000")),
    ],
)
def test_the_largest_value_itself_is_taken_and_a_larger_one_is_told(values: list[float], parts: tuple[object, ...]) -> None:
    found = non_finite(torch.tensor(values))
    assert bool(found) == bool(parts)
    assert naming(*parts).search(found)


def test_values_that_no_model_has_are_told_with_the_names_of_all_fused_tensors(folder: Path) -> None:
    state = weights_of(folder)
    state[KEY][0, 0] = torch.nan
    replace_weights(folder, state)
    message = refused(folder, QUERY, KEY, VALUE, "layers.1.attention.qkv.weight", "NaN", "1,000,000")
    assert message.splitlines()[0].endswith("both.")


@pytest.mark.parametrize(("number", "ending"), [(1, ""), (20, ""), (21, " and 1 more"), (23, " and 3 more")])
def test_of_many_tensors_that_are_not_used_twenty_are_named(folder: Path, number: int, ending: str) -> None:
    replace_weights(folder, weights_of(folder) | {f"x{n:02}": torch.zeros(1) for n in range(number)})
    with pytest.warns(MinisbertWarning) as caught:
        minisbert.load(folder)
    (said,) = (str(warning.message) for warning in caught)
    assert said.endswith(f": {', '.join(f'x{n:02}' for n in range(min(number, 20)))}{ending}")


@pytest.mark.parametrize(("missing", "more"), [(40, []), (41, ["  … and 1 more"])])
def test_of_many_tensors_that_are_missing_forty_are_named(tmp_path: Path, missing: int, more: list[str]) -> None:
    save_tiny(tmp_path, num_hidden_layers=3)
    state = weights_of(tmp_path)
    replace_weights(tmp_path, {name: state[name] for name in sorted(state)[missing:]})
    lines = refused(tmp_path).splitlines()
    assert naming("model.safetensors", missing).search(lines[0])
    assert lines[41:] == more


def test_without_a_single_tensor_the_weights_as_such_are_named() -> None:
    with torch.device("meta"):
        bert = Bert(BertConfig(8, 4, 1, 1, 4, 8))
    with pytest.raises(CheckpointError, match=naming("the weights:", 21, "config.json")):
        load_weights(bert, [])


def test_only_weights_that_were_rounded_are_said_to_be(folder: Path) -> None:
    said = "the checkpoint's weights are float64 and were rounded to float32; ask for dtype=torch.float64 to keep them"
    for stored, asked, load_warnings in (
        (torch.float64, torch.float32, [said]),
        (torch.float64, torch.float64, []),
        (torch.float32, torch.float32, []),
        (torch.float32, torch.float64, []),
    ):
        replace_weights(folder, {name: tensor.to(stored) for name, tensor in weights_of(folder).items()})
        with torch.device("meta"):
            bert = Bert(read_checkpoint(finder(folder)).bert)
        assert load_weights(bert, open_file(folder / "model.safetensors", "model.safetensors"), asked) == load_warnings


@pytest.mark.parametrize("size", [7, 100])
def test_a_broken_safetensors_file_is_told_the_reason_of_the_library(folder: Path, size: int) -> None:
    (folder / "model.safetensors").write_bytes(bytes(size))
    (reason,) = re.findall(r"\((.+)\)", refused(folder, "model.safetensors"))
    assert reason != "None"


def test_a_safetensors_file_that_shrinks_after_it_was_opened_is_noticed_when_it_is_read(folder: Path) -> None:
    first = open_file(folder / "model.safetensors", "model.safetensors")[0]
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"^model\.safetensors: .*\(.+\)"):
        first.read()


def test_the_name_of_a_wrong_shard_is_in_the_message(index: Path) -> None:
    ending = ".safetensors" if "safetensors" in index.name else ".bin"
    assert change_map(index, lambda where: where.update({WORDS: "../up"})) == (
        f"{index.name}: field 'weight_map': found the file name \"../up\" (str), expected the plain name of a {ending} file "
        "beside it. Take an unchanged copy of the checkpoint."
    )


def test_the_largest_allowed_number_of_shards_is_read_and_all_missing_ones_are_named(index: Path) -> None:
    ending = ".safetensors" if "safetensors" in index.name else ".bin"
    lines = change_map(
        index, lambda where: where.update({f"t{n}": f"x{n}{ending}" for n in range(MOST_SHARDS - len(set(where.values())))})
    ).splitlines()
    assert lines[0] == (
        f"{index.name}: 1022 entries disagree with the files. All shards and their index must come from the same checkpoint; take "
        "an unchanged copy of all."
    )
    assert lines[1:3] == [f"  x0{ending}: no such file", f"  x1{ending}: no such file"]


def test_shards_are_read_from_the_folder_of_their_index(index: Path, expected: Tensor) -> None:
    folder = index.parent
    (folder / "0_Transformer").mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name != "modules.json":
            path.rename(folder / "0_Transformer" / path.name)
    rows = json.loads((folder / "modules.json").read_text())
    rows[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", rows)
    assert torch.equal(vectors(folder), expected)


def test_without_weights_the_files_are_named_where_they_are_expected(folder: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        open_weights(finder(folder), "2_Dense")
    assert caught.value.folder == "2_Dense"
    assert str(caught.value) == (
        "2_Dense/model.safetensors and 2_Dense/pytorch_model.bin: neither is in the checkpoint, nor an index of "
        "shards (.index.json), expected one of them. Add the weights, or download the checkpoint again."
    )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_without_tensors_is_told_so(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    save_file({}, folder / name) if name.endswith("safetensors") else torch.save({}, folder / name)
    refused(folder, name, "no tensors", "weights")


def test_a_safetensors_file_under_the_name_of_a_pickle_is_told_so(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "found a safetensors file", "Name it model.safetensors.")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_an_empty_file_is_told_so(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).touch()
    refused(folder, name, "found an empty file", "Download it again.")


def test_the_checksum_is_the_sum_of_the_bits_of_all_weights_and_buffers() -> None:
    """1.0 is 0x3F800000 in float32, 0x3C00 in float16, 0x3FF0000000000000 in float64 (IEEE 754)."""
    model = torch.nn.Linear(3, 1, bias=False)
    model.weight.data = torch.ones(1, 3)
    model.register_buffer("scale", torch.ones(2, dtype=torch.float16))
    other = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    other.weight.data.fill_(1.0)
    assert checksum(model, other) == 3 * 0x3F800000 + 2 * 0x3C00 + 0x3FF0000000000000
