"""Records what happens to a sentence inside the model, with forward hooks.

`SentenceEncoder.encode` runs as usual, while forward hooks record the outputs of the model's modules. `bert.py` contains no code
for this. Attention weights, which no module returns, are computed from the queries and keys of `attention.qkv`. So the recorded
values are those of `encode`, to the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.bert import Bert, LengthGroup
from minisbert.encoder import SentenceEncoder
from minisbert.inference.batching import pack
from minisbert.inference.engine import compute, count_prompt_tokens, finish, same_on_all_cores
from minisbert.inference.inputs import check_text
from minisbert.inference.threads import computing, workers
from minisbert.pooling import kept_tokens, token_weights

NEIGHBOURS = 5
"""The number of texts of a corpus that are kept for each layer."""


class Neighbours(NamedTuple):
    """The texts of the corpus that are closest after each layer, closest first; k is 5, or less for a smaller corpus.

    The sentence itself and blank texts are left out.

    Attributes:
        indices: [layers + 1, k], which texts of the corpus.
        cosines: [layers + 1, k], how close.
    """

    indices: Tensor
    cosines: Tensor


@dataclass(frozen=True, eq=False)
class SentenceTrace:
    """What happened to one sentence. Tensors are on the CPU, in the encoder's dtype unless said otherwise.

    Attributes:
        text: the sentence; it begins with the encoder's default prompt, if it has one.
        prompt: that prompt; "" for none.
        tokens: its word pieces, special tokens included: a list of str.
        ids: [tokens], int64, their ids in the vocabulary.
        offsets: [tokens, 2], int64, where each begins and ends in `text`; a special token is empty.
        word_of: [tokens], int64, the number of the word that each is a piece of; -1 for a special token.
        cut: the word pieces beyond the encoder's limit, which the model never saw: a list of str.
        cut_offsets: [cut, 2], int64, where they are in `text`.
        word: [tokens, hidden], each token's vector from the table of words.
        position: [tokens, hidden], from the table of positions.
        token_type: [tokens, hidden], from the table of segments; None if the model has none.
        embedded: [tokens, hidden], the normalized sum of these; it is `hidden[0]`.
        hidden: [layers + 1, tokens, hidden], the embeddings and the output of every layer.
        query: [layers, heads, tokens, head_dim], what each token looks for.
        key: [layers, heads, tokens, head_dim], what each token is found by.
        attention_bias: [heads, tokens, tokens], what every layer adds to the scores of attention for the distance of two tokens;
            None if the model has no such bias.
        attention: [layers, heads, tokens, tokens], the weight with which the token of a row attends to that of a column; rows sum
            to 1.
        attention_out: [layers, tokens, hidden], what attention adds to a token's vector.
        after_attention: [layers, tokens, hidden], the normalized sum of the layer's input and `attention_out`.
        feed_forward_out: [layers, tokens, hidden], what the feed-forward step adds to that.
        pooling_weights: [tokens], each token's weight in the sentence vector; they sum to 1. With max pooling it is the fraction of
            dimensions whose value comes from the token; with several modes, their average.
        layer_vectors: [layers + 1, dim], the sentence vector if the model ended after the embeddings, or after that layer: its
            `hidden`, pooled, with the post-pooling modules applied. The last one equals `embedding` up to rounding. Both are in
            the encoder's `vector_dtype`.
        embedding: [dim], what `encode` gives for the text, bit for bit.
        neighbours: the closest texts of the corpus at each layer; None without a corpus.
    """

    text: str
    prompt: str
    tokens: list[str]
    ids: Tensor
    offsets: Tensor
    word_of: Tensor
    cut: list[str]
    cut_offsets: Tensor
    word: Tensor
    position: Tensor
    token_type: Tensor | None
    embedded: Tensor
    hidden: Tensor
    query: Tensor
    key: Tensor
    attention_bias: Tensor | None
    attention: Tensor
    attention_out: Tensor
    after_attention: Tensor
    feed_forward_out: Tensor
    pooling_weights: Tensor
    layer_vectors: Tensor
    embedding: Tensor
    neighbours: Neighbours | None = None

    def __repr__(self) -> str:
        layers, heads, tokens, _ = self.attention.shape
        return f"SentenceTrace({self.text!r}: {tokens} tokens, {layers} layers, {heads} heads, {len(self.embedding)} dimensions)"


def corpus_texts(corpus: object) -> list[str]:
    """The texts of the corpus, checked."""
    if corpus is None:
        return []
    if not isinstance(corpus, Sequence) or isinstance(corpus, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"corpus: found {type(corpus).__name__}, expected a sequence of str such as a list.")
    texts = [check_text(text, f"corpus[{index}]") for index, text in enumerate(corpus)]
    if not any(text.strip() for text in texts):
        raise ValueError("corpus: found no text, expected at least one.")
    return texts


def trace_sentence(encoder: SentenceEncoder, text: str) -> SentenceTrace:
    """Encodes one text, and records the outputs of every part of the model."""
    bert, wordpiece = encoder.bert, encoder.tokenizer
    names = ["embeddings.word", "embeddings.position", "embeddings"]
    names += ["embeddings.token_type"] if bert.embeddings.token_type is not None else []
    parts = ("attention.qkv", "attention", "attention_norm", "feed_forward")
    for number in range(len(bert.layers)):
        names += [f"layers.{number}", *(f"layers.{number}.{part}" for part in parts)]

    def encode() -> tuple[Tensor, dict[str, list[Tensor]]]:
        with _noted(bert, [*names, *(["relative_bias"] if bert.relative_bias is not None else [])]) as noted:
            return encoder.encode(text, on_truncate="ignore", show_progress_bar=False), noted

    # If one core and all cores round differently, `encode` lets a worker compute the batch. So a worker calls `encode` here,
    # because hooks record one thread only.
    threads = torch.get_num_threads()
    by_worker = encoder.device.type == "cpu" and threads > 1 and not same_on_all_cores(encoder.bert)
    embedding, noted = workers(threads).call(encode) if by_worker else encode()  # [dim]
    prompt = _prompt(encoder)
    prompt_tokens = count_prompt_tokens(encoder.tokenizer, encoder.pooling, prompt)
    text = prompt + text

    with computing():
        (ids,) = wordpiece([text]).ids
        encoding = wordpiece.tokenizer.encode(text, add_special_tokens=False)
    tokens = len(ids)
    if [len(noted[name]) for name in names] != [1] * len(names):
        raise RuntimeError("trace: the model did not run once, and in this thread, for this sentence; expected that of encode.")

    def seen(name: str) -> Tensor:
        # The rows of this sentence, without the padding tokens of the batch; cloned, because they were made in inference mode.
        return noted[name][0][:tokens].clone()

    def stack(part: str) -> Tensor:
        return torch.stack([seen(f"layers.{number}{part}") for number in range(len(bert.layers))])

    embedded = seen("embeddings")  # [tokens, hidden]
    hidden = torch.stack([embedded, *stack("")])  # [layers + 1, tokens, hidden]
    heads, head_dim = bert.config.num_attention_heads, bert.config.head_dim
    qkv = stack(".attention.qkv").view(-1, tokens, 3, heads, head_dim)
    query, key = qkv.permute(2, 0, 3, 1, 4)[:2]  # both [layers, heads, tokens, head_dim]
    bias = noted["relative_bias"][0][0].clone() if "relative_bias" in noted else None  # [heads, tokens, tokens]; the first group's

    before, after = len(wordpiece.prefix), len(wordpiece.suffix)
    kept = tokens - before - after
    start = 0 if wordpiece.truncation_side == "right" else len(encoding.ids) - kept
    inside = slice(start, start + kept)
    spans = encoding.offsets[inside]
    first, last = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    return SentenceTrace(
        text=text,
        prompt=prompt,
        tokens=[str(wordpiece.tokenizer.id_to_token(number)) for number in ids],
        ids=torch.tensor(ids),
        offsets=torch.tensor([(first, first)] * before + spans + [(last, last)] * after).view(-1, 2),
        word_of=torch.tensor([-1] * before + [-1 if word is None else word for word in encoding.word_ids[inside]] + [-1] * after),
        cut=encoding.tokens[: inside.start] + encoding.tokens[inside.stop :],
        cut_offsets=torch.tensor(encoding.offsets[: inside.start] + encoding.offsets[inside.stop :], dtype=torch.int64).view(-1, 2),
        word=seen("embeddings.word"),
        position=seen("embeddings.position"),
        token_type=seen("embeddings.token_type") if "embeddings.token_type" in noted else None,
        embedded=embedded,
        hidden=hidden,
        query=query.contiguous(),
        key=key.contiguous(),
        attention_bias=bias,
        attention=attention_weights(query, key, bias),
        attention_out=stack(".attention"),
        after_attention=stack(".attention_norm"),
        feed_forward_out=stack(".feed_forward"),
        pooling_weights=_pooling_weights(encoder, hidden[-1], prompt_tokens),
        layer_vectors=_ending(encoder, hidden.flatten(0, 1), [(len(hidden), tokens)], prompt_tokens),
        embedding=embedding,
    )


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √head_dim + bias): the weights of the values, which `bert.attend` does not return.

    Two [layers, heads, tokens, head_dim], [heads, tokens, tokens] → [layers, heads, tokens, tokens]
    Vaswani et al. 2017, equation 1
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # [layers, heads, tokens, tokens]
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def _prompt(encoder: SentenceEncoder) -> str:
    """The default prompt, which `encode` puts before each text."""
    return encoder.prompts.get(encoder.default_prompt_name or "", "")


def _pooling_weights(encoder: SentenceEncoder, vectors: Tensor, prompt_tokens: int) -> Tensor:
    """[tokens, hidden] → [tokens], each token's weight in the sentence vector; the weights sum to 1."""
    ones = vectors.new_ones(1, len(vectors))
    modes = []
    for mode in encoder.pooling.modes:
        if mode == "max":
            kept = kept_tokens(ones, prompt_tokens)[0]
            weights = vectors.masked_fill(kept[:, None] == 0, -torch.inf).argmax(dim=0).bincount(minlength=len(vectors)) * kept
        else:
            weights = token_weights(mode, ones, prompt_tokens)[0]
        modes.append(weights / weights.sum() if weights.any() else weights)
    return torch.stack(modes).mean(dim=0)


