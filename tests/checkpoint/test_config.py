"""What the json files of a checkpoint say: obeyed when right, refused by name when not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoints import finder, save_tiny, write_json
from layouts import laid
from messages import naming
from sentence_transformers import SentenceTransformer

import minisbert
from minisbert import CheckpointError, MinisbertWarning
from minisbert.bert import BertConfig
from minisbert.checkpoint.config import CheckpointConfig, Limit, SentenceTransformersConfig, WordPieceConfig, read_checkpoint
from minisbert.checkpoint.fields import brief, read_json
from minisbert.checkpoint.modules import MODULE_KINDS
from minisbert.pooling import DenseConfig, LayerNormConfig, NormalizeConfig, PoolingConfig

MISSING = object()

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 33,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 50,
    "type_vocab_size": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-9,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.0,
}
TRANSFORMER, POOLING, NORMALIZE = (
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
)
DENSE = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
FILES: dict[str, Any] = {
    "config.json": BERT,
    "modules.json": [TRANSFORMER, POOLING, NORMALIZE],
    "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
    "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False},
    "tokenizer_config.json": {"do_lower_case": False, "model_max_length": 48},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The json files of a healthy checkpoint."""
    for file, value in FILES.items():
        write_json(tmp_path / file, value)
    return tmp_path


def change(folder: Path, file: str, **fields: object) -> None:
    values = FILES[file] | fields
    write_json(folder / file, {field: value for field, value in values.items() if value is not MISSING})


def chain(folder: Path, *kinds: str) -> None:
    """modules.json with these modules after the pooling, each in a folder of its own, which is left to the caller."""
    rows = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds, start=2)
    ]
    write_json(folder / "modules.json", [TRANSFORMER, POOLING, *rows])


def read(folder: Path) -> CheckpointConfig:
    return read_checkpoint(finder(folder))


def refused(folder: Path, *parts: object) -> None:
    """A checkpoint is refused with a message that names these parts, and ends with what to do."""
    with pytest.raises(CheckpointError, match=naming(*parts)) as caught:
        read(folder)
    message = str(caught.value)
    assert re.search(r"(Correct|[Tt]ake|[Ll]oad|Check|Set|Expected) [^:]*\.$", message), message


def refused_setting(folder: Path, file: str, field: str, found: str, expected: object) -> None:
    refused(folder, file, repr(field), found, *(expected if isinstance(expected, tuple) else (expected,)))


# --- the healthy checkpoint ---------------------------------------------------------------------------------------------------


def test_every_field_of_a_healthy_checkpoint_arrives(folder: Path) -> None:
    assert read(folder) == CheckpointConfig(
        bert=BertConfig(
            vocab_size=33,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=50,
            type_vocab_size=3,
            hidden_act="gelu",
            layer_norm_eps=1e-9,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.0,
        ),
        wordpiece=WordPieceConfig(do_lower_case=False, model_max_length=48),
        pooling=PoolingConfig(32, ("mean",)),
        modules=(NormalizeConfig(),),
        usage=SentenceTransformersConfig(),
        lower_case_first=False,
        limit=Limit(
            24,
            "sentence_bert_config.json: max_seq_length",
            (
                "sentence_bert_config.json: max_seq_length is 24",
                "config.json: max_position_embeddings is 50, and no sentence can have more",
            ),
        ),
    )
    assert read(folder).bert.head_dim == 8


def test_what_is_read_cannot_be_changed(folder: Path) -> None:
    config = read(folder)
    for part in config, config.bert, config.pooling, config.wordpiece:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, dataclasses.fields(part)[0].name, 1)


