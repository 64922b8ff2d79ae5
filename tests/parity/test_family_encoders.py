"""One whole small checkpoint of each family through everything that an encoder does: saving, tracing, bits, threads, precision."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checkpoints import FAMILIES, OFFSETS, save_tiny, write_modules
from messages import naming
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer

import minisbert
from minisbert import MinisbertWarning, SentenceEncoder
from parity.compare import TINY, close
from parity.test_layouts import TEXTS

# Besides the families: BERT with XLM-R's tokenizer, as paraphrase-multilingual-MiniLM-L12-v2 has it.
ALL = {family: {"model_type": family} for family in FAMILIES} | {"bert with Unigram": {"tokenizer": "xlm-roberta"}}
EXTRA = [*TEXTS, "<pad> the <pad> cat", "男は 食べ物 🙂 ﬁne ①", "a  man\tis\neating"]
LIMIT = 150


class Saved(NamedTuple):
    folder: Path
    encoder: SentenceEncoder


@pytest.fixture(scope="module", params=ALL)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A checkpoint of sentences of up to 150 tokens: MPNet's last bucket begins at 128."""
    folder = tmp_path_factory.mktemp("family")
    model_type = ALL[request.param].get("model_type", "bert")
    save_tiny(folder, **ALL[request.param], max_position_embeddings=LIMIT + OFFSETS.get(model_type, 0))
    write_modules(folder, 32, max_seq_length=LIMIT)
    return Saved(folder, minisbert.load(folder, device="cpu"))


