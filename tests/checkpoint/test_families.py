"""Checkpoints of a family with a piece missing, too many or of another size: each is refused by field, found and expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, finder, save_tiny, write_json
from messages import naming
from safetensors.torch import load_file, save_file

import minisbert
from minisbert import CheckpointError
from minisbert.checkpoint.config import read_checkpoint
from minisbert.checkpoint.families import FAMILIES as ROWS
from minisbert.checkpoint.families import OTHER_ARCHITECTURES, names, to_hub_config

Change = Callable[[Path], object]


def field(file: str, **fields: Any) -> Change:
    """Fields of a json file changed; None takes one away."""

    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text()) | fields
        write_json(folder / file, {name: value for name, value in values.items() if value is not None})

    return change


def tensors(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return changed


def model(**fields: Any) -> Change:
    """Fields of the model in tokenizer.json changed."""

    def change(folder: Path) -> None:
        values = json.loads((folder / "tokenizer.json").read_text())
        values["model"] |= fields
        write_json(folder / "tokenizer.json", values)

    return change


def without_unknown(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["vocab"][3] = ["nothing", 0.0]
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "<unk>"]
    write_json(folder / "tokenizer.json", values)


def without_a_byte(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    vocab = {("hash" if token == "#" else token): number for token, number in values["model"]["vocab"].items()}
    values["model"] |= {"vocab": vocab, "merges": [merge for merge in values["model"]["merges"] if "#" not in merge]}
    write_json(folder / "tokenizer.json", values)


BIAS, TYPES = "encoder.relative_attention_bias.weight", "embeddings.token_type_embeddings.weight"
BAD: list[tuple[str, str, Change, tuple[object, ...]]] = [
    (
        "mpnet",
        "a bias of 16 buckets",
        tensors(lambda s: s.update({BIAS: s[BIAS][:16].clone()})),
        (BIAS, [16, 4], [32, 4]),
    ),
    ("mpnet", "no bias", tensors(lambda s: s.pop(BIAS)), (BIAS, "missing", [32, 4])),
    (
        "mpnet",
        "16 buckets",
        field("config.json", relative_attention_num_buckets=16),
        ("config.json", "'relative_attention_num_buckets'", 16, 32, "MPNet"),
    ),
    (
        "mpnet",
        "token types",
        tensors(lambda s: s.update({TYPES: torch.ones(2, 32)})),
        (TYPES, [2, 32], "no such tensor", "MPNet"),
    ),
    (
        "mpnet",
        "token types in config.json",
        field("config.json", type_vocab_size=2),
        ("config.json", "'type_vocab_size'", 2, 0),
    ),
    (
        "bert",
        "a bias",
        tensors(lambda s: s.update({BIAS: torch.ones(32, 4)})),
        (BIAS, [32, 4], "no such tensor", "BERT"),
    ),
    (
        "distilbert",
        "token types",
        tensors(lambda s: s.update({"distilbert." + TYPES: torch.ones(2, 32)})),
        (TYPES, [2, 32], "no such tensor", "DistilBERT"),
    ),
    (
        "distilbert",
        "another eps",
        field("config.json", layer_norm_eps=1e-5),
        ("config.json", "'layer_norm_eps'", 1e-5, 1e-12, "DistilBERT"),
    ),
    (
        "distilbert",
        "two sizes",
        field("config.json", hidden_size=64),
        ("config.json", "'hidden_size'", 64, 32, "DistilBERT", "'dim'"),
    ),
    ("distilbert", "no heads", field("config.json", n_heads=None), ("config.json", "'n_heads'", "no such field", "integer")),
    (
        "distilbert",
        "BERT's weights",
        tensors(lambda s: s.update({n.replace("transformer", "encoder"): s.pop(n) for n in [*s]})),
        ("transformer.layer.0.attention.q_lin.weight", "missing"),
    ),
    (
        "roberta",
        "no pad_token_id",
        field("config.json", pad_token_id=None),
        ("config.json", "'pad_token_id'", "no such field", 0, 400),
    ),
    (
        "roberta",
        "a pad_token_id above all",
        field("config.json", pad_token_id=401),
        ("config.json", "'pad_token_id'", 401, 0, 400),
    ),
    (
        "roberta",
        "relative positions",
        field("config.json", position_embedding_type="relative_key"),
        ("config.json", "'position_embedding_type'", '"relative_key"', '"absolute"'),
    ),
    ("roberta", "no room", field("config.json", pad_token_id=40), ("1 tokens", 3)),
    (
        "roberta",
        "a byte is missing",
        without_a_byte,
        ("tokenizer.json", "1 of the 256 bytes", 401, "'#'"),
    ),
    (
        "roberta",
        "WordPiece",
        field("tokenizer_config.json", tokenizer_class="BertTokenizer"),
        ("tokenizer.json", "BPE", "WordPiece", "BertTokenizer"),
    ),
    ("xlm-roberta", "no <unk>", without_unknown, ("tokenizer.json", '"<unk>"', None, 3)),
    (
        "xlm-roberta",
        "embeddings of more rows",
        field("config.json", vocab_size=171),
        ("word_embeddings.weight", [170, 32], [171, 32]),
    ),
    (
        "xlm-roberta",
        "more tokens than rows",
        field("config.json", vocab_size=100),
        ("tokenizer.json", 169, 99, "vocab_size 100"),
    ),
    ("xlm-roberta", "an unk_id beyond all", model(unk_id=999), ("tokenizer.json", "UnkIdNotInVocabulary")),
    ("camembert", "two token types", field("config.json", type_vocab_size=2), (TYPES, [1, 32], [2, 32])),
    (
        "electra",
        "a smaller embedding",
        field("config.json", embedding_size=16),
        ("config.json", "'embedding_size'", 16, 32),
    ),
    (
        "ernie",
        "tasks",
        field("config.json", use_task_id=True),
        ("config.json", "'use_task_id'", "true", "false"),
    ),
]


@pytest.mark.parametrize(
    ("model_type", "change", "parts"), [(t, c, p) for t, _, c, p in BAD], ids=[f"{t}: {w}" for t, w, _, _ in BAD]
)
def test_a_family_with_a_wrong_piece_is_refused(model_type: str, change: Change, parts: tuple[object, ...], tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type=model_type)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=naming(*parts)):
        minisbert.load(tmp_path)


def test_a_unigram_file_that_is_taken_as_it_is_needs_an_unknown_token_too(tmp_path: Path) -> None:
    save_tiny(tmp_path, tokenizer="xlm-roberta")
    field("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")(tmp_path)
    assert minisbert.load(tmp_path).encode("男 a man").isfinite().all()
    model(unk_id=None)(tmp_path)
    with pytest.raises(CheckpointError, match=naming("tokenizer.json", "null", "unknown")):
        minisbert.load(tmp_path)


def test_a_tokenizer_of_fewer_tokens_than_rows_loads(tmp_path: Path) -> None:
    """paraphrase-multilingual-MiniLM-L12-v2 has 250,002 tokens and 250,037 rows."""
    save_tiny(tmp_path, model_type="xlm-roberta", vocab_size=205)
    encoder = minisbert.load(tmp_path)
    assert encoder.tokenizer.vocab_size == 170
    assert encoder.encode("a man").isfinite().all()


def test_a_map_of_characters_that_leads_astray_is_told_at_the_text_that_it_fails(tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type="xlm-roberta")
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["normalizer"]["precompiled_charsmap"] = "BAAAAP///38AYQA="  # one unit of a trie, which points far beyond its end
    write_json(tmp_path / "tokenizer.json", values)
    with pytest.raises(CheckpointError, match=r"^tokenizer\.json: .*out of bounds|these texts"):
        minisbert.load(tmp_path).encode("été 男")


def test_every_row_is_tested_and_no_family_is_refused_by_name() -> None:
    assert set(ROWS) == set(FAMILIES)
    assert not set(ROWS) & set(OTHER_ARCHITECTURES)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_row_names_every_parameter_once_with_the_names_that_transformers_writes(model_type: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type=model_type)
    bert = minisbert.load(tmp_path).bert
    table = names(read_checkpoint(finder(tmp_path)).bert)
    assert table.keys() == dict(bert.named_parameters()).keys()
    hub = [name for row in table.values() for name in row]
    assert sorted(hub) == sorted(load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_configuration_goes_back_as_transformers_wrote_it(model_type: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type=model_type)
    theirs = json.loads((tmp_path / "config.json").read_text("utf-8"))
    ours = to_hub_config(read_checkpoint(finder(tmp_path)).bert)
    assert ours == {name: theirs.get(name) for name in ours}
    needed = {"architectures", "model_type", "vocab_size", "max_position_embeddings", "relative_attention_num_buckets"}
    assert needed & theirs.keys() <= ours.keys()


@pytest.mark.parametrize(("model_type", "name"), [("roberta", "position_offset"), ("distilbert", "hidden_size")])
def test_a_setting_under_another_name_comes_from_the_file_too(model_type: str, name: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type=model_type)
    (source,) = (setting.source for setting in read_checkpoint(finder(tmp_path)).settings if setting.name == name)
    assert source == "config.json"


@pytest.mark.parametrize(
    ("name", "largest"),
    [("vocab_size", 2**24), ("hidden_size", 2**16), ("num_attention_heads", 2**16), ("num_hidden_layers", 2**10)],
)
def test_a_size_above_the_largest_is_refused(name: str, largest: int, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    field("config.json", **{name: largest + 1})(tmp_path)
    with pytest.raises(CheckpointError, match=naming("config.json", f"'{name}'", largest + 1, 1, largest)):
        minisbert.load(tmp_path)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_weights_saved_with_a_head_on_top_load_under_their_prefix(model_type: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, model_type=model_type)
    plain = minisbert.load(tmp_path).encode("a man is eating")
    state = {ROWS[model_type].prefix + name: tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    heads = {"roberta.": "lm_head.dense.weight", "mpnet.": "lm_head.bias", "distilbert.": "vocab_transform.weight"}
    state[heads.get(ROWS[model_type].prefix, "cls.predictions.bias")] = torch.ones(4)
    save_file(state, tmp_path / "model.safetensors")
    assert torch.equal(minisbert.load(tmp_path).encode("a man is eating"), plain)