def test_what_sentence_transformers_writes_today_is_read_as_it_was_meant(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    save_tiny(tmp_path / "plain")
    transformer = Transformer(str(tmp_path / "plain"))
    SentenceTransformer(modules=[transformer, Pooling(32, ("mean", "cls")), Normalize()], device="cpu").save(str(tmp_path / "new"))
    config = read(tmp_path / "new")
    assert config.pooling == PoolingConfig(32, ("mean", "cls"))
    assert (config.modules, config.max_seq_length, config.wordpiece.do_lower_case) == ((NormalizeConfig(),), 40, True)
    assert config.load_warnings == ()


# --- config.json --------------------------------------------------------------------------------------------------------------

NO_INTEGER = [
    (None, "null (NoneType)"),
    ("32", '"32" (str)'),
    (32.0, "32.0 (float)"),
    (True, "true (bool)"),
    (0, "0 (int)"),
    (-1, "-1 (int)"),
    (10**30, "1" + "0" * 30 + " (int)"),
    ([32], "[32] (list)"),
    ({}, "{} (dict)"),
]
SIZES = [field for field, value in BERT.items() if isinstance(value, int)]


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize(("value", "found"), NO_INTEGER)
def test_a_size_that_is_no_integer_in_range_is_refused(folder: Path, field: str, value: object, found: str) -> None:
    change(folder, "config.json", **{field: value})
    refused(folder, "config.json", repr(field), found, "1 to ")


@pytest.mark.parametrize("field", [field for field in SIZES if field != "type_vocab_size"])
def test_a_size_that_is_missing_is_refused(folder: Path, field: str) -> None:
    change(folder, "config.json", **{field: MISSING})
    refused(folder, "config.json", repr(field), "no such field", "1 to ")


def test_what_older_files_leave_out_has_the_defaults_of_transformers(folder: Path) -> None:
    from transformers import BertConfig as Reference

    optional = "type_vocab_size", "hidden_act", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob"
    change(folder, "config.json", **dict.fromkeys(optional, MISSING))
    ours, theirs = read(folder).bert, Reference()
    for field in optional:
        assert getattr(ours, field) == getattr(theirs, field)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
def test_every_activation_is_read(folder: Path, act: str) -> None:
    change(folder, "config.json", hidden_act=act)
    assert read(folder).bert.hidden_act == act


KNOWN = "one of bert, roberta, xlm-roberta, camembert, mpnet, distilbert, electra, ernie"


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("hidden_act", "gelu_fast", '"gelu_fast" (str)', "gelu, gelu_new, gelu_pytorch_tanh, relu, silu"),
        ("hidden_act", None, "null (NoneType)", "gelu"),
        ("hidden_act", ["gelu"], '["gelu"] (list)', "gelu"),
        ("hidden_act", 1, "1 (int)", "gelu"),
        ("layer_norm_eps", "1e-12", '"1e-12" (str)', "above 0 and below 1"),
        ("layer_norm_eps", None, "null (NoneType)", "above 0 and below 1"),
        ("layer_norm_eps", True, "true (bool)", "above 0 and below 1"),
        ("layer_norm_eps", 0, "0 (int)", "above 0 and below 1"),
        ("layer_norm_eps", -1e-12, "-1e-12 (float)", "above 0 and below 1"),
        ("layer_norm_eps", 1, "1 (int)", "above 0 and below 1"),
        ("layer_norm_eps", [1e-12], "[1e-12] (list)", "above 0 and below 1"),
        ("hidden_dropout_prob", 1, "1 (int)", "from 0 and below 1"),
        ("attention_probs_dropout_prob", None, "null (NoneType)", "from 0 and below 1"),
        ("position_embedding_type", "relative_key", '"relative_key" (str)', '"absolute"'),
        ("position_embedding_type", "relative_key_query", '"relative_key_query" (str)', '"absolute"'),
        ("position_embedding_type", 1, "1 (int)", '"absolute"'),
        ("is_decoder", True, "true (bool)", "false"),
        ("is_decoder", "no", '"no" (str)', "false"),
        ("add_cross_attention", True, "true (bool)", "false"),
        ("model_type", "modernbert", '"modernbert" (str)', (KNOWN, "ModernBERT")),
        ("model_type", "t5", '"t5" (str)', (KNOWN, "T5")),
        ("model_type", "never-heard-of", '"never-heard-of" (str)', (KNOWN, "minisbert knows no other")),
        ("is_encoder_decoder", True, "true (bool)", "false"),
        ("auto_map", {"AutoModel": "modeling.X"}, '{"AutoModel": "modeling.X"} (dict)', "no such field"),
        ("auto_map", [], "[] (list)", "no such field"),
        ("pruned_heads", {"0": [1]}, '{"0": [1]} (dict)', "{}"),
        ("quantization_config", {"bits": 4}, '{"bits": 4} (dict)', "null"),
        ("model_type", "Bert", '"Bert" (str)', KNOWN),
        ("model_type", None, "null (NoneType)", KNOWN),
        ("model_type", ["bert"], '["bert"] (list)', KNOWN),
        ("architectures", "BertModel", '"BertModel" (str)', "a list of class names"),
        ("architectures", [1], "[1] (list)", "a list of class names"),
        ("architectures", {"BertModel": 1}, '{"BertModel": 1} (dict)', "list"),
    ],
)
def test_a_setting_that_would_change_the_result_is_refused(
    folder: Path, field: str, value: object, found: str, expected: object
) -> None:
    change(folder, "config.json", **{field: value})
    refused_setting(folder, "config.json", field, found, expected)


@pytest.mark.parametrize(("architectures", "fine"), [(["BertForMaskedLM"], True), (["T5Model"], False), ([], False)])
def test_without_model_type_the_architectures_say_whether_it_is_a_bert(folder: Path, architectures: list[str], fine: bool) -> None:
    change(folder, "config.json", model_type=MISSING, architectures=architectures)
    if fine:
        assert read(folder).bert.hidden_size == 32
    else:
        refused(folder, "config.json", "'model_type'", "no such field", KNOWN)


def test_a_bert_by_another_class_s_name_is_taken_as_one_and_that_is_said(folder: Path) -> None:
    change(folder, "config.json", architectures=["SplendidModel"])
    config = read(folder)
    assert config.bert.hidden_size == 32
    assert config.load_warnings == (
        'config.json: architectures is ["SplendidModel"] (list), but model_type is bert; it is taken as BERT',
    )


