"""The rungs of the ladder: for each step its cases, what is right, and the usual mistakes.

What is right always comes from minisbert, with the weights of the real checkpoint, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import mistakes
import torch
from torch import Tensor
from torch.nn import functional as F

import minisbert
from minisbert.bert import Layer, attend
from minisbert.checkpoint.families import to_hub_names
from minisbert.train import MultipleNegativesRankingLoss, SoftmaxLoss

MODEL = "all-MiniLM-L6-v2"
SENTENCES = ("A man is eating food.", "Someone is having a meal.", "The pangolin's embeddings: unforgettable!")


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    Attributes:
        about: what the function is tried on, in words.
        arguments: what the function is given.
        expected: what it should return.
        tokens: the tokens along the axis "token" or "row": of the sentence, or of each sentence of a batch.
        keep: [...] of bool, which of the values are compared; None: all.
    """

    about: str
    arguments: tuple[Any, ...]
    expected: Any
    tokens: Sequence[Any] = ()
    keep: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """A rung.

    Attributes:
        number: its place on the ladder.
        name: in the names of its files, and for `check.py`.
        function: what the learner writes.
        axes: the names of the result's axes.
        cases: makes the cases; it needs the checkpoint.
        plain: the same function in mistakes.py, which takes as `wrong` a set of names of mistakes.
        also: usual mistakes of other steps that can be made here, too.
    """

    number: int
    name: str
    function: str
    axes: tuple[str, ...]
    cases: Callable[[], list[Case]]
    plain: Callable[..., Any]
    also: tuple[str, ...] = ()

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The names of the usual ones; where two give the same values, the likelier first."""
        return (*mistakes.HINTS[self.name], *self.also)

    @property
    def file(self) -> str:
        """The name of its text and stub, without the ending."""
        return f"step{self.number:02}_{self.name}"


# --- the real thing -----------------------------------------------------------------------------------------------------------


@cache
def encoder() -> minisbert.SentenceEncoder:
    """The real checkpoint, in float64, so that a difference is a mistake and not rounding."""
    return minisbert.load(MODEL, device="cpu", dtype=torch.float64)


@cache
def weights() -> dict[str, Tensor]:
    """Its tensors under their names in model.safetensors."""
    return to_hub_names(encoder().bert)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def config() -> dict[str, Any]:
    """The fields of config.json."""
    return dict(vars(encoder().bert.config))


def words(text: str) -> list[str]:
    """Lower case, without accents, cut at blanks and punctuation: the input of WordPiece."""
    tokenizer = encoder().tokenizer.tokenizer
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def names_of(ids: Sequence[int]) -> list[str]:
    """The word pieces with these ids."""
    return [encoder().tokenizer.tokenizer.id_to_token(token_id) for token_id in ids]


def states_of(ids: Tensor, types: Tensor) -> Tensor:
    """ids, types [length] → what the embeddings and then every layer give: [layers + 1, length, hidden]."""
    model = encoder().bert
    states = [model.embeddings(ids, torch.arange(len(ids)), types)]
    for layer in model.layers:
        states.append(layer(states[-1], [(1, len(ids))], [None]))
    return torch.stack(states)


@cache
def sentence(index: int) -> tuple[list[str], Tensor, Tensor]:
    """One of `SENTENCES`: its tokens, its ids [length], and its states [layers + 1, length, hidden]."""
    (ids,) = encoder().tokenizer([SENTENCES[index]]).ids
    with torch.inference_mode():
        return names_of(ids), torch.tensor(ids), states_of(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.long))


def at(*places: tuple[int, int]) -> Iterator[tuple[str, list[str], Tensor, Layer, dict[str, Tensor]]]:
    """For a sentence and a layer: a description, the tokens, what comes into the layer, the layer, its weights."""
    for index, number in places:
        tokens, _, states = sentence(index)
        own = below(weights(), f"encoder.layer.{number}.")
        yield f"{SENTENCES[index]!r}, layer {number + 1}", tokens, states[number], encoder().bert.layers[number], own


def query_key_value(index: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one of `SENTENCES`, each [heads, length, head_dim]."""
    states = sentence(index)[2]
    attention = encoder().bert.layers[layer].attention
    parts = attention.qkv(states[layer]).unflatten(-1, (3, attention.heads, -1))  # [length, 3, heads, head_dim]
    query, key, value = parts.permute(1, 2, 0, 3).contiguous()
    return query, key, value


def batch() -> tuple[Tensor, Tensor, list[list[str]]]:
    """All of `SENTENCES`, padded: ids and mask, both [batch, length], and the tokens of each."""
    ids = encoder().tokenizer(list(SENTENCES)).ids
    length = max(map(len, ids))
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return padded, mask, [names_of(row) for row in padded.tolist()]


