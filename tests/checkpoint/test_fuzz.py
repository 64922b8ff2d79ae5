"""Checkpoints with something changed at random: each gives a CheckpointError, or a model whose vectors are finite; nothing else.

`MINISBERT_FUZZ=5000 pytest tests/checkpoint/test_fuzz.py -n0` looks at so many for each kind of change, at other ones every time.
"""

from __future__ import annotations

import base64
import copy
import faulthandler
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, save_tiny, write_json
from containers import CONTAINERS, relay, weights_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoTokenizer

import minisbert
from minisbert import CheckpointError

EXAMPLES = int(os.environ.get("MINISBERT_FUZZ", "0"))
TEXTS = ["a man is eating food .", "the Cats [MASK] café 猫 ﬁ ① ﷺ <pad> 🙂", ""]

# Without derandomize a run would look at others each time, which is for long sessions and not for CI.
fuzz = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with a head, and every json file that there can be."""
    folder = tmp_path_factory.mktemp("original")
    save_tiny(folder, hidden_size=8, num_attention_heads=2, intermediate_size=12, num_hidden_layers=1)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    rows = json.loads((folder / "modules.json").read_text())
    for number, kind in (2, "Dense"), (3, "Normalize"):
        path = f"{number}_{kind}"
        rows.append({"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"})
    write_json(folder / "modules.json", rows)
    dense = {"in_features": 8, "out_features": 6, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
    write_json(folder / "2_Dense/config.json", dense)
    save_file({"linear.weight": torch.randn(6, 8), "linear.bias": torch.randn(6)}, folder / "2_Dense/model.safetensors")
    usage = {"prompts": {"query": "a "}, "default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 4}
    write_json(folder / "config_sentence_transformers.json", usage)
    write_json(folder / "special_tokens_map.json", {"cls_token": "[CLS]", "additional_special_tokens": []})
    write_json(folder / "added_tokens.json", {})
    look_at(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def look_at(folder: Path) -> None:
    """Loads and uses a model; the only error that is allowed is the one that says what is wrong with the files."""
    faulthandler.dump_traceback_later(60, exit=True)  # a hang ends the run, and says where
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                encoder = minisbert.load(folder)
                vectors = encoder.encode(TEXTS)
            except CheckpointError as error:
                assert str(error)  # noqa: PT017
                return
        assert vectors.shape == (len(TEXTS), encoder.dimension)
        assert vectors.isfinite().all()
    finally:
        faulthandler.cancel_dump_traceback_later()


def changed(folder: Path, original: Path, file: str, content: bytes) -> None:
    """Looks at a checkpoint with this content in one file, and puts the file back."""
    (folder / file).write_bytes(content)
    try:
        look_at(folder)
    finally:
        shutil.copy(original / file, folder / file)


# --- json ---------------------------------------------------------------------------------------------------------------------

JSON_FILES = [
    *(
        "modules.json",
        "config.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ),
    *("2_Dense/config.json", "config_sentence_transformers.json", "special_tokens_map.json", "added_tokens.json"),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([2**31, 2**40, 2**63, 2**64, 10**30, -(2**63)]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["", "bert", "../x", "/etc/passwd", "mean", "cls", "gelu", "[CLS]", "[UNK]", "a", "BertTokenizer", "\ud800", "\0"]
    ),
    st.sampled_from([[], {}, [[]], {"": None}, [1], ["a"], {"content": "a"}, {"content": "<x>", "special": True}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a json value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


@st.composite
def changed_json(draw: st.DrawFn, value: Any) -> bytes:
    """A json value with one to three of its parts replaced, deleted, renamed, doubled or swapped."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        where = [place for place in places(value) if place]
        if not where:
            return json.dumps(copy.deepcopy(draw(VALUES))).encode("utf-8", "surrogatepass")
        *path, key = draw(st.sampled_from(where))
        holder = value
        for step in path:
            holder = holder[step]
        kind = draw(st.sampled_from(["replace", "replace", "delete", "rename", "double", "add", "swap"]))
        if kind == "delete":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.text(max_size=5))] = holder.pop(key)
        elif kind in ("double", "add") and isinstance(holder, list):
            holder.insert(
                draw(st.integers(0, len(holder))), copy.deepcopy(holder[key]) if kind == "double" else copy.deepcopy(draw(VALUES))
            )
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(EXTRA))] = copy.deepcopy(draw(VALUES))
        elif kind == "swap":
            *other, last = draw(st.sampled_from(where))
            with_other = value
            for step in other:
                with_other = with_other[step]
            holder[key] = copy.deepcopy(with_other[last])
        else:
            holder[key] = copy.deepcopy(draw(VALUES))
    return json.dumps(value).encode("utf-8", "surrogatepass")


EXTRA = [
    *(
        "auto_map",
        "is_decoder",
        "added_tokens_decoder",
        "extra_special_tokens",
        "split_special_tokens",
        "tokenizer_class",
        "pruned_heads",
    ),
    *(
        "image_token",
        "bos_token",
        "truncation_side",
        "max_len",
        "embedding_dimension",
        "pooling_mode",
        "use_residual",
        "truncation",
    ),
]