def test_heads_that_do_not_share_the_width_equally_are_refused(folder: Path) -> None:
    change(folder, "config.json", num_attention_heads=5)
    refused(folder, "config.json", "'num_attention_heads'", 5, "hidden_size", 32, "Every head")


# --- modules.json -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULE_KINDS)
def test_the_class_names_of_every_era_are_those_of_sentence_transformers(name: str) -> None:
    import sentence_transformers.sentence_transformer.modules as theirs
    from sentence_transformers.util import import_from_string

    kinds = {
        "transformer": theirs.Transformer,
        "pooling": theirs.Pooling,
        "dense": theirs.Dense,
        "layer_norm": theirs.LayerNorm,
        "normalize": theirs.Normalize,
        "dropout": theirs.Dropout,
    }
    if ".BERT" in name:  # of 2019, before Transformer took its place; sentence-transformers itself no longer knows it
        with pytest.raises(ImportError):
            import_from_string(name)
    else:
        assert import_from_string(name) is kinds[MODULE_KINDS[name]]


@pytest.mark.parametrize("normalize", [name for name, kind in MODULE_KINDS.items() if kind == "normalize"])
@pytest.mark.parametrize("transformer", [name for name, kind in MODULE_KINDS.items() if kind == "transformer"])
def test_a_chain_of_any_era_is_read(folder: Path, transformer: str, normalize: str) -> None:
    rows = [TRANSFORMER | {"type": transformer}, POOLING, NORMALIZE | {"type": normalize}]
    write_json(folder / "modules.json", rows)
    assert read(folder).modules == (NormalizeConfig(),)


def test_the_modules_are_read_in_their_order_and_dropout_is_left_out(folder: Path) -> None:
    chain(folder, "Dense", "Dropout", "LayerNorm", "Normalize", "Dense")
    write_json(folder / "2_Dense/config.json", DENSE)
    write_json(folder / "4_LayerNorm/config.json", {"dimension": 8})
    last = {"in_features": 8, "out_features": 5, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
    write_json(folder / "6_Dense/config.json", last | {"use_residual": True})
    config = read(folder)
    assert config.modules == (
        DenseConfig("2_Dense", 32, 8, True, "Tanh", residual=False),
        LayerNormConfig("4_LayerNorm", 8),
        NormalizeConfig(),
        DenseConfig("6_Dense", 8, 5, False, "Identity", residual=True),
    )
    assert (config.dimension, config.load_warnings) == (5, ())


def test_the_folders_that_modules_name_are_where_their_files_are_read(folder: Path) -> None:
    rows = [TRANSFORMER | {"path": "0_Transformer/"}, POOLING | {"path": "pooled"}]
    write_json(folder / "modules.json", rows)
    (folder / "0_Transformer").mkdir()
    for file in "config.json", "tokenizer_config.json", "sentence_bert_config.json":
        (folder / file).rename(folder / "0_Transformer" / file)
    (folder / "1_Pooling").rename(folder / "pooled")
    config = read(folder)
    assert (config.folder, config.max_seq_length, config.wordpiece.model_max_length) == ("0_Transformer", 24, 48)

    change(folder, "1_Pooling/config.json")
    (folder / "pooled/config.json").unlink()
    refused(folder, "pooled/config.json", "no such file")


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ({}, ("{} (dict)", "list")),
        ([1], ("[1] (list)", "list")),
        ([TRANSFORMER | {"type": MISSING}], ("module 0", "'type'", "no such field", "text")),
        ([TRANSFORMER | {"type": 1}], ("module 0", "'type'", "1 (int)", "text")),
        ([TRANSFORMER | {"type": []}], ("module 0", "'type'", "[] (list)", "text")),
        ([TRANSFORMER, POOLING | {"path": MISSING}], ("module 1", "'path'", "no such field", "text")),
        ([TRANSFORMER, POOLING | {"path": None}], ("module 1", "'path'", "null (NoneType)", "text")),
        (
            [TRANSFORMER, POOLING | {"type": "os.system"}],
            ("module 1", "'type'", '"os.system"', "Transformer, Pooling, Dense, LayerNorm"),
        ),
        ([], ("no modules", "transformer → pooling")),
        ([TRANSFORMER], ("chain transformer,", "transformer → pooling")),
        ([POOLING, TRANSFORMER], ("pooling → transformer", "transformer → pooling")),
        ([TRANSFORMER, POOLING, POOLING | {"name": "2"}], ("transformer → pooling → pooling", "transformer → pooling")),
        ([TRANSFORMER, NORMALIZE], ("transformer → normalize", "transformer → pooling")),
        ([TRANSFORMER, POOLING, NORMALIZE | {"name": "1"}], ("module 2", "'name'", '"1"', "no other")),
        ([TRANSFORMER, POOLING | {"name": 1}], ("module 1", "'name'", "1 (int)", "text")),
        ([TRANSFORMER] * 65, (65, 64)),
        *[
            ([TRANSFORMER, POOLING | {"path": path}], ("module 1", "'path'", json.dumps(path), "folder inside"))
            for path in ("/etc", "../other", "1_Pooling/../../x", "C:\\models", "C:models", "a\0b", "\\\\server\\share")
        ],
        *[
            ([TRANSFORMER, POOLING, NORMALIZE | {"type": f"sentence_transformers.{kind}"}], ("module 2", "'type'", kind, what))
            for kind, what in [
                ("models.WeightedLayerPooling", "all layers"),
                ("models.Asym", "queries and documents"),
                ("base.modules.router.Router", "queries and documents"),
                ("models.RoBERTa", "RoBERTa"),
                ("models.CLIPModel", "CLIP"),
                ("models.StaticEmbedding", "word vectors"),
                ("sparse_encoder.models.SpladePooling", "sparse"),
            ]
        ],
        (
            [TRANSFORMER | {"type": "modeling_mine.Transformer"}],
            ("module 0", "'type'", '"modeling_mine.Transformer"', "Transformer"),
        ),
    ],
)
def test_a_chain_that_minisbert_does_not_run_is_refused(folder: Path, rows: Any, parts: tuple[object, ...]) -> None:
    if isinstance(rows, list):
        rows = [{k: v for k, v in row.items() if v is not MISSING} if isinstance(row, dict) else row for row in rows]
    write_json(folder / "modules.json", rows)
    refused(folder, "modules.json", *parts)