# --- the cases ----------------------------------------------------------------------------------------------------------------


def word_cases() -> list[Case]:
    """Words in one piece and in several, one with a character that no piece has, and one above the limit."""
    tokenizer = encoder().tokenizer.tokenizer
    vocab, model = tokenizer.get_vocab(), tokenizer.model
    chosen = ["cat", "embeddings", "unforgettable", "pangolin", "transformerlike", "i", "café", "snow\u2603man"]
    abouts = {word: repr(word) for word in chosen} | {"a" * n: f"'aaa…, {n} letters'" for n in (100, 101)}
    return [Case(about, (word, vocab), [token.value for token in model.tokenize(word)]) for word, about in abouts.items()]


def id_cases() -> list[Case]:
    """Sentences, and a text without words."""
    wordpiece = encoder().tokenizer
    vocab = wordpiece.tokenizer.get_vocab()
    return [Case(repr(text), (words(text), vocab), wordpiece([text]).ids[0]) for text in (*SENTENCES, "")]


def embedding_cases() -> list[Case]:
    """The three sentences. The expected sum is the input of minisbert's layer norm."""
    module = encoder().bert.embeddings
    tables = (module.word.weight, module.position.weight, module.token_type.weight)
    cases = []
    for index, text in enumerate(SENTENCES):
        tokens, ids, _ = sentence(index)
        seen: list[Tensor] = []
        hook = module.norm.register_forward_pre_hook(lambda _module, arguments, seen=seen: seen.append(arguments[0].clone()))
        module(ids, torch.arange(len(ids)), torch.zeros_like(ids))
        hook.remove()
        cases.append(Case(repr(text), (ids, *tables), seen[0], tokens))
    return cases


def norm_cases() -> list[Case]:
    """The hidden states of a sentence, with the checkpoint's eps and with larger ones, whose place in the formula shows."""
    tokens, _, states = sentence(2)
    module = encoder().bert.layers[0].attention_norm
    weight, bias = module.weight, module.bias
    return [
        Case(f"{SENTENCES[2]!r}, {about}", (x, weight, bias, eps), F.layer_norm(x, (x.shape[-1],), weight, bias, eps), tokens)
        for about, x, eps in (
            ("the checkpoint's own eps", states[3] * 3 + 1, 1e-12),
            ("eps = 1e-5", states[0] / 100, 1e-5),
            ("eps = 0.1, so that it cannot hide", states[0], 0.1),
        )
    ]


def gelu_cases() -> list[Case]:
    """Some values, and what the feed-forward step of the first layer has inside."""
    tokens, _, states = sentence(0)
    step = encoder().bert.layers[0].feed_forward
    real = step.up(states[0])
    plain = torch.tensor([[-3.0, -2.0, -1.0, -0.5], [0.0, 0.5, 1.0, 3.0]], dtype=torch.float64)
    return [
        Case(f"x = {plain.tolist()}", (plain,), step.activation(plain)),
        Case(f"{SENTENCES[0]!r}, inside the first layer", (real,), step.activation(real), tokens),
    ]


def attention_cases() -> list[Case]:
    """One head at a time."""
    cases = []
    for index, number, head in (0, 0, 0), (1, 2, 5), (2, 5, 11):
        q, k, v = (part[head] for part in query_key_value(index, number))
        about = f"{SENTENCES[index]!r}, layer {number + 1}, head {head + 1}"
        cases.append(Case(about, (q, k, v), attend(q[None, None], k[None, None], v[None, None])[0, 0], sentence(index)[0]))
    return cases


def head_cases() -> list[Case]:
    """The self-attention of two layers."""
    return [
        Case(about, (x, below(w, "attention."), layer.attention.heads), layer.attention(x, [(1, len(x))], [None]), tokens)
        for about, tokens, x, layer, w in at((0, 0), (2, 3))
    ]


def feed_forward_cases() -> list[Case]:
    """The feed-forward step of two layers."""
    names = ("intermediate.", "output.dense.")
    return [
        Case(about, (x, {n: v for n, v in w.items() if n.startswith(names)}), layer.feed_forward(x), tokens)
        for about, tokens, x, layer, w in at((0, 0), (1, 4))
    ]


def layer_cases() -> list[Case]:
    """Two whole layers."""
    settings = config()["num_attention_heads"], config()["layer_norm_eps"]
    return [
        Case(about, (x, w, *settings), layer(x, [(1, len(x))], [None]), tokens) for about, tokens, x, layer, w in at((0, 0), (2, 5))
    ]