def sentences() -> list[str]:
    """Of every number of tokens, and many of each."""
    words = ["man", "food", "cat", "dog", "red", "blue", "meal", "water", "🙂", "été"]
    return [" ".join(words[(i + j) % 10] for j in range(1 + i * i // 40)) for i in range(90)]


def test_a_saved_family_loads_with_the_same_vectors_everywhere(saved: Saved, tmp_path: Path) -> None:
    saved.encoder.save(tmp_path / "again")
    again = minisbert.load(tmp_path / "again", device="cpu")
    assert torch.equal(again.encode(EXTRA), saved.encoder.encode(EXTRA))
    assert again.bert.config == saved.encoder.bert.config
    theirs = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    close("vectors", again.encode(EXTRA), theirs.encode(EXTRA, convert_to_tensor=True), TINY[torch.float32].vectors)
    assert load_file(tmp_path / "again/model.safetensors").keys() == load_file(saved.folder / "model.safetensors").keys()
    before, after = (AutoConfig.from_pretrained(folder).to_dict() for folder in (saved.folder, tmp_path / "again"))
    before.pop("tokenizer_class", None)
    differ = {name for name in before if before[name] != after.get(name)}
    assert differ <= {"_name_or_path", "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}, differ
    ids = AutoTokenizer.from_pretrained(tmp_path / "again")(EXTRA)["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(saved.folder)(EXTRA)["input_ids"]


def test_a_vector_depends_on_its_text_alone(saved: Saved) -> None:
    """The same bits in any batch, in any order, on one core and on two, in a stream, and after a pickle."""
    texts = sentences()
    for dtype in torch.float32, torch.float64:
        encoder = minisbert.load(saved.folder, device="cpu", dtype=dtype)
        encode = partial(encoder.encode, on_truncate="ignore")
        together = encode(texts)
        assert torch.equal(encode(texts[::-1]).flip(0), together)
        assert torch.equal(encode(texts, batch_size=7), together)
        alone = torch.stack([encode(text) for text in texts[::9]])
        assert torch.equal(alone, together[::9])
        assert torch.equal(torch.cat([*encoder.encode_stream(iter(texts), window=30, on_truncate="ignore")]), together)
        assert torch.equal(pickle.loads(pickle.dumps(encoder)).encode(texts[:5]), together[:5])  # noqa: S301


def test_the_limit_is_the_positions_less_the_offset(saved: Saved) -> None:
    long = "the red cat " * 200
    with pytest.warns(MinisbertWarning, match=naming("150 tokens")):
        assert saved.encoder.encode(long).isfinite().all()
    with pytest.raises(ValueError, match=naming("max_seq_length", LIMIT + 1, 3, LIMIT)):
        saved.encoder.max_seq_length = LIMIT + 1
    ids = torch.full((1, LIMIT + 1), 5)
    with pytest.raises(ValueError, match=naming("input_ids", [1, LIMIT + 1], f"length ≤ {LIMIT}")):
        saved.encoder.bert(ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(saved: Saved, dtype: torch.dtype) -> None:
    half = minisbert.load(saved.folder, device="cpu", dtype=dtype)
    ours, whole = half.encode(EXTRA), saved.encoder.encode(EXTRA)
    assert torch.cosine_similarity(ours.float(), whole).min() > 0.99


def test_a_trace_has_the_values_of_transformers_and_says_what_differs_from_bert(saved: Saved) -> None:
    encoder = minisbert.load(saved.folder, device="cpu", dtype=torch.float64)
    model = AutoModel.from_pretrained(saved.folder, dtype=torch.float64, attn_implementation="eager")
    for text in EXTRA[0], "the red cat " * 45:
        one = minisbert.trace(text, model=encoder).a
        with torch.inference_mode():
            expected = model(one.ids[None], output_hidden_states=True, output_attentions=True)
        close("hidden", one.hidden, torch.cat(expected.hidden_states), 1e-12)
        close("attention", one.attention, torch.cat(expected.attentions), 1e-12)
        assert torch.equal(one.embedding, encoder.encode(text))
        covered = {place for start, stop in one.offsets.tolist() for place in range(start, stop)}
        assert {place for place, letter in enumerate(text) if not letter.isspace()} <= covered
    config = encoder.bert.config
    assert (one.token_type is None) == (config.type_vocab_size == 0)
    assert (one.attention_bias is None) == (config.model_type != "mpnet")
    if one.attention_bias is not None:
        bias = model.encoder.compute_position_bias(torch.zeros(1, len(one.ids), 1))
        close("bias", one.attention_bias, bias[0].detach(), 0)
    page = minisbert.trace(EXTRA[1], EXTRA[2], model=encoder).html()
    for words, there in (
        ("positions from 2", config.position_offset == 2),
        ("no segments", config.type_vocab_size == 0),
        ("A bias for the distance", config.model_type == "mpnet"),
        ("a third for its segment", config.type_vocab_size > 0),
        ("begins with ##", type(encoder.tokenizer.tokenizer.model).__name__ == "WordPiece"),
    ):
        assert (words in page) == there, words


def test_info_names_the_family_and_what_it_fixes(saved: Saved) -> None:
    settings = {setting.name: (setting.value, setting.source) for setting in saved.encoder.info().settings}
    config = saved.encoder.bert.config
    assert settings["model_type"] == (config.model_type, "config.json")
    if config.model_type in ("mpnet", "distilbert"):
        assert settings["type_vocab_size"] == (0, f"every {'MPNet' if config.model_type == 'mpnet' else 'DistilBERT'}")
    if config.model_type == "roberta":
        assert settings["position_offset"] == (2, "config.json")
    assert len(str(saved.encoder.info())) < 20_000
    json.dumps(saved.encoder.info().to_dict())


def test_mean_pooling_over_the_padded_model_gives_the_vectors(saved: Saved) -> None:
    """As model cards do it: ids by the tokenizer, padded, through `encoder.bert`, and averaged."""
    encoder = minisbert.load(saved.folder, device="cpu", dtype=torch.float64)
    tokenizer: Any = AutoTokenizer.from_pretrained(saved.folder)
    batch = tokenizer(EXTRA, padding=True, return_tensors="pt")
    states = encoder.bert(batch["input_ids"], batch["attention_mask"])
    close("vectors", minisbert.mean_pooling(states, batch["attention_mask"]), encoder.encode(EXTRA), 1e-12)


def test_mpnet_gives_the_same_bits_alone_on_two_cores_and_in_batches_on_one_each(tmp_path: Path) -> None:
    """With heads as wide as in published models, one text is computed on all cores, bias included."""
    save_tiny(tmp_path, model_type="mpnet", hidden_size=128, intermediate_size=256, max_position_embeddings=LIMIT + 2)
    write_modules(tmp_path, 128, max_seq_length=LIMIT)
    encoder = minisbert.load(tmp_path, device="cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = encoder.encode(sentences(), on_truncate="ignore")
        for index in range(0, 90, 6):
            assert torch.equal(encoder.encode(sentences()[index], on_truncate="ignore"), together[index]), index
    finally:
        torch.set_num_threads(threads)