def change_json(folder: Path, whole: Path, file: str) -> None:
    """Loads a folder with one of its json files changed, in many ways."""

    @fuzz
    @given(changed_json(json.loads((whole / file).read_text())))
    def run(content: bytes) -> None:
        changed(folder, whole, file, content)

    run()


@pytest.mark.parametrize("file", JSON_FILES)
def test_a_json_file_with_something_changed(original: Path, folder: Path, file: str) -> None:
    change_json(folder, original, file)


def flipped(content: bytes, flips: list[tuple[float, int]]) -> bytes:
    """Some bits of a file flipped, at places given as a part of its length."""
    changed = bytearray(content)
    for place, bit in flips:
        if changed:
            changed[int(place * (len(changed) - 1))] ^= 1 << bit
    return bytes(changed)


FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=4)


@fuzz
@given(file=st.sampled_from(JSON_FILES), flips=FLIPS, keep=st.floats(0.5, 1))
def test_a_text_file_with_bits_flipped_and_its_end_cut_off(
    original: Path, folder: Path, file: str, flips: Any, keep: float
) -> None:
    content = flipped((original / file).read_bytes(), flips)
    changed(folder, original, file, content[: int(len(content) * keep) if keep < 0.9 else len(content)])


# --- the other families -------------------------------------------------------------------------------------------------------

few = settings(fuzz, max_examples=EXAMPLES or 15)


@pytest.fixture(scope="module", params=[family for family in FAMILIES if family != "bert"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of one of the other families, which has every file that there can be."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(folder, model_type=request.param)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    look_at(folder)
    return folder


@pytest.fixture
def family_folder(family: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(family, tmp_path / "model"))


@few
@given(data=st.data(), file=st.sampled_from(["config.json", "tokenizer_config.json", "tokenizer.json"]))
def test_a_json_file_of_another_family_with_something_changed(family: Path, family_folder: Path, data: Any, file: str) -> None:
    values = json.loads((family / file).read_text())
    if file == "tokenizer.json":  # what lies deep in the vocabulary is all alike
        vocabulary = values["model"]["vocab"]
        values["model"]["vocab"] = vocabulary[:60] if isinstance(vocabulary, list) else dict([*vocabulary.items()][:300])
    changed(family_folder, family, file, data.draw(changed_json(values)))


@few
@given(flips=FLIPS, header_only=st.booleans())
def test_the_weights_of_another_family_with_bits_flipped(family: Path, family_folder: Path, flips: Any, header_only: bool) -> None:
    content = (family / "model.safetensors").read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0] if header_only else len(content)
    changed(family_folder, family, "model.safetensors", flipped(content[:end], flips) + content[end:])


@fuzz
@given(flips=FLIPS, cut=st.floats(0.5, 1), small=st.booleans())
def test_a_map_of_characters_with_bits_flipped(xlm_roberta: Path, tmp_path: Path, flips: Any, cut: float, small: bool) -> None:
    """It is a trie that the library walks without looking: a wrong step shows at a text, and not before."""
    folder = tmp_path / "model"
    if not folder.exists():
        shutil.copytree(xlm_roberta, folder)
    values = json.loads((xlm_roberta / "tokenizer.json").read_text())
    charsmap = base64.b64decode(values["normalizer"]["precompiled_charsmap"])
    head = 4096 if small else len(charsmap)  # where the first bytes of all characters are
    charsmap = flipped(charsmap[:head], flips) + charsmap[head:]
    charsmap = charsmap[: int(len(charsmap) * cut) if cut < 0.6 else len(charsmap)]
    values["normalizer"]["precompiled_charsmap"] = base64.b64encode(charsmap).decode()
    changed(folder, xlm_roberta, "tokenizer.json", json.dumps(values).encode())


@pytest.fixture(scope="module")
def xlm_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xlm-roberta")
    save_tiny(folder, model_type="xlm-roberta")
    return folder


# --- a vocabulary and no tokenizer.json: there the other files decide ---------------------------------------------------------

VOCAB_FILES = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "sentence_bert_config.json"]
LINES = ["", "[CLS]", "[UNK]", "##", "##a", " a", "a\tb", "\ufeff[PAD]", "\x00", "\u2028", "\x85", "\r", "猫", "a" * 300]