def test_no_module_is_imported_by_the_name_that_a_checkpoint_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "planted.py").write_text("raise SystemExit('the code of a checkpoint ran')", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    write_json(folder / "modules.json", [TRANSFORMER, POOLING | {"type": "planted.Pooling"}])
    refused(folder, "modules.json", "module 1", "'type'", '"planted.Pooling"')


def test_without_modules_json_token_vectors_are_averaged_and_that_is_said_once(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    texts = ["a man is eating food.", "the cat sat on the mat."]
    expected = minisbert.load(tmp_path, device="cpu").encode(texts)
    for file in "modules.json", "1_Pooling/config.json":
        (tmp_path / file).unlink()
    with pytest.warns(MinisbertWarning) as said:
        encoder = minisbert.load(tmp_path, device="cpu")
    (warning,) = [str(one.message) for one in said]
    assert naming("modules.json", "mean").search(warning)
    assert encoder.pooling.modes == ("mean",)
    assert encoder.encode(texts).equal(expected)


# --- 1_Pooling/config.json ----------------------------------------------------------------------------------------------------

OLD = "cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        *[
            (
                {"word_embedding_dimension": 32, **{f"pooling_mode_{name}": name in on for name in OLD}},
                modes,
            )
            for on, modes in [
                (("cls_token",), ("cls",)),
                (("mean_tokens",), ("mean",)),
                (("max_tokens",), ("max",)),
                (("mean_sqrt_len_tokens",), ("mean_sqrt_len_tokens",)),
                (("weightedmean_tokens",), ("weightedmean",)),
                (("lasttoken",), ("lasttoken",)),
                (OLD, ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
                (("mean_tokens", "max_tokens"), ("max", "mean")),
            ]
        ],
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, ("mean",)),
        ({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}, ("cls",)),
        ({"embedding_dimension": 32, "pooling_mode": ["max"]}, ("max",)),
        ({"embedding_dimension": 32, "pooling_mode": ["lasttoken", "weightedmean"]}, ("lasttoken", "weightedmean")),
        ({"embedding_dimension": 32, "pooling_mode": ["mean", "mean"]}, ("mean", "mean")),
        ({"embedding_dimension": 32, "pooling_mode": ["mean", "max", "cls"]}, ("mean", "max", "cls")),
        ({"word_embedding_dimension": 32, "pooling_mode": "max", "pooling_mode_cls_token": True}, ("max",)),
    ],
)  # fmt: skip
def test_the_pooling_of_both_generations_is_that_of_sentence_transformers(
    folder: Path, settings: dict[str, object], modes: tuple[str, ...]
) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    write_json(folder / "1_Pooling/config.json", settings)
    assert read(folder).pooling == PoolingConfig(32, modes)
    theirs = Pooling.load(str(folder / "1_Pooling")).pooling_mode
    assert ((theirs,) if isinstance(theirs, str) else theirs) == modes


def test_a_pooling_without_a_mode_is_mean_and_that_is_said(folder: Path) -> None:
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, "made_by": "me"})
    config = read(folder)
    assert config.pooling == PoolingConfig(32, ("mean",))
    assert config.load_warnings == (
        "1_Pooling/config.json: no pooling mode is given; it is mean, as in sentence-transformers",
        '1_Pooling/config.json: not known here, and not used: "made_by" (str)',
    )


def test_include_prompt_is_read(folder: Path) -> None:
    write_json(folder / "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": False})
    assert read(folder).pooling == PoolingConfig(32, ("mean",), include_prompt=False)