def stack_cases() -> list[Case]:
    """From ids to all hidden states, one sentence at a time."""
    parts = [(SENTENCES[index], *sentence(index)) for index in (0, 2)]
    return [Case(repr(text), (ids, weights(), config()), states, tokens) for text, tokens, ids, states in parts]


def mask_cases() -> list[Case]:
    """Two sentences of different length in one batch; only the rows of real tokens are compared."""
    parts = [query_key_value(index, 1) for index in (0, 2)]
    length = max(part[0].shape[1] for part in parts)
    # In a real batch, the states of the padding are not zero either.
    q, k, v = (torch.stack([F.pad(part[i], (0, 0, 0, length - part[i].shape[1]), value=0.5) for part in parts]) for i in range(3))
    mask = torch.tensor([[1] * part[0].shape[1] + [0] * (length - part[0].shape[1]) for part in parts])
    expected = torch.zeros_like(q)
    for row, part in enumerate(parts):
        expected[row, :, : part[0].shape[1]] = attend(*(tensor[None] for tensor in part))[0]
    tokens = [sentence(index)[0] + ["[PAD]"] * (length - len(sentence(index)[0])) for index in (0, 2)]
    keep = (mask != 0)[:, None, :, None].expand_as(q)
    return [Case("two sentences of different length, layer 2", (q, k, v, mask), expected, tokens, keep)]


def pooling_cases() -> list[Case]:
    """The three sentences, padded at the end and at the front, with arbitrary values in the padding."""
    ids, mask, _ = batch()
    vectors = encoder().bert(ids, mask) + (mask == 0)[..., None] * 7.0
    expected = minisbert.mean_pooling(vectors, mask)
    return [
        Case("three sentences, padded at the end", (vectors, mask), expected),
        Case("the same, padded at the front", (vectors.flip(1), mask.flip(1)), expected),
    ]


def cosine_cases() -> list[Case]:
    """Two sentences against three, with vectors whose length is not 1."""
    ids, mask, _ = batch()
    vectors = minisbert.mean_pooling(encoder().bert(ids, mask), mask)
    a, b = vectors[:2] * 3, vectors
    expected = torch.stack([F.cosine_similarity(row, b) for row in a])
    return [Case("two sentences against three", (a, b), expected)]


def whole_cases() -> list[Case]:
    """A padded batch; once with two segments, as in BERT's pre-training."""
    ids, mask, tokens = batch()
    cases = []
    for about, types in (
        ("three sentences, padded", torch.zeros_like(ids)),
        ("the same, the second half of each as a second segment", (torch.arange(ids.shape[1]) >= 5).long().expand_as(ids)),
    ):
        states = [states_of(ids[row, :n], types[row, :n]) for row, n in enumerate(mask.sum(1).tolist())]
        padded = [F.pad(one, (0, 0, 0, ids.shape[1] - one.shape[1])) for one in states]
        expected = torch.stack(padded, dim=1)  # [layers + 1, batch, length, hidden]
        keep = (mask != 0)[None, :, :, None].expand_as(expected)
        cases.append(Case(about, (weights(), config(), ids, mask, types), expected, tokens, keep))
    return cases


def packing_cases() -> list[Case]:
    """All sentences end to end, in two orders; each sentence by itself gives what is right."""
    cases = []
    for about, order in ("three sentences, layer 2", (0, 1, 2)), ("the same in another order", (2, 0, 1)):
        parts = [query_key_value(index, 1) for index in order]
        expected = torch.cat([attend(*(part[None] for part in each))[0] for each in parts], dim=1)
        query, key, value = (torch.cat([each[place] for each in parts], dim=1) for place in range(3))
        tokens = [token for index in order for token in sentence(index)[0]]
        cases.append(Case(about, (query, key, value, [each[0].shape[1] for each in parts]), expected, tokens))
    return cases


def sentence_vectors() -> Tensor:
    """The mean of the token vectors of each sentence, [3, dim]; their lengths are not 1."""
    return torch.stack([sentence(index)[2][-1].mean(dim=0) for index in range(3)])


def softmax_loss_cases() -> list[Case]:
    """Three pairs of sentences with three classes and a classifier with random weights."""
    u = sentence_vectors()
    v = u.roll(1, dims=0)
    labels = torch.tensor([0, 2, 1])
    loss = SoftmaxLoss(u.shape[1], 3).to(u.dtype)
    expected = torch.stack([loss([u[row : row + 1], v[row : row + 1]], labels[row : row + 1]) for row in range(len(u))])
    weight, bias = loss.classifier.weight, loss.classifier.bias
    return [Case("three pairs, three classes", (u, v, labels, weight, bias), expected)]