@pytest.fixture(scope="module")
def with_vocab(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint without its tokenizer.json."""
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("vocab") / "model"))
    (folder / "tokenizer.json").unlink()
    look_at(folder)
    return folder


@pytest.fixture
def vocab_folder(with_vocab: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_vocab, tmp_path / "model"))


@pytest.mark.parametrize("file", VOCAB_FILES)
def test_a_json_file_beside_a_vocabulary_with_something_changed(with_vocab: Path, vocab_folder: Path, file: str) -> None:
    change_json(vocab_folder, with_vocab, file)


@fuzz
@given(flips=FLIPS, keep=st.floats(0.5, 1))
def test_a_vocabulary_with_bits_flipped_and_its_end_cut_off(with_vocab: Path, vocab_folder: Path, flips: Any, keep: float) -> None:
    content = flipped((with_vocab / "vocab.txt").read_bytes(), flips)
    changed(vocab_folder, with_vocab, "vocab.txt", content[: int(len(content) * keep) if keep < 0.9 else len(content)])


@fuzz
@given(
    changes=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["put", "insert", "double", "delete"]), st.sampled_from(LINES)))
)
def test_a_vocabulary_with_lines_changed(with_vocab: Path, vocab_folder: Path, changes: list[tuple[int, str, str]]) -> None:
    lines = (with_vocab / "vocab.txt").read_text("utf-8").split("\n")
    for place, kind, line in changes:
        at = place % (len(lines) or 1)
        lines[at : at + (kind in ("put", "delete"))] = {"delete": [], "double": lines[at : at + 1]}.get(kind, [line])
    changed(vocab_folder, with_vocab, "vocab.txt", "\n".join(lines).encode("utf-8"))


# --- weights ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "2_Dense/model.safetensors"])
def test_a_safetensors_header_with_something_changed(original: Path, folder: Path, file: str) -> None:
    content = (original / file).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]

    @fuzz
    @given(changed_json(header), st.sampled_from([0, 0, 0, 0, 1, -1, 8, 1 << 40, 1 << 63]))
    def run(text: bytes, more: int) -> None:
        claimed = (len(text) + more) % (1 << 64)
        changed(folder, original, file, struct.pack("<Q", claimed) + text + rest)

    run()


@fuzz
@given(flips=FLIPS, header_only=st.booleans())
def test_a_safetensors_file_with_bits_flipped(original: Path, folder: Path, flips: Any, header_only: bool) -> None:
    content = (original / "model.safetensors").read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0] if header_only else len(content)
    changed(folder, original, "model.safetensors", flipped(content[:end], flips) + content[end:])


@pytest.fixture(scope="module", params=["safetensors", "zip"])
def parts(request: pytest.FixtureRequest, original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The checkpoint with its weights in three files, and the name of their index."""
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("parts") / "model"))
    relay(folder, request.param, parts=3)
    look_at(folder)
    (index,) = folder.glob("*.index.json")
    return folder, index.name


@pytest.fixture
def parts_folder(parts: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts[0], tmp_path / "model"))


def test_an_index_of_parts_with_something_changed(parts: tuple[Path, str], parts_folder: Path) -> None:
    change_json(parts_folder, *parts)


@fuzz
@given(flips=FLIPS, keep=st.floats(0.5, 1))
def test_an_index_of_parts_with_bits_flipped_and_its_end_cut_off(
    parts: tuple[Path, str], parts_folder: Path, flips: Any, keep: float
) -> None:
    whole, index = parts
    content = flipped((whole / index).read_bytes(), flips)
    changed(parts_folder, whole, index, content[: int(len(content) * keep) if keep < 0.9 else len(content)])


@fuzz
@given(part=st.integers(0, 2), other=st.integers(0, 2), flips=FLIPS, end=st.sampled_from([0, 1, 8, 200, None]))
def test_a_shard_that_is_another_or_damaged(
    parts: tuple[Path, str], parts_folder: Path, part: int, other: int, flips: Any, end: int | None
) -> None:
    whole, index = parts
    files = sorted(path.name for path in whole.glob(index.split(".")[0] + "-0*"))
    content = (whole / files[other]).read_bytes()
    changed(parts_folder, whole, files[part], flipped(content, flips if part == other else [])[:end])


@pytest.fixture(scope="module", params=CONTAINERS)
def pickled(request: pytest.FixtureRequest, original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp(request.param) / "model"))
    CONTAINERS[request.param](weights_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@fuzz
@given(flips=FLIPS, keep=st.floats(0, 1), part=st.sampled_from([0.05, 0.2, 1.0]))
def test_a_bin_file_with_bits_flipped_and_its_end_cut_off(
    pickled: Path, tmp_path: Path, flips: Any, keep: float, part: float
) -> None:
    target = tmp_path / "model"
    if not target.exists():
        shutil.copytree(pickled, target)
    content = (pickled / "pytorch_model.bin").read_bytes()
    end = int(len(content) * part)  # most of the file are numbers, and its program stands at the beginning
    content = flipped(content[:end], flips) + content[end:]
    changed(target, pickled, "pytorch_model.bin", content[: int(len(content) * keep) if keep < 0.3 else len(content)])


BUILDERS = ("collections.OrderedDict", "torch.Size", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2", "os.system")
STATE = pickle.dumps({"x": 1}, protocol=2)[2:-1]
PIECES = [
    *(b"]", b"}", b")", b"(", b"t", b"\x85", b"\x86", b"N", b"\x88", b"K\1", b"X\1\0\0\0x", b"q\0", b"h\0", b"\x94"),
    *(b"s", b"u", b"a", b"e", b"R", b"b", b"\x81", b"Q", b"\x93", STATE),
    *(b"c" + b"\n".join(name.encode().rsplit(b".", 1)) + b"\n" for name in BUILDERS),
]


@fuzz
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), noise=st.binary(max_size=8))
def test_any_program_in_a_bin_file(folder: Path, pieces: list[bytes], noise: bytes) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\2" + b"".join(pieces) + noise + b".")
    look_at(folder)