# --- the modules after the pooling, prompts and the like ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("in_features", 16, "16 (int)", 32),
        ("in_features", MISSING, "no such field", "1 to 65536"),
        ("in_features", 1 << 40, "1099511627776 (int)", "1 to 65536"),
        ("out_features", 1 << 40, "1099511627776 (int)", "1 to 65536"),
        ("out_features", "8", '"8" (str)', "1 to 65536"),
        ("out_features", 0, "0 (int)", "1 to 65536"),
        ("bias", 1, "1 (int)", "true or false"),
        ("use_residual", "no", '"no" (str)', "true or false"),
        ("activation_function", "os.system", '"os.system" (str)', ("torch.nn", "CELU, ELU, GELU")),
        ("activation_function", "torch.hub.load", '"torch.hub.load" (str)', "torch.nn"),
        ("activation_function", "torch.nn.modules.activation.Softmax", '"torch.nn.modules.activation.Softmax" (str)', "torch.nn"),
        ("activation_function", None, "null (NoneType)", "text"),
        ("activation_function", ["Tanh"], '["Tanh"] (list)', "text"),
        ("module_input_name", "token_embeddings", '"token_embeddings" (str)', '"sentence_embedding"'),
        ("module_output_name", "other", '"other" (str)', '"sentence_embedding"'),
        ("key_name", 1, "1 (int)", '"sentence_embedding"'),
    ],
)
def test_a_wrong_setting_of_a_dense_layer_is_refused(folder: Path, field: str, value: object, found: str, expected: object) -> None:
    chain(folder, "Dense")
    values = DENSE | {field: value}
    write_json(folder / "2_Dense/config.json", {name: value for name, value in values.items() if value is not MISSING})
    refused_setting(folder, "2_Dense/config.json", field, found, expected)


def test_a_layer_norm_of_another_width_and_a_normalization_of_something_else_are_refused(folder: Path) -> None:
    chain(folder, "LayerNorm", "Normalize")
    refused(folder, "2_LayerNorm/config.json", "no such file")
    write_json(folder / "2_LayerNorm/config.json", {"dimension": 31})
    refused(folder, "2_LayerNorm/config.json", "'dimension'", 31, 32)
    new = NORMALIZE | {"type": "sentence_transformers.base.modules.normalize.Normalize"}
    write_json(folder / "modules.json", [TRANSFORMER, POOLING, new])
    write_json(folder / "2_Normalize/config.json", {"module_input_name": "token_embeddings"})
    refused(folder, "2_Normalize/config.json", "'module_input_name'", '"token_embeddings"', '"sentence_embedding"')


def test_prompts_and_the_like_are_read(folder: Path) -> None:
    assert read(folder).usage == SentenceTransformersConfig({}, None, None, None)
    prompts = {"query": "query: ", "passage": None}
    values = {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 16}
    write_json(folder / "config_sentence_transformers.json", values)
    assert read(folder).usage == SentenceTransformersConfig({"query": "query: ", "passage": ""}, "query", "dot", 16)
    write_json(folder / "config_sentence_transformers.json", {"default_prompt_name": "document", "similarity_fn_name": "maxsim"})
    config = read(folder)
    assert config.usage == SentenceTransformersConfig({}, "document", None, None)
    (load_warning,) = config.load_warnings
    assert naming("similarity_fn_name", '"maxsim"', "cosine, dot, euclidean, manhattan", "cosine").search(load_warning)
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 64})
    assert naming("truncate_dim", 64, 32).search(read(folder).load_warnings[0])


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("prompts", ["query: "], '["query: "] (list)', "object"),
        ("prompts", {"query": 1}, '{"query": 1} (dict)', "object"),
        ("default_prompt_name", "passage", '"passage" (str)', "query, document, mine"),
        ("default_prompt_name", 1, "1 (int)", "text"),
        ("similarity_fn_name", ["dot"], '["dot"] (list)', "text"),
        ("truncate_dim", 0, "0 (int)", "1 to "),
        ("truncate_dim", "16", '"16" (str)', "1 to "),
        ("truncate_dim", True, "true (bool)", "1 to "),
        ("model_type", "SparseEncoder", '"SparseEncoder" (str)', '"SentenceTransformer"'),
        ("model_type", 1, "1 (int)", "text"),
    ],
)
def test_a_wrong_setting_of_the_prompts_and_the_like_is_refused(
    folder: Path, field: str, value: object, found: str, expected: object
) -> None:
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"mine": "so: "}, field: value})
    refused_setting(folder, "config_sentence_transformers.json", field, found, expected)


def test_each_setting_in_force_has_the_file_it_came_from(folder: Path) -> None:
    chain(folder, "Dense")
    write_json(folder / "2_Dense/config.json", DENSE)
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 4})
    change(folder, "config.json", hidden_act=MISSING)
    settings = {setting.name: (setting.value, setting.source) for setting in read(folder).settings}
    assert settings["hidden_size"] == (32, "config.json")
    assert settings["hidden_act"] == ("gelu", "the default")
    assert settings["pooling_mode"] == (["mean"], "1_Pooling/config.json")
    assert settings["include_prompt"] == (True, "the default")
    assert settings["dense"] == ("32 → 8, Tanh", "2_Dense/config.json")
    assert settings["truncate_dim"] == (4, "config_sentence_transformers.json")
    assert settings["similarity_fn_name"] == (None, "the default")


