"""The two tables of minisbert/checkpoint/README.md, row by row: published families whose layout loads and gives what
sentence-transformers gives, and others that are refused by name. The weights here are random; the layout is what is tested."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES as MODEL_TYPES
from checkpoints import TINY_VOCAB, write_json
from layouts import HIDDEN, dense, laid, written
from messages import naming
from sentence_transformers.base.modules import Normalize

import minisbert
from minisbert import CheckpointError
from parity.compare import TINY, close
from parity.test_layouts import TEXTS, Loaded, reference

NORMALIZE = [("Normalize", None)]
CHINESE = [*TINY_VOCAB, *"今天气很好我喜欢猫"]


def chinese(folder: Path) -> None:
    laid(folder, ["cls"], NORMALIZE, bert={"vocab_size": len(CHINESE)})
    (folder / "vocab.txt").write_text("\n".join(CHINESE) + "\n", encoding="utf-8")


FAMILIES: dict[str, Callable[[Path], None]] = {
    "`bert-base-nli-mean-tokens`, `bert-large-nli-mean-tokens`, `bert-base-nli-stsb-mean-tokens`": lambda folder: laid(
        folder, pickled=True, tokenizer={"do_lower_case": True, "model_max_length": 39}, usage={}
    ),
    "`bert-base-nli-cls-token`": lambda folder: laid(folder, ["cls"], flags=("cls", "mean", "max", "mean_sqrt_len_tokens")),
    "`bert-base-nli-max-tokens`": lambda folder: laid(folder, ["max"], flags=("cls", "mean", "max", "mean_sqrt_len_tokens")),
    "`all-MiniLM-L6-v2`, `all-MiniLM-L12-v2`": lambda folder: laid(folder, after=NORMALIZE, usage={}),
    "`paraphrase-MiniLM-L3-v2`, `-L6-v2`, `-L12-v2`": lambda folder: laid(folder, usage={}),
    "`msmarco-MiniLM-L6-cos-v5`, `multi-qa-MiniLM-L6-cos-v1`": lambda folder: laid(
        folder, after=NORMALIZE, usage={}, sentence={"max_seq_length": 40}
    ),
    "`msmarco-bert-base-dot-v5`": lambda folder: laid(folder, usage={"similarity_fn_name": "dot"}),
    "`BAAI/bge-small-en-v1.5`, `-base-`, `-large-`": lambda folder: laid(
        folder, ["cls"], NORMALIZE, sentence={"max_seq_length": 40, "do_lower_case": True}, usage={}
    ),
    "`BAAI/bge-small-zh-v1.5`, `-base-`, `-large-`": chinese,
    "`intfloat/e5-small-v2`, `-base-v2`, `-large-v2`": lambda folder: laid(
        folder, after=NORMALIZE, sentence={"max_seq_length": 40}
    ),
    "`thenlper/gte-small`, `-base`, `-large`": lambda folder: laid(folder, after=NORMALIZE, sentence={"max_seq_length": 40}),
    "`LaBSE`": lambda folder: laid(
        folder, ["cls"], [("Dense", dense(HIDDEN, HIDDEN)), *NORMALIZE], pickled=True, tokenizer={"do_lower_case": False}, usage={}
    ),
    "`mixedbread-ai/mxbai-embed-large-v1`": lambda folder: laid(
        folder, ["cls"], usage={"prompts": {"query": "the man ", "passage": ""}, "default_prompt_name": None}
    ),
    "`Snowflake/snowflake-arctic-embed-xs`, `-s`, `-m`, `-l`": lambda folder: laid(
        folder, ["cls"], NORMALIZE, usage={"prompts": {"query": "the man "}}, sentence={"max_seq_length": 40}
    ),
    "`all-mpnet-base-v2`, `multi-qa-mpnet-base-cos-v1`": lambda folder: laid(
        folder, after=NORMALIZE, usage={}, sentence={"max_seq_length": 39}, bert={"model_type": "mpnet"}
    ),
    "`all-distilroberta-v1`": lambda folder: laid(
        folder, after=NORMALIZE, usage={}, sentence={"max_seq_length": 40}, pickled=True, bert={"model_type": "roberta"}
    ),
    "`nli-roberta-base-v2`": lambda folder: laid(folder, usage={}, bert={"model_type": "roberta"}),
    "`intfloat/multilingual-e5-base`, `-large`": lambda folder: laid(
        folder, after=NORMALIZE, sentence={"max_seq_length": 40}, bert={"model_type": "xlm-roberta"}
    ),
    "`paraphrase-multilingual-mpnet-base-v2`": lambda folder: laid(
        folder, usage={}, pickled=True, bert={"model_type": "xlm-roberta"}
    ),
    "`BAAI/bge-m3`": lambda folder: laid(
        folder, ["cls"], NORMALIZE, usage={}, sentence={"max_seq_length": 40}, bert={"model_type": "xlm-roberta"}
    ),
    "`dangvantuan/sentence-camembert-base`, `-large`": lambda folder: laid(folder, bert={"model_type": "camembert"}),
    "`distiluse-base-multilingual-cased-v2`": lambda folder: laid(
        folder, after=[("Dense", dense(HIDDEN, 20))], tokenizer={"do_lower_case": False}, bert={"model_type": "distilbert"}
    ),
    "`msmarco-distilbert-base-v4`": lambda folder: laid(folder, pickled=True, usage={}, bert={"model_type": "distilbert"}),
    "`paraphrase-multilingual-MiniLM-L12-v2`, `intfloat/multilingual-e5-small`": lambda folder: laid(
        folder, usage={}, bert={"tokenizer": "xlm-roberta"}
    ),
    "what sentence-transformers 5.4 and later saves": lambda folder: written(folder, "mean", [Normalize()]),
}

OTHERS: dict[str, dict[str, Any]] = {
    "`gte-modernbert-base`": {"ModernBERT": {"model_type": "modernbert"}},
    "`nomic-embed-text-v1.5`": {"NomicBERT": {"model_type": "nomic_bert"}},
    "`sentence-t5-base`, `gtr-t5-base`": {"T5": {"model_type": "t5"}},
    "`gte-base-en-v1.5`": {"NewModel": {"model_type": "new"}},
    "`Qwen3-Embedding-0.6B`": {"Qwen3": {"model_type": "qwen3"}},
    "`jina-embeddings-v2-small-en`": {"auto_map": {"auto_map": {"AutoModel": "modeling_bert.JinaBertModel"}}},
}


def rows(heading: str) -> list[str]:
    """The first cells of the table that follows these words."""
    text = (Path(__file__).parents[2] / "minisbert/checkpoint/README.md").read_text(encoding="utf-8").split(heading, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [line.split("|")[1].strip() for line in table[0].splitlines()[2:]]


def test_the_tables_have_exactly_the_rows_that_are_tested() -> None:
    assert rows("## Which checkpoints load") == [*FAMILIES, "any other BERT, without `modules.json`"]
    assert rows("These do not load") == [*OTHERS]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layout_of_a_published_family_loads_and_gives_what_sentence_transformers_gives(
    family: str, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = tmp_path / "family"
    FAMILIES[family](folder)
    loaded = Loaded(folder, reference(folder, dtype), dtype)
    encoder = loaded.encoder
    texts = [*TEXTS, "今天天气很好。", "我喜欢猫 and the dog", "the <pad> cat <mask> [PAD] <pad>"]
    bound = TINY[dtype].vectors
    close("encode", encoder.encode(texts, on_truncate="ignore"), loaded.theirs(texts), bound)
    ours = encoder.encode_query(texts, on_truncate="ignore")
    close("encode_query", ours, loaded.theirs(texts, method="encode_query"), bound)
    ours = encoder.encode(texts, on_truncate="ignore", prompt="the cat: ")
    close("prompt", ours, loaded.theirs(texts, prompt="the cat: "), bound)
    assert encoder.max_seq_length == loaded.reference.max_seq_length
    assert encoder.similarity_fn_name == loaded.reference.similarity_fn_name


@pytest.mark.parametrize("family", OTHERS)
def test_a_family_of_another_architecture_is_refused_by_its_name(family: str, tmp_path: Path) -> None:
    laid(tmp_path / "other")
    ((name, fields),) = OTHERS[family].items()
    config = json.loads((tmp_path / "other/config.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "other/config.json", config | fields)
    with pytest.raises(CheckpointError, match=naming("config.json", *dict.fromkeys([*fields, name]))):
        minisbert.load(tmp_path / "other")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_family_loads_as_sentence_transformers_saves_it_today(model_type: str, tmp_path: Path, dtype: torch.dtype) -> None:
    prompts = {"query": "a man "}
    written(
        tmp_path / "one", ("cls", "mean"), [Normalize()], bert={"model_type": model_type}, prompts=prompts, include_prompt=False
    )
    loaded = Loaded(tmp_path / "one", reference(tmp_path / "one", dtype), dtype)
    encoder = loaded.encoder
    for prompt in "", "a man ", "the cat <pad> ":
        ours = encoder.encode(TEXTS, on_truncate="ignore", prompt=prompt)
        close(f"vectors, {prompt}", ours, loaded.theirs(TEXTS, prompt=prompt), TINY[dtype].vectors)
    assert encoder.max_seq_length == loaded.reference.max_seq_length == 40


def test_the_other_vectors_of_bge_m3_are_named_and_not_used(tmp_path: Path) -> None:
    laid(tmp_path / "m3", ["cls"], NORMALIZE, bert={"model_type": "xlm-roberta"})
    for file in "sparse_linear.pt", "colbert_linear.pt":
        torch.save({"weight": torch.ones(1, HIDDEN)}, tmp_path / "m3" / file)
    with pytest.warns(minisbert.MinisbertWarning, match=naming("sparse_linear.pt, colbert_linear.pt")) as caught:
        encoder = minisbert.load(tmp_path / "m3")
    assert len(caught) == 1
    assert not {"sparse_linear.pt", "colbert_linear.pt"} & {file.name for file in encoder.info().files}
