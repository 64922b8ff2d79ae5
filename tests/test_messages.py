"""The exact wording of twenty messages that users meet often. Other tests assert an error's type, file, field and value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import minisbert

LONG = "the cat sat on the mat " * 20

OF_ENCODE: list[tuple[object, dict[str, object], str]] = [
    (None, {}, "sentences: found NoneType, expected a str, or a list or other ordered collection of str."),
    ([None], {}, "sentences[0]: found NoneType, expected str. A missing text has no vector; leave it out, or pass '' for it."),
    ([b"a"], {}, "sentences[0]: found bytes, expected str. Decode it first: data.decode('utf-8')."),
    (
        {"a"},
        {},
        (
            "sentences: found set, expected an ordered collection such as a list: row i of the result belongs to text i. "
            "For example, pass sorted(it), and keep that list."
        ),
    ),
    (
        [("a", "b")],
        {},
        (
            "sentences[0]: found tuple, expected str. A pair has no vector: each text is encoded separately, and vectors are "
            "compared. Encode the first texts and the second texts, each as a list."
        ),
    ),
    (
        "\ud800",
        {},
        (
            r"sentences: found '\ud800' at character 0, a lone surrogate, expected Unicode text. It comes from bytes that were not "
            "UTF-8, or from a pair that was split; decode the text again."
        ),
    ),
    ("a", {"batch_size": 0}, "batch_size: found 0, expected at least 1."),
    ("a", {"prompt_name": "x"}, "prompt_name: found 'x', expected one of the prompts of this model: 'query', 'document'."),
    ("a", {"truncate_dim": 99}, "truncate_dim: found 99, expected 1 to 32, the dimensions of a vector of this model."),
    (
        [LONG, "a"],
        {"on_truncate": "error"},
        (
            "1 of 2 texts is longer than 32 tokens: the longest has 122 tokens, the first is number 1 (index 0) with 122. "
            "Split long texts, or pass on_truncate='ignore' if this is meant."
        ),
    ),
    (
        "a",
        {"precision": "int8"},
        (
            "encode() got an unexpected keyword argument 'precision'. Vectors are not quantized here; "
            "numpy.packbits(vectors > 0, axis=-1) is what 'ubinary' gives."
        ),
    ),
]

OF_CONFIG: list[tuple[dict[str, object], str]] = [
    (
        {"model_type": "t5", "architectures": ["T5Model"]},
        (
            "config.json: field 'model_type': found \"t5\" (str), expected one of bert, roberta, xlm-roberta, camembert, mpnet, "
            "distilbert, electra, ernie. This is T5, another architecture; load this checkpoint with sentence-transformers or "
            "transformers."
        ),
    ),
    (
        {"hidden_size": 7},
        (
            "config.json: field 'num_attention_heads': found 4 (int), expected a divisor of hidden_size, which "
            "is 7. Every head takes "
            "an equal share of it. Correct one of the two."
        ),
    ),
    (
        {"vocab_size": 3},
        (
            "vocab.txt: the highest token id is 32, expected at most 2, because config.json gives vocab_size 3. "
            "The tokenizer and the "
            "model do not belong together."
        ),
    ),
    (
        {"hidden_act": "swish"},
        (
            "config.json: field 'hidden_act': found \"swish\" (str), expected one of gelu, gelu_new, "
            "gelu_pytorch_tanh, relu, silu. "
            "Correct the file, or take an unchanged copy."
        ),
    ),
]


@pytest.fixture(scope="module")
def encoder(tiny_folder: Path) -> minisbert.SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


@pytest.mark.parametrize(("sentences", "options", "message"), OF_ENCODE, ids=[str(n) for n in range(len(OF_ENCODE))])
def test_what_encode_says(encoder: minisbert.SentenceEncoder, sentences: object, options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        encoder.encode(sentences, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(("fields", "message"), OF_CONFIG, ids=[next(iter(fields)) for fields, _ in OF_CONFIG])
def test_what_loading_says_of_a_field(tiny_folder: Path, tmp_path: Path, fields: dict[str, object], message: str) -> None:
    path = shutil.copytree(tiny_folder, tmp_path / "copy") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")
    with pytest.raises(minisbert.CheckpointError) as caught:
        minisbert.load(path.parent)
    assert str(caught.value) == message


def test_what_loading_says_of_missing_and_broken_files(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    with pytest.raises(minisbert.CheckpointError) as caught:
        minisbert.load(copy)
    assert str(caught.value) == (
        "model.safetensors and pytorch_model.bin: neither is in the checkpoint, nor an index of shards (.index.json), expected one "
        "of them. Add the weights, or download the checkpoint again."
    )
    (copy / "config.json").unlink()
    with pytest.raises(minisbert.CheckpointError) as caught:
        minisbert.load(copy)
    assert str(caught.value).startswith("config.json: no such file in the checkpoint. Expected a folder in the layout of the hub")


def test_what_a_text_that_is_cut_and_an_attribute_that_is_not_here_say(encoder: minisbert.SentenceEncoder) -> None:
    said = (
        "1 of 2 texts is longer than 32 tokens and was cut: the longest has 122 tokens, the first is number 1 (index 0) with "
        "122. Split long texts, or pass on_truncate='ignore' if this is meant."
    )
    with pytest.warns(minisbert.MinisbertWarning) as caught:
        encoder.encode([LONG, "a"])
    assert [str(warning.message) for warning in caught] == [said]
    with pytest.raises(AttributeError) as raised:
        encoder.to("cuda")
    assert str(raised.value) == (
        "'SentenceEncoder' object has no attribute 'to'. The device is chosen on loading, such as "
        "minisbert.load(name, device='cuda')."
    )


def test_what_an_unknown_model_says(tmp_path: Path) -> None:
    with pytest.raises(minisbert.ModelNotFoundError) as caught:
        minisbert.load("no/such", local_files_only=True, cache_dir=tmp_path)
    assert str(caught.value) == (
        f"no/such: this model was not found, and no other one is taken instead. Tried:\n  a local folder: none of that name;\n"
        f"  the hub's cache {tmp_path}: no copy of it;\n  the hub: local_files_only is set.\n"
        "Give the path of a folder that holds it, or a name that the hub has.\n"
        "Installed here: all-MiniLM-L6-v2. Pass model='all-MiniLM-L6-v2' to use it."
    )