@pytest.mark.parametrize("field", ["word_embedding_dimension", "embedding_dimension"])
@pytest.mark.parametrize(("value", "found"), NO_INTEGER)
def test_a_pooling_dimension_that_is_no_integer_is_refused(folder: Path, field: str, value: object, found: str) -> None:
    write_json(folder / "1_Pooling/config.json", {field: value, "pooling_mode": "mean"})
    refused(folder, "1_Pooling/config.json", repr(field), found, "1 to ")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"word_embedding_dimension": MISSING, "pooling_mode": "mean"}, ("'embedding_dimension'", "no such field", "integer")),
        ({"word_embedding_dimension": 16, "pooling_mode": "mean"}, (16, 32, "hidden_size", "config.json")),
        (
            {"pooling_mode": "median"},
            ("'pooling_mode'", '"median" (str)', "cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken"),
        ),
        ({"pooling_mode": ["mean"] * 65}, ("'pooling_mode'", '["mean", "mean", ')),
        ({"pooling_mode": "mean", "embedding_dimension": 16}, ("'embedding_dimension'", 16, 32, "word_embedding_dimension")),
        ({"pooling_mode": ["mean", 1]}, ("'pooling_mode'", '["mean", 1] (list)', "cls")),
        ({"pooling_mode": ["mean", ["cls"]]}, ("'pooling_mode'", '["mean", ["cls"]] (list)', "cls")),
        ({"pooling_mode": []}, ("'pooling_mode'", "[] (list)", "cls")),
        ({"pooling_mode": None}, ("'pooling_mode'", "null (NoneType)", "cls")),
        ({"pooling_mode": {"mean": True}}, ("'pooling_mode'", '{"mean": true} (dict)', "cls")),
        ({"pooling_mode": True}, ("'pooling_mode'", "true (bool)", "cls")),
        ({"pooling_mode_mean_tokens": 1}, ("'pooling_mode_mean_tokens'", "1 (int)", "true or false")),
        ({"pooling_mode_cls_token": "true"}, ("'pooling_mode_cls_token'", '"true" (str)', "true or false")),
        ({"pooling_mode_mean_tokens": False}, ("no pooling mode", "pooling_mode_cls_token")),
        ({"pooling_mode": "mean", "include_prompt": 0}, ("'include_prompt'", "0 (int)", "true or false")),
    ],
)
def test_a_pooling_that_minisbert_does_not_do_is_refused(
    folder: Path, settings: dict[str, object], parts: tuple[object, ...]
) -> None:
    values = {"word_embedding_dimension": 32} | settings
    write_json(folder / "1_Pooling/config.json", {name: value for name, value in values.items() if value is not MISSING})
    refused(folder, "1_Pooling/config.json", *parts)


# --- the limit, and the settings of the tokenizer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_seq_length", "model_max_length", "limit", "load_warnings"),
    [
        (24, 48, 24, 0),
        (36, 12, 36, 0),
        (None, 12, 12, 0),
        (MISSING, 12, 12, 0),
        (None, 512, 40, 0),
        (None, 1e30, 40, 0),
        (None, int(1e30), 40, 0),
        (None, 10**400, 40, 0),
        (None, 16.0, 16, 0),
        (None, None, 40, 0),
        (None, MISSING, 40, 0),
        (40, MISSING, 40, 0),
        (41, 12, 40, 1),
        (10**18, 12, 40, 1),
        (3, 12, 3, 0),
    ],
)
def test_the_limit_is_the_smallest_that_the_files_give_in_their_order(
    tmp_path: Path, max_seq_length: object, model_max_length: object, limit: int, load_warnings: int
) -> None:
    save_tiny(tmp_path)  # 40 positions
    given = {"sentence_bert_config.json": {"max_seq_length": max_seq_length}}
    given["tokenizer_config.json"] = {"do_lower_case": True, "model_max_length": model_max_length}
    for file, fields in given.items():
        write_json(tmp_path / file, {field: value for field, value in fields.items() if value is not MISSING})
    config = read(tmp_path)
    assert config.max_seq_length == limit
    assert len(config.load_warnings) == load_warnings
    if load_warnings:
        assert naming("max_seq_length", max_seq_length, "40 positions").search(config.load_warnings[0])
    elif model_max_length not in (None, 10**400):  # sentence-transformers fails on these
        assert SentenceTransformer(str(tmp_path), device="cpu").max_seq_length == limit