def _ending(encoder: SentenceEncoder, vectors: Tensor, groups: Sequence[LengthGroup], prompt_tokens: int) -> Tensor:
    """[tokens, hidden] → [sentences, dim]: pooling and post-pooling modules, as in `encode`."""
    with torch.no_grad():
        vectors = vectors.to(encoder.device, encoder.vector_dtype)
        return finish(encoder.modules, encoder.pooling(vectors, groups, prompt_tokens), encoder.truncate_dim).cpu()


def layer_neighbours(encoder: SentenceEncoder, sentences: list[SentenceTrace], corpus: list[str]) -> list[Neighbours]:
    """The closest texts to each sentence after each layer, without blank texts and the sentence itself."""
    prompt = _prompt(encoder)
    prompt_tokens = count_prompt_tokens(encoder.tokenizer, encoder.pooling, prompt)
    texts = {index: prompt + text for index, text in enumerate(corpus) if text.strip()}
    with computing():
        ids = encoder.tokenizer([*texts.values()]).ids
    names = ["embeddings", *(f"layers.{number}" for number in range(len(encoder.bert.layers)))]

    def forward(packed: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        with _noted(encoder.bert, names) as noted:
            encoder.bert.forward_packed(packed, groups)
        theirs = torch.stack(
            [_ending(encoder, noted[name][0], groups, prompt_tokens) for name in names], dim=1
        )  # [sentences, layers + 1, dim]
        return torch.cat([F.cosine_similarity(one.layer_vectors, theirs, dim=2) for one in sentences], dim=1)

    cosines = torch.empty(len(texts), len(sentences) * len(names), dtype=encoder.vector_dtype)
    batches = pack([len(one) for one in ids], encoder.device)
    for _ in compute(forward, ids, batches, cosines, encoder.device):
        pass
    found = []
    for one, each in zip(sentences, cosines.chunk(len(sentences), dim=1), strict=True):  # [texts, layers + 1]
        others = torch.tensor(
            [row for row, text in enumerate(texts.values()) if text.strip() != one.text.strip()], dtype=torch.int64
        )
        closest = each[others].T.topk(min(NEIGHBOURS, len(others)), dim=1)
        indices = torch.tensor([*texts], dtype=torch.int64)[others][closest.indices]
        found.append(Neighbours(indices, closest.values))
    return found


@contextmanager
def _noted(bert: Bert, names: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Records the outputs of these modules of the model, in this thread, until the context ends.

    Other threads may use the model meanwhile; their outputs are not recorded, and hooks change nothing. The records are copies on
    the CPU, because the model may overwrite its own tensors.
    """
    noted: dict[str, list[Tensor]] = {name: [] for name in names}
    thread = threading.get_ident()

    def hook_for(name: str) -> object:
        def note(_module: nn.Module, _arguments: tuple[object, ...], output: Tensor) -> None:
            if threading.get_ident() == thread:
                noted[name].append(output.detach().clone().cpu())

        return note

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(bert.get_submodule(name).register_forward_hook(hook_for(name)).remove)  # type: ignore[arg-type]
        yield noted