def negatives_cases() -> list[Case]:
    """Three rows that are like their own answers, with two scales."""
    a = sentence_vectors() / 8  # dot products that do not drown the softmax
    b = a * 2 + 0.5 * a.roll(1, dims=0)
    cases = []
    for scale in (20.0, 3.0):
        loss = MultipleNegativesRankingLoss(scale)
        # A row by itself: its own answer is the second column, and all others are hard negatives.
        rows = [[a[i : i + 1], b[i : i + 1], *(b[j : j + 1] for j in range(len(b)) if j != i)] for i in range(len(a))]
        cases.append(Case(f"three rows, scale {scale:g}", (a, b, scale), torch.stack([loss(row) for row in rows])))
    return cases


def search_cases() -> list[Case]:
    """Vectors of different lengths, so that cosine and dot product differ; once with fewer rows than asked for."""
    corpus = torch.cat([sentence(index)[2][-1] for index in range(3)])
    corpus = corpus * torch.linspace(0.2, 3, len(corpus), dtype=corpus.dtype)[:, None]
    query = sentence_vectors()[1]
    cases = []
    for about, rows, top_k in ("five of all tokens", corpus, 5), ("five of three", corpus[:3], 5):
        (hits,) = minisbert.semantic_search(query[None], rows, top_k=top_k)
        cases.append(Case(about, (query, rows, top_k), [hit["corpus_id"] for hit in hits]))
    return cases


# --- the ladder ---------------------------------------------------------------------------------------------------------------

VIEW = ("view", "join", "view/and back")
ROWS, TOKENS = ("row", "column"), ("token", "dimension")
STEPS: tuple[Step, ...] = (
    Step(1, "wordpiece", "split_word", (), word_cases, mistakes.split_word),
    Step(2, "ids", "to_ids", (), id_cases, mistakes.to_ids),
    Step(3, "embeddings", "embed", TOKENS, embedding_cases, mistakes.embed),
    Step(4, "layer_norm", "layer_norm", TOKENS, norm_cases, mistakes.norm),
    Step(5, "gelu", "gelu", ROWS, gelu_cases, mistakes.gelu),
    Step(6, "attention", "attention", TOKENS, attention_cases, mistakes.attention),
    Step(7, "heads", "multi_head", TOKENS, head_cases, mistakes.multi_head, ("no root", "softmax axis", "swapped")),
    Step(8, "feed_forward", "feed_forward", TOKENS, feed_forward_cases, mistakes.feed_forward, ("tanh", "relu", "residual")),
    Step(9, "layer", "layer", TOKENS, layer_cases, mistakes.layer, ("tanh", *VIEW, "no root")),
    Step(
        10, "stack", "bert", ("state", *TOKENS), stack_cases, mistakes.bert,
        ("positions from 1", "no positions", "no token type", "pre-norm", "tanh", *VIEW, "eps 1e-5"),
    ),
    Step(
        11, "mask", "masked_attention", ("sentence", "head", *TOKENS), mask_cases, mistakes.attention, ("no root", "softmax axis")
    ),
    Step(12, "mean_pooling", "mean_pooling", ("sentence", "dimension"), pooling_cases, mistakes.mean_pooling),
    Step(13, "cosine", "cosine", ROWS, cosine_cases, mistakes.cosine),
    Step(
        14, "minisbert", "plain_bert", ("state", "sentence", *TOKENS), whole_cases,
        lambda w, config, ids, mask, types, wrong: mistakes.bert(ids, w, config, mask, types, wrong),
        ("unmasked", "mask after", "zero scores", "inverted", "no embedding norm", "positions from 1", "eps 1e-5", "pre-norm",
         "no first residual", "no second residual", "tanh", *VIEW, "no root", "one layer", "norm not listed", "last state"),
    ),
    Step(15, "packing", "packed_attention", ("head", *TOKENS), packing_cases, mistakes.packed_attention, ("no root", "softmax axis")),
    Step(16, "softmax_loss", "softmax_loss", ("row",), softmax_loss_cases, mistakes.softmax_loss),
    Step(
        17, "negatives", "negatives_loss", ("row",), negatives_cases, mistakes.negatives_loss,
        ("probability", "log probability", "one minus"),
    ),
    Step(18, "search", "search", (), search_cases, mistakes.search),
)  # fmt: skip


@cache
def cases(step: Step) -> tuple[Case, ...]:
    """The cases of a step, made once, as plain tensors."""
    with torch.inference_mode():
        made = step.cases()
    return tuple(replace(case, arguments=tuple(map(plain, case.arguments)), expected=plain(case.expected)) for case in made)


def plain(value: Any) -> Any:
    """A tensor that may be changed and has no trace of inference mode or of a parameter; anything else as it is."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return value.detach().clone() if isinstance(value, Tensor) and (value.is_inference() or value.requires_grad) else value