def test_without_the_files_of_the_tokenizer_and_the_limit_the_defaults_hold(folder: Path) -> None:
    for file in "sentence_bert_config.json", "tokenizer_config.json":
        (folder / file).unlink()
    config = read(folder)
    assert (config.max_seq_length, config.lower_case_first, config.wordpiece) == (50, False, WordPieceConfig())


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("max_seq_length", "24", '"24" (str)', "1 to "),
        ("max_seq_length", True, "true (bool)", "1 to "),
        ("max_seq_length", 24.0, "24.0 (float)", "1 to "),
        ("max_seq_length", 0, "0 (int)", "1 to "),
        ("max_seq_length", -1, "-1 (int)", "1 to "),
        ("max_seq_length", [24], "[24] (list)", "1 to "),
        ("do_lower_case", 1, "1 (int)", "true or false"),
        ("do_lower_case", "false", '"false" (str)', "true or false"),
        ("transformer_task", "fill-mask", '"fill-mask" (str)', '"feature-extraction"'),
        ("module_output_name", "sentence_embedding", '"sentence_embedding" (str)', '"token_embeddings"'),
        ("modality_config", {"image": {}}, '{"image": {}} (dict)', "last hidden state"),
        ("modality_config", {"text": {"method": "forward", "method_output_name": "pooler_output"}}, '{"text"', "last hidden state"),
        ("modality_config", [], "[] (list)", "last hidden state"),
        ("query_length", 32, "32 (int)", "null"),
        ("tokenizer_name_or_path", "other/model", '"other/model" (str)', "null"),
        ("model_args", {"trust_remote_code": True, "num_hidden_layers": 1}, '{"trust_remote_code"', "add_pooling_layer"),
        ("processing_kwargs", {"text": {"max_length": 8}}, '{"text"', "nothing"),
        ("tokenizer_args", [], "[] (list)", "nothing"),
    ],
)
def test_a_wrong_setting_of_the_sentence_is_refused(folder: Path, field: str, value: object, found: str, expected: object) -> None:
    change(folder, "sentence_bert_config.json", **{field: value})
    refused_setting(folder, "sentence_bert_config.json", field, found, expected)


@pytest.mark.parametrize(
    ("file", "field"),
    [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")],
)
def test_a_limit_too_small_for_a_word_piece_is_refused(folder: Path, file: str, field: str) -> None:
    change(folder, "sentence_bert_config.json", max_seq_length=None)
    change(folder, file, **{field: 2})
    refused(folder, file, field, "2 tokens", 3)


def test_the_limit_keeps_the_reasons_it_follows_from(folder: Path) -> None:
    change(folder, "sentence_bert_config.json", max_seq_length=MISSING)
    change(folder, "tokenizer_config.json", model_max_length=10**30)
    limit = read(folder).limit
    assert (limit.tokens, limit.source) == (50, "config.json: max_position_embeddings")
    assert limit.reasons == (
        "sentence_bert_config.json gives no max_seq_length",
        "tokenizer_config.json: model_max_length is no limit",
        "config.json: max_position_embeddings is 50, and no sentence can have more",
    )


def test_the_old_name_of_the_tokenizers_limit_is_read_where_the_new_one_is_missing(folder: Path) -> None:
    change(folder, "sentence_bert_config.json", max_seq_length=MISSING)
    change(folder, "tokenizer_config.json", model_max_length=MISSING, max_len=17)
    assert read(folder).max_seq_length == 17
    change(folder, "tokenizer_config.json", max_len=17)
    assert read(folder).max_seq_length == 48
    change(folder, "tokenizer_config.json", model_max_length=MISSING, max_len="17")
    refused(folder, "tokenizer_config.json", "'max_len'", '"17" (str)', "tokens")


def test_every_setting_of_the_tokenizer_arrives(folder: Path) -> None:
    special = {f"{name}_token": f"<{name}>" for name in ("unk", "cls", "sep", "pad", "mask")}
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False, "__type": "AddedToken"}
    settings = {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False, "truncation_side": "left"}
    change(folder, "tokenizer_config.json", **settings, **(special | {"mask_token": mask}), tokenizer_class="BertTokenizer")
    assert read(folder).wordpiece == WordPieceConfig(**settings, **special, model_max_length=48, tokenizer_class="BertTokenizer")


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("do_lower_case", 1, "1 (int)", "true or false"),
        ("strip_accents", "no", '"no" (str)', "true or false"),
        ("tokenize_chinese_chars", [], "[] (list)", "true or false"),
        ("model_max_length", True, "true (bool)", "tokens"),
        ("model_max_length", "512", '"512" (str)', "tokens"),
        ("model_max_length", 0, "0 (int)", "tokens"),
        ("model_max_length", -1, "-1 (int)", "tokens"),
        ("model_max_length", 0.5, "0.5 (float)", "tokens"),
        ("model_max_length", 12.5, "12.5 (float)", "tokens"),
        ("model_max_length", [512], "[512] (list)", "tokens"),
        ("auto_map", {"AutoTokenizer": ["x.Y", None]}, '{"AutoTokenizer": ["x.Y", null]} (dict)', "no such field"),
        ("truncation_side", "middle", '"middle" (str)', "right, left"),
        ("truncation_side", 1, "1 (int)", "right, left"),
        ("tokenizer_class", ["BertTokenizer"], '["BertTokenizer"] (list)', "text"),
        ("cls_token", 101, "101 (int)", ("text", "'content'")),
        ("sep_token", "", '"" (str)', ("text", "object")),
        ("pad_token", {"text": "[PAD]"}, '{"text": "[PAD]"} (dict)', ("text", "object")),
        ("mask_token", {"content": 1}, '{"content": 1} (dict)', ("text", "object")),
        ("unk_token", ["[UNK]"], '["[UNK]"] (list)', ("text", "object")),
    ],
)
def test_a_wrong_setting_of_the_tokenizer_is_refused(folder: Path, field: str, value: object, found: str, expected: object) -> None:
    change(folder, "tokenizer_config.json", **{field: value})
    refused_setting(folder, "tokenizer_config.json", field, found, expected)


def test_a_number_too_large_for_a_float_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1e400}', encoding="utf-8")
    refused(folder, "tokenizer_config.json", "'model_max_length'", "Infinity (float)", "tokens")
    (folder / "config.json").write_text(json.dumps(BERT).replace("1e-09", "1e400"), encoding="utf-8")
    refused(folder, "config.json", "'layer_norm_eps'", "Infinity (float)", "above 0 and below 1")


# --- files that are no json, or not the json that is expected ------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("json", "Expecting value: line 1 column 1 (char 0)")),
        (b"\xff\xfe", ("json", "'utf-8' codec can't decode byte 0xff in position 0")),
        (b'{"hidden_size": 32', ("json", "Expecting ',' delimiter")),
        (b"{'hidden_size': 32}", ("json", "Expecting property name enclosed in double quotes")),
        (b'{"hidden_size": NaN}', ("json", "NaN is not a json number")),
        (b'{"hidden_size": -Infinity}', ("json", "-Infinity is not a json number")),
        (b'{"hidden_size": 32, "hidden_size": 64}', ("json", "the key 'hidden_size' is given twice")),
        (b'{"rows": [{"a": 1, "b": 2, "b": 2}]}', ("json", "the key 'b' is given twice")),
        (b"[" * 100_000, ("json", "maximum recursion depth exceeded")),
        (b"9" * 5000, ("json", "Exceeds the limit (4300 digits) for integer string conversion")),
        (b'\xef\xbb\xbf{"hidden_size": 32}', ("json", "Unexpected UTF-8 BOM")),
        (b'{"hidden_size": "\\ud800"}', ("json", "'utf-8' codec can't encode character")),
        (b"null", ("null (NoneType)",)),
        (b"12", ("12 (int)",)),
        (b'"' + b"x" * 200 + b'"', ('"' + "x" * 76 + "... (str)",)),
    ],
    ids=[
        "empty", "bad UTF-8", "cut off", "single quotes", "NaN", "infinity", "a key twice", "a key twice inside", "deep nesting",
        "a number of 5000 digits", "byte order mark", "a lone surrogate", "null", "a number", "a long text",
    ],
)  # fmt: skip
def test_a_file_that_is_not_the_json_it_should_be_is_refused_by_name(
    folder: Path, file: str, content: bytes, parts: tuple[str, ...]
) -> None:
    (folder / file).write_bytes(content)
    refused(folder, file, *parts)


@pytest.mark.parametrize("file", [file for file in FILES if file != "modules.json"])
def test_a_list_where_an_object_is_expected_is_refused(folder: Path, file: str) -> None:
    write_json(folder / file, [FILES[file]])
    refused(folder, file, "[{", "(list)", "{...}")


@pytest.mark.parametrize("file", ["config.json", "1_Pooling/config.json"])
def test_a_file_that_the_checkpoint_needs_and_lacks_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    refused(folder, file, "no such file", "folder")


def test_a_file_of_absurd_size_is_refused_before_it_is_read(folder: Path) -> None:
    os.truncate(folder / "config.json", 1 << 40)  # sparse: it takes no space on the disk
    refused(folder, "config.json", "1,099,511,627,776 bytes", "67,108,864")


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=naming("config.json", "Is a directory")):
        read_json(tmp_path, "config.json")


def test_a_number_of_more_digits_than_python_prints_can_still_be_named() -> None:
    assert brief(10**5000) == "an integer of too many digits (int)"


# --- sizes that no memory could hold ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 1 << 16, "num_attention_heads": 1 << 10, "intermediate_size": 1 << 20},
        {"vocab_size": 1 << 24, "max_position_embeddings": 1 << 20, "type_vocab_size": 1 << 20},
        {"num_hidden_layers": 1 << 10},
    ],
    ids=str,
)
def test_the_largest_sizes_are_refused_by_the_weights_without_memory_or_time(tmp_path: Path, sizes: dict[str, int]) -> None:
    save_tiny(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) | sizes
    write_json(tmp_path / "config.json", config)
    pooling = {"embedding_dimension": config["hidden_size"], "pooling_mode": "mean"}
    write_json(tmp_path / "1_Pooling/config.json", pooling)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(CheckpointError, match=naming("model.safetensors", "config.json")):
        minisbert.load(tmp_path, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB
    assert time.perf_counter() - start < 20


def test_the_largest_dense_layer_is_refused_by_its_weights(tmp_path: Path) -> None:
    laid(tmp_path / "one", after=[("Dense", DENSE)])
    write_json(tmp_path / "one/2_Dense/config.json", DENSE | {"out_features": 1 << 16})
    with pytest.raises(CheckpointError, match=naming("2_Dense/model.safetensors", 2, "2_Dense/config.json")):
        minisbert.load(tmp_path / "one", device="cpu")
