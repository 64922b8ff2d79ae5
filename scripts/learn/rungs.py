"""The rungs of the ladder: for each step the real thing, what it is tried on, and what the usual mistakes give.

What is right always comes from minisbert, with the weights of the real checkpoint, in float64. The functions below the line
"mistakes" are a plain BERT whose every part can be got wrong on purpose: who has the very numbers of a mistake has made it.
"""

# ruff: noqa: ARG005
# A hint stands in one line with the mistake it belongs to: the table of steps is read line by line.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import minisbert
from minisbert.bert import attend
from minisbert.checkpoint.families import to_hub_names

MODEL = "all-MiniLM-L6-v2"
SENTENCES = ("A man is eating food.", "Someone is having a meal.", "The pangolin's embeddings: unforgettable!")


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    Attributes:
        about: what it is tried on, in words.
        arguments: what the function is given.
        expected: what it should return.
        tokens: the names of the places along the axis "token" or "row": of the sentence, or of each sentence of a batch.
        keep: [...] of bool, which of the numbers are compared; None: all.
    """

    about: str
    arguments: tuple[Any, ...]
    expected: Any
    tokens: Sequence[Any] = ()
    keep: Tensor | None = None


@dataclass(frozen=True)
class Mistake:
    """A usual mistake: what it gives, and what to say about it."""

    hint: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """A rung.

    Attributes:
        number: its place on the ladder.
        name: in the names of its files, and for `check.py`.
        function: what the learner writes.
        axes: what the axes of the result are called.
        cases: makes the cases; it needs the checkpoint.
        mistakes: the usual ones, the likeliest first where two give the same.
    """

    number: int
    name: str
    function: str
    axes: tuple[str, ...]
    cases: Callable[[], list[Case]]
    mistakes: tuple[Mistake, ...]

    @property
    def file(self) -> str:
        """The name of its text and stub, without the ending."""
        return f"step{self.number:02}_{self.name}"


# --- the real thing -----------------------------------------------------------------------------------------------------------


@cache
def encoder() -> minisbert.SentenceEncoder:
    """The real checkpoint, in float64, so that a difference is a mistake and no rounding."""
    return minisbert.load(MODEL, device="cpu", dtype=torch.float64)


@cache
def weights() -> dict[str, Tensor]:
    """Its tensors under the names that they have in model.safetensors."""
    return to_hub_names(encoder().bert)


def below(prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in weights().items() if name.startswith(prefix)}


def config() -> dict[str, Any]:
    """What config.json says."""
    return dict(vars(encoder().bert.config))


def vocabulary() -> dict[str, int]:
    """Each word piece and its id."""
    return encoder().tokenizer.tokenizer.get_vocab()


def words(text: str) -> list[str]:
    """Lower case, without accents, cut at blanks and punctuation: what comes before WordPiece."""
    tokenizer = encoder().tokenizer.tokenizer
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def names_of(ids: Sequence[int]) -> list[str]:
    """The word pieces behind the ids."""
    return [encoder().tokenizer.tokenizer.id_to_token(number) for number in ids]


@cache
def sentence(index: int) -> tuple[list[str], Tensor, list[Tensor]]:
    """One of `SENTENCES`: its tokens, its ids [length], and its [length, hidden] after the embeddings and after each layer."""
    bert = encoder().bert
    (ids,) = encoder().tokenizer([SENTENCES[index]]).ids
    numbers = torch.tensor(ids)
    with torch.inference_mode():
        x = bert.embeddings(numbers, torch.arange(len(ids)), torch.zeros_like(numbers))
        states = [x]
        for layer in bert.layers:
            states.append(layer(states[-1], [(1, len(ids))]))
    return names_of(ids), numbers, [state.clone() for state in states]


def query_key_value(index: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one of `SENTENCES`, each [heads, length, head_dim]."""
    states = sentence(index)[2]
    attention = encoder().bert.layers[layer].attention
    query, key, value = (split(part, attention.heads) for part in attention.qkv(states[layer]).chunk(3, dim=-1))
    return query.contiguous(), key.contiguous(), value.contiguous()


def batch() -> tuple[Tensor, Tensor, list[list[str]]]:
    """All of `SENTENCES`, padded: ids and mask, both [batch, length], and the tokens of each."""
    ids = encoder().tokenizer(list(SENTENCES)).ids
    length = max(map(len, ids))
    padded = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return padded, mask, [names_of(row) for row in padded.tolist()]


# --- the plain BERT in which every part can be got wrong: mistakes --------------------------------------------------------------


def root_gelu(x: Tensor, root: float = math.sqrt(2)) -> Tensor:
    """Exact GELU, with another number for √2."""
    return x * (1 + torch.erf(x / root)) / 2


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, kind: str = "") -> Tensor:
    """Layer norm; `kind` names what is wrong with it."""
    axis: int | tuple[int, ...] = {"wrong axis": 0, "everything": tuple(range(x.dim()))}.get(kind, -1)
    mean = 0 if kind == "no mean" else x.mean(axis, keepdim=True)
    n = x.shape[-1]
    variance = (x - mean).square().mean(axis, keepdim=True) * (n / (n - 1) if kind.startswith("unbiased") else 1)
    if kind.endswith("outside"):
        scale = variance.sqrt() + eps
    elif kind == "no root":
        scale = variance + eps
    else:
        scale = (variance + (0 if kind == "no eps" else eps)).sqrt()
    y = (x - mean) / scale
    if kind == "bias scaled":
        return y * (weight + bias)
    return y * (1 if kind in ("no weight", "bare") else weight) + (0 if kind in ("no bias", "bare") else bias)


def linear(x: Tensor, w: Mapping[str, Tensor], name: str, *, bias: bool = True, flip: bool = False) -> Tensor:
    """A linear layer, x Wᵀ + b; flipped, x W + b."""
    weight = w[f"{name}.weight"]
    return x @ (weight if flip else weight.T) + (w[f"{name}.bias"] if bias else 0)


def split(x: Tensor, heads: int) -> Tensor:
    """[..., length, hidden] → [..., heads, length, head_dim]."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def split_by_view(x: Tensor, heads: int) -> Tensor:
    """The shape of `split`, but other numbers: the tokens are torn apart."""
    return x.reshape(*x.shape[:-2], heads, x.shape[-2], -1)


def split_interleaved(x: Tensor, heads: int) -> Tensor:
    """Every heads-th number of a vector instead of head_dim neighbours."""
    return x.unflatten(-1, (-1, heads)).movedim(-1, -3)


def join(x: Tensor) -> Tensor:
    """[..., heads, length, head_dim] → [..., length, hidden]."""
    return x.transpose(-3, -2).flatten(-2)


def join_by_view(x: Tensor) -> Tensor:
    """The shape of `join`, but other numbers."""
    return x.reshape(*x.shape[:-3], x.shape[-2], -1)


def join_interleaved(x: Tensor) -> Tensor:
    """What undoes `split_interleaved`."""
    return x.movedim(-3, -1).flatten(-2)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, kind: str = "", width: int | None = None
) -> Tensor:
    """softmax(q kᵀ / √d) v; `kind` names what is wrong with it, `width` another d."""
    if kind == "swapped":
        query, key = key, query
    d = width or query.shape[-1]
    scores = query @ key.mT
    scale = {"no root": 1 / d, "no scale": 1, "times": math.sqrt(d), "late": 1}.get(kind, 1 / math.sqrt(d))
    scores = scores * scale
    if mask is not None and kind != "unmasked":
        seen = (mask == 0 if kind == "inverted" else mask != 0)[:, None, None, :]  # [batch, 1, 1, length]
        if kind == "zero scores":
            scores = scores * seen
        elif kind == "added":
            scores = scores + seen
        elif kind == "after":
            return (scores.softmax(-1) * seen) @ value
        elif kind == "rows too":
            scores = scores.masked_fill(~(seen & seen.mT), -torch.inf)
        else:
            scores = scores.masked_fill(~seen, -torch.inf)
    if kind == "no softmax":
        return scores @ value
    if kind == "sums of others":
        return scores.exp() / scores.exp().sum(-1).unsqueeze(-2) @ value
    weights = scores.softmax(-2 if kind == "wrong axis" else -1)
    if kind == "columns":
        weights = weights.mT
    return weights / math.sqrt(d) @ value if kind == "late" else weights @ value


def multi_head(
    x: Tensor,
    w: Mapping[str, Tensor],
    heads: int,
    mask: Tensor | None = None,
    *,
    split: Callable[[Tensor, int], Tensor] = split,
    join: Callable[[Tensor], Tensor] = join,
    attention: Callable[..., Tensor] = attention,
    no_bias: tuple[str, ...] = (),
    flip: tuple[str, ...] = (),
    out: bool = True,
) -> Tensor:
    """Self-attention with the weights below "attention."."""
    parts = [f"self.{part}" for part in ("query", "key", "value")]
    query, key, value = (split(linear(x, w, part, bias=part not in no_bias, flip=part in flip), heads) for part in parts)
    x = join(attention(query, key, value, mask))
    return linear(x, w, "output.dense", bias="output" not in no_bias, flip="output" in flip) if out else x


def feed_forward(
    x: Tensor,
    w: Mapping[str, Tensor],
    *,
    act: Callable[[Tensor], Tensor] = F.gelu,
    no_bias: tuple[str, ...] = (),
    late: bool = False,
    late_bias: bool = False,
) -> Tensor:
    """The feed-forward step with the weights "intermediate.dense" and "output.dense"."""
    inner = linear(x, w, "intermediate.dense", bias="intermediate" not in no_bias)
    if late_bias:
        inner = act(linear(x, w, "intermediate.dense", bias=False)) + w["intermediate.dense.bias"]
    outer = linear(inner if late or late_bias else act(inner), w, "output.dense", bias="output" not in no_bias)
    return act(outer) if late else outer


def layer(
    x: Tensor,
    w: Mapping[str, Tensor],
    heads: int,
    eps: float,
    mask: Tensor | None = None,
    *,
    kind: str = "",
    attention: Callable[..., Tensor] = multi_head,
    feed: Callable[..., Tensor] = feed_forward,
    norm: Callable[..., Tensor] = norm,
) -> Tensor:
    """One layer; `kind` names what is wrong with it."""
    inner = {name.removeprefix("attention."): value for name, value in w.items() if name.startswith("attention.")}
    first, second = ("output.LayerNorm", "attention.output.LayerNorm") if kind == "norms swapped" else (
        "attention.output.LayerNorm", "output.LayerNorm"
    )  # fmt: skip

    def scaled(x: Tensor, name: str) -> Tensor:
        weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        return norm(x, bias, weight, eps) if kind == "weight for bias" else norm(x, weight, bias, eps)

    if kind == "pre-norm":
        x = x + attention(scaled(x, first), inner, heads, mask)
        return x + feed(scaled(x, second), w)
    attended = attention(x, inner, heads, mask)
    if kind == "added after the norm":
        y = x + scaled(attended, first)
        return y + scaled(feed(y, w), second)
    y = attended if kind in ("no residual", "no first residual") else x + attended
    y = y if kind == "no first norm" else scaled(y, first)
    z = feed(x if kind == "feed of x" else y, w)
    if kind not in ("no residual", "no second residual"):
        z = z + (x if kind == "old residual" else y)
    return z if kind == "no second norm" else scaled(z, second)


def bert(
    ids: Tensor,
    w: Mapping[str, Tensor],
    config: Mapping[str, Any],
    mask: Tensor | None = None,
    types: Tensor | None = None,
    *,
    kind: str = "",
    layer: Callable[..., Tensor] = layer,
    eps: float | None = None,
) -> list[Tensor]:
    """The whole stack; `kind` names what is wrong with it."""
    length = ids.shape[-1]
    types = torch.zeros_like(ids) if types is None or kind == "no types" else types
    start = 1 if kind == "positions from 1" else 0
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][start : start + length] * (kind != "no positions")
    x = x + w["embeddings.token_type_embeddings.weight"][types] * (kind != "no token type")
    eps = config["layer_norm_eps"] if eps is None else eps
    if kind not in ("no norm", "norm not listed"):
        x = norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps)
    states = [x]
    if kind == "norm not listed":
        x = norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps)
    numbers = list(range(config["num_hidden_layers"]))
    for n in numbers[::-1] if kind == "reversed" else numbers[:1] * len(numbers) if kind == "one layer" else numbers:
        prefix = f"encoder.layer.{n}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        x = layer(states[0] if kind == "not handed on" else x, own, config["num_attention_heads"], eps, mask)
        states.append(x)
    return states


def mean_pooling(vectors: Tensor, mask: Tensor, *, kind: str = "") -> Tensor:
    """Mean pooling; `kind` names what is wrong with it."""
    seen = mask[..., None].to(vectors.dtype)
    if kind == "special":  # without [CLS] and [SEP]
        seen = seen.clone()
        for row, tokens in enumerate(mask):
            seen[row, tokens.nonzero()[[0, -1]]] = 0
    total = (vectors * seen).sum(1)
    counts = mask.sum(1).tolist()
    return {
        "all": vectors.mean(1),
        "padding in the sum": vectors.sum(1) / seen.sum(1),
        "over sentences": (vectors * seen).sum(0) / seen.sum(0),
        "one for all": vectors[mask.bool()].mean(0),
        "the first n": torch.stack([row[:count].mean(0) for row, count in zip(vectors, counts, strict=True)]),
        "all tokens": total / mask.shape[1],
        "sum": total,
        "cls": vectors[:, 0],
        "max": vectors.masked_fill(seen == 0, -torch.inf).amax(1),
        "root": total / seen.sum(1).sqrt(),
        "numbers": total / mask.sum(),
    }.get(kind, total / seen.sum(1))


def cosine(a: Tensor, b: Tensor, *, kind: str = "") -> Tensor:
    """Cosine similarity; `kind` names what is wrong with it."""
    axis = 0 if kind == "wrong axis" else 1
    length_a, length_b = a.norm(dim=axis, keepdim=True), b.norm(dim=axis, keepdim=True)
    if kind == "squared":
        return a @ b.T / (length_a**2 * length_b.T**2)
    if kind == "manhattan":
        return a @ b.T / (a.abs().sum(1, keepdim=True) * b.abs().sum(1))
    if kind == "distance":
        return 1 - cosine(a, b)
    if kind == "one by one":
        return F.cosine_similarity(a[: len(b)], b[: len(a)])
    if kind == "one matrix":
        return a @ b.T / (a.norm() * b.norm())
    a = a if kind in ("dot", "only b") else a / length_a
    return a @ (b if kind in ("dot", "only a") else b / length_b).T


def split_word(word: str, vocab: Mapping[str, int], *, kind: str = "") -> Any:
    """Longest piece first; `kind` names what is wrong with it."""
    if len(word) > 100 - (kind == "limit at 100") and kind != "no limit":
        return ["[UNK]"]
    pieces: list[Any] = []
    start = 0
    while start < len(word):
        ends = range(start + 1, len(word) + 1) if kind == "shortest" else range(len(word), start + (kind == "no letters"), -1)
        mark = "" if kind == "no ##" or not start else "##"
        end = next((end for end in ends if mark + word[start:end] in vocab), None)
        if end is None and kind == "letters skipped":
            start += 1
            continue
        if end is None:
            return (
                "[UNK]"
                if kind == "no list"
                else [*pieces, "[UNK]"]
                if kind == "late unknown"
                else []
                if kind == "nothing"
                else ["[UNK]"]
            )
        pieces.append((mark if kind != "## lost" else "") + word[start:end])
        start = end
    return [vocab[piece] for piece in pieces] if kind == "ids" else pieces


def to_ids(
    words: Sequence[str], vocab: Mapping[str, int], *, first: str = "[CLS]", last: str = "[SEP]", kind: str = ""
) -> list[Any]:
    """[CLS], the pieces of every word, [SEP], as numbers."""
    pieces = list(words) if kind == "words" else [piece for word in words for piece in split_word(word, vocab)]
    if kind == "each word":
        pieces = [piece for word in words for piece in [*split_word(word, vocab), last]]
        last = ""
    if kind == "nothing for nothing" and not words:
        return []
    pieces = [*([first] if first else []), *pieces, *([last] if last else [])]
    if kind == "words":
        return [vocab.get(piece, vocab["[UNK]"]) for piece in pieces]
    return pieces if kind == "pieces" else [vocab[piece] for piece in pieces]


# --- the cases ----------------------------------------------------------------------------------------------------------------


def word_cases() -> list[Case]:
    """Words in one piece and in several, one with a character that no piece has, and one beyond the limit."""
    vocab, model = vocabulary(), encoder().tokenizer.tokenizer.model
    chosen = [
        "cat",
        "embeddings",
        "unforgettable",
        "pangolin",
        "transformerlike",
        "i",
        "café",
        "snow\u2603man",
        "a" * 100,
        "a" * 101,
    ]
    return [
        Case(
            repr(word if len(word) < 30 else f"{word[:3]}…, {len(word)} letters"),
            (word, vocab),
            [t.value for t in model.tokenize(word)],
        )
        for word in chosen
    ]


def id_cases() -> list[Case]:
    """Sentences, and a text without words."""
    vocab, wordpiece = vocabulary(), encoder().tokenizer
    return [Case(repr(text), (words(text), vocab), wordpiece([text]).ids[0]) for text in (*SENTENCES, "")]


def embedding_cases() -> list[Case]:
    """The three sentences, whose sum is taken where minisbert's layer norm gets it."""
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
    """The hidden states of a sentence, with the checkpoint's eps and with larger ones that show where it stands."""
    tokens, _, states = sentence(2)
    cases = []
    for about, x, eps in (
        ("the checkpoint's own eps", states[3] * 3 + 1, 1e-12),
        ("eps = 1e-5", states[0] / 100, 1e-5),
        ("eps = 0.1, so that it cannot hide", states[0], 0.1),
    ):
        module = encoder().bert.layers[0].attention_norm
        weight, bias = module.weight, module.bias
        cases.append(
            Case(f"{SENTENCES[2]!r}, {about}", (x, weight, bias, eps), F.layer_norm(x, (x.shape[-1],), weight, bias, eps), tokens)
        )
    return cases


def gelu_cases() -> list[Case]:
    """Some numbers, and what the feed-forward step of the first layer has inside."""
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
        about = f"{SENTENCES[index]!r}, layer {number}, head {head}"
        cases.append(Case(about, (q, k, v), attend(q[None, None], k[None, None], v[None, None])[0, 0], sentence(index)[0]))
    return cases


def head_cases() -> list[Case]:
    """The whole self-attention of a layer."""
    cases = []
    for index, number in (0, 0), (2, 3):
        tokens, _, states = sentence(index)
        module = encoder().bert.layers[number].attention
        expected = module(states[number], [(1, len(tokens))])
        arguments = (states[number], below(f"encoder.layer.{number}.attention."), module.heads)
        cases.append(Case(f"{SENTENCES[index]!r}, layer {number}", arguments, expected, tokens))
    return cases


def feed_forward_cases() -> list[Case]:
    """The feed-forward step of two layers."""
    cases = []
    for index, number in (0, 0), (1, 4):
        tokens, _, states = sentence(index)
        every = below(f"encoder.layer.{number}.")
        w = {name: value for name, value in every.items() if name.startswith(("intermediate.", "output.dense."))}
        expected = encoder().bert.layers[number].feed_forward(states[number])
        cases.append(Case(f"{SENTENCES[index]!r}, layer {number}", (states[number], w), expected, tokens))
    return cases


def layer_cases() -> list[Case]:
    """Two whole layers."""
    cases = []
    for index, number in (0, 0), (2, 5):
        tokens, _, states = sentence(index)
        settings = config()["num_attention_heads"], config()["layer_norm_eps"]
        arguments = (states[number], below(f"encoder.layer.{number}."), *settings)
        cases.append(Case(f"{SENTENCES[index]!r}, layer {number}", arguments, states[number + 1], tokens))
    return cases


def stack_cases() -> list[Case]:
    """From ids to all hidden states, a sentence at a time."""
    return [
        Case(repr(SENTENCES[index]), (sentence(index)[1], weights(), config()), torch.stack(sentence(index)[2]), sentence(index)[0])
        for index in (0, 2)
    ]


def mask_cases() -> list[Case]:
    """Two sentences of different length in one batch; only the rows of real tokens are compared."""
    parts = [query_key_value(index, 1) for index in (0, 2)]
    length = max(part[0].shape[1] for part in parts)
    # What stands in the padding is no zero in a real batch either.
    q, k, v = (torch.stack([F.pad(part[i], (0, 0, 0, length - part[i].shape[1]), value=0.5) for part in parts]) for i in range(3))
    mask = torch.tensor([[1] * part[0].shape[1] + [0] * (length - part[0].shape[1]) for part in parts])
    expected = torch.zeros_like(q)
    for row, part in enumerate(parts):
        expected[row, :, : part[0].shape[1]] = attend(*(tensor[None] for tensor in part))[0]
    tokens = [sentence(index)[0] + ["[PAD]"] * (length - len(sentence(index)[0])) for index in (0, 2)]
    keep = (mask != 0)[:, None, :, None].expand_as(q)
    return [Case("two sentences of different length, layer 1", (q, k, v, mask), expected, tokens, keep)]


def pooling_cases() -> list[Case]:
    """The three sentences, padded at the end and at the front, with anything in the padding."""
    ids, mask, _ = batch()
    vectors = encoder().bert(ids, mask) + (mask == 0)[..., None] * 7.0
    expected = minisbert.mean_pooling(vectors, mask)
    return [
        Case("three sentences, padded at the end", (vectors, mask), expected),
        Case("the same, padded at the front", (vectors.flip(1), mask.flip(1)), expected),
    ]


def cosine_cases() -> list[Case]:
    """Two sentences against three, with vectors that do not have length 1."""
    ids, mask, _ = batch()
    vectors = minisbert.mean_pooling(encoder().bert(ids, mask), mask)
    a, b = vectors[:2] * 3, vectors
    expected = torch.stack([F.cosine_similarity(row, b) for row in a])
    return [Case("two sentences against three", (a, b), expected)]


def whole_cases() -> list[Case]:
    """A padded batch; once with two segments, as BERT was pre-trained with."""
    ids, mask, tokens = batch()
    model = encoder().bert
    cases = []
    for about, types in (
        ("three sentences, padded", torch.zeros_like(ids)),
        ("the same, the second half of each as a second segment", (torch.arange(ids.shape[1]) >= 5).long().expand_as(ids)),
    ):
        states: list[Tensor] = []
        for row, kept in enumerate(mask.sum(1).tolist()):
            one, kind = ids[row, :kept], types[row, :kept]
            x = model.embeddings(one, torch.arange(kept), kind)
            own = [x]
            for each in model.layers:
                own.append(each(own[-1], [(1, kept)]))
            states.append(F.pad(torch.stack(own), (0, 0, 0, ids.shape[1] - kept)))
        expected = torch.stack(states, dim=1)  # [layers + 1, batch, length, hidden]
        keep = (mask != 0)[None, :, :, None].expand_as(expected)
        cases.append(Case(about, (weights(), config(), ids, mask, types), expected, tokens, keep))
    return cases


# --- the ladder ---------------------------------------------------------------------------------------------------------------


def mistake(hint: str, function: Callable[..., Any], **wrong: Any) -> Mistake:
    """A function with something wrong."""
    return Mistake(hint, partial(function, **wrong))


def whole(hint: str, **wrong: Any) -> Mistake:
    """A mistake of the last step, whose arguments stand in another order."""
    return Mistake(hint, lambda w, config, ids, mask, types: torch.stack(bert(ids, w, config, mask, types, **wrong)))


def stack(hint: str, **wrong: Any) -> Mistake:
    """A mistake of the stack of layers."""
    return Mistake(hint, lambda ids, w, config: torch.stack(bert(ids, w, config, **wrong)))


tanh_gelu = partial(F.gelu, approximate="tanh")
TANH = "this is the tanh approximation of GELU (gelu_new). BERT has the exact one, with the error function: torch.erf."
NO_ROOT = "the scores were not divided by √head_dim."
WRONG_AXIS = (
    "the softmax goes over the wrong axis. For each token that looks (a row), the weights of those looked at add up to 1: dim=-1."
)
VIEW = (
    "the heads were split with view or reshape alone, which tears the tokens apart. First [length, heads, head_dim], which cuts each "
    "vector into heads, then transpose to [heads, length, head_dim]."
)
JOIN = "the heads were joined without transposing back first: from [heads, length, head_dim] to [length, heads, head_dim], then flatten."
FLIP = "x @ W where x @ W.T is meant: a weight lies in the checkpoint as [out, in], as nn.Linear keeps it."
PRE = "this is pre-norm: the norm stands before attention and feed-forward. BERT is post-norm: x = norm(x + attention(x))."
POSITIONS = "positions count from 0: the first token gets row 0 of the table, not row 1."
UNMASKED = (
    "real tokens look at the padding: the mask is not used, or on the wrong axis. It hides those looked at, the last axis of the scores: "
    "[batch, 1, 1, length]."
)
EPS = "eps is 1e-5, PyTorch's default. BERT's stands in its config: layer_norm_eps, 1e-12."
ROWS_TOO = (
    "the rows of the padding are masked as well: a softmax over nothing but −∞ is NaN, and 0 · NaN is NaN. Mask columns only."
)
ALL_STATES = "only the last state was returned; the embeddings' and every layer's are wanted, as a list."
STATE_0 = "state 0 is the embeddings after their layer norm; the list has them before it."
EMBEDDING_NORM = "the layer norm after the embeddings is missing."

IDS = "these are the ids. Here the pieces themselves are wanted, as text; ids come in the next step."

STEPS: tuple[Step, ...] = (
    Step(1, "wordpiece", "split_word", (), word_cases, (
        mistake('"##" was forgotten: a piece that is not at the start of its word stands in the vocabulary as "##" + the letters.', split_word, kind="no ##"),
        mistake('the pieces are right, but "##" is missing in the result: it belongs to the piece\'s name.', split_word, kind="## lost"),
        mistake("the shortest piece was taken each time. Try the longest first, and shorten it from the end.", split_word, kind="shortest"),
        mistake('a word with a part that no piece fits is as a whole "[UNK]", not only that part.', split_word, kind="late unknown"),
        mistake('a word with a part that no piece fits is "[UNK]", as a list of one.', split_word, kind="nothing"),
        mistake('a word of more than 100 letters is "[UNK]", without being looked at.', split_word, kind="no limit"),
        mistake(IDS, split_word, kind="ids"),
        mistake(IDS, lambda word, vocab: [vocab[piece] for piece in split_word(word, vocab)]),
        mistake('a letter that no piece fits was left out. The whole word is then ["[UNK]"].', split_word, kind="letters skipped"),
        mistake("pieces of a single letter were never tried: the shortest end is start + 1.", split_word, kind="no letters"),
        mistake("a word of exactly 100 letters is still split; only one of more than 100 is not.", split_word, kind="limit at 100"),
    )),
    Step(2, "ids", "to_ids", (), id_cases, (
        mistake("[CLS] at the start and [SEP] at the end were forgotten.", to_ids, first="", last=""),
        mistake("[CLS] at the start was forgotten.", to_ids, first=""),
        mistake("[SEP] at the end was forgotten.", to_ids, last=""),
        mistake("[CLS] and [SEP] have changed places: [CLS] is first.", to_ids, first="[SEP]", last="[CLS]"),
        mistake("these are the pieces. Here their ids are wanted: look each one up in vocab.", to_ids, kind="pieces"),
        mistake("whole words were looked up. Split each word into its pieces first (step 1).", to_ids, kind="words"),
        mistake("there is a [SEP] after every word. There is one only, at the end of the sentence.", to_ids, kind="each word"),
        mistake("a sentence without words still has its [CLS] and [SEP].", to_ids, kind="nothing for nothing"),
    )),
    Step(3, "embeddings", "embed", ("token", "number"), embedding_cases, (
        mistake("the position embeddings were forgotten.", lambda ids, w, p, t: w[ids] + t[0]),
        mistake("the token type was forgotten: every token here is of segment 0, whose vector is row 0 of token_type.", lambda ids, w, p, t: w[ids] + p[: len(ids)]),
        mistake("only the words were looked up. Position and token type are added to them.", lambda ids, w, p, t: w[ids]),
        mistake(POSITIONS, lambda ids, w, p, t: w[ids] + p[1 : len(ids) + 1] + t[0]),
        mistake("every token got the position 0. The n-th token gets row n of the table.", lambda ids, w, p, t: w[ids] + p[0] + t[0]),
        mistake("the position was looked up by the id of the word. It is the token's place in the sentence: 0, 1, 2, …", lambda ids, w, p, t: w[ids] + p[ids % len(p)] + t[0]),
        mistake("this is segment 1; a single sentence is segment 0.", lambda ids, w, p, t: w[ids] + p[: len(ids)] + t[1]),
        mistake("both segments were added; a token is in one of them, here in segment 0.", lambda ids, w, p, t: w[ids] + p[: len(ids)] + t[0] + t[1]),
        mistake("the mean of the three was taken; they are added.", lambda ids, w, p, t: (w[ids] + p[: len(ids)] + t[0]) / 3),
        mistake("the three stand side by side (cat); they are added.", lambda ids, w, p, t: torch.cat([w[ids], p[: len(ids)], t[0].expand(len(ids), -1)], dim=-1)),
    )),
    Step(4, "layer_norm", "layer_norm", ("token", "number"), norm_cases, (
        mistake("eps stands outside of the root. It is added to the variance: √(variance + eps).", norm, kind="outside"),
        mistake("the variance is the unbiased one, divided by n − 1, which is what x.var() and x.std() give. Layer norm divides by n: correction=0.", norm, kind="unbiased"),
        mistake("x.std() divides by n − 1, and eps belongs under the root: √(variance + eps), with the variance divided by n.", norm, kind="unbiased, outside"),
        mistake("mean and variance go over the wrong axis: each token is normalized by itself, over its own numbers, dim=-1.", norm, kind="wrong axis"),
        mistake("mean and variance were taken over all tokens together. Each token is normalized by itself: dim=-1, keepdim=True.", norm, kind="everything"),
        mistake("eps was forgotten.", norm, kind="no eps"),
        mistake("the bias was forgotten.", norm, kind="no bias"),
        mistake("the weight was forgotten.", norm, kind="no weight"),
        mistake("weight and bias were forgotten.", norm, kind="bare"),
        mistake("the root was forgotten: divide by the standard deviation, not by the variance.", norm, kind="no root"),
        mistake("the mean was not subtracted.", norm, kind="no mean"),
        mistake("the bias was multiplied as well: it is y · weight + bias, not y · (weight + bias).", norm, kind="bias scaled"),
        mistake("the division binds more tightly than the minus: write (x - mean) / …, with parentheses.", lambda x, weight, bias, eps: x - x.mean(-1, keepdim=True) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt() * weight + bias),
    )),
    Step(5, "gelu", "gelu", ("row", "number"), gelu_cases, (
        mistake(TANH, tanh_gelu),
        mistake("√2 was rounded to 1.41421. Write math.sqrt(2).", root_gelu, root=1.41421),
        mistake("√2 was rounded to 1.4142. Write math.sqrt(2).", root_gelu, root=1.4142),
        mistake("the √2 was forgotten: erf(x / √2).", root_gelu, root=1.0),
        mistake("erf(x / 2) where erf(x / √2) is meant.", root_gelu, root=2.0),
        mistake("this is x·σ(1.702 x), the quick approximation. BERT has the exact GELU, with torch.erf.", lambda x: x * torch.sigmoid(1.702 * x)),
        mistake("this is SiLU, x·σ(x).", F.silu),
        mistake("this is ReLU.", F.relu),
        mistake("this is Φ(x) alone; GELU is x·Φ(x).", lambda x: (1 + torch.erf(x / math.sqrt(2))) / 2),
        mistake("the ½ was forgotten.", lambda x: 2 * F.gelu(x)),
        mistake("the 1 + was forgotten.", lambda x: x * torch.erf(x / math.sqrt(2)) / 2),
        mistake("½ and 1 + were forgotten: erf goes from −1 to 1, and Φ from 0 to 1.", lambda x: x * torch.erf(x / math.sqrt(2))),
    )),
    Step(6, "attention", "attention", ("token", "number"), attention_cases, (
        mistake(NO_ROOT, attention, kind="no scale"),
        mistake(WRONG_AXIS, attention, kind="wrong axis"),
        mistake("the scores were divided by head_dim; it is √head_dim.", attention, kind="no root"),
        mistake("the scores were multiplied by √head_dim; they are divided by it.", attention, kind="times"),
        mistake("the division by √head_dim comes after the softmax. It belongs before: the scores are divided.", attention, kind="late"),
        mistake("query and key have changed roles: the scores are query @ key.T, a row for each token that looks.", attention, kind="swapped"),
        mistake("the softmax was forgotten.", attention, kind="no softmax"),
        mistake("the scores were divided by √length; it is √head_dim, the width of a query: query.shape[-1].", lambda q, k, v: attention(q, k, v, width=q.shape[-2])),
        mistake("each row was divided by the sums of all rows. Its own sum belongs under it: sum(dim=-1, keepdim=True).", attention, kind="sums of others"),
        mistake("the weights were transposed before the product with the values: it is weights @ value.", attention, kind="columns"),
        mistake("these are the weights; the values, weighted by them, are wanted: weights @ value.", lambda q, k, v: (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)),
    )),
    Step(7, "heads", "multi_head", ("token", "number"), head_cases, (
        mistake(VIEW, multi_head, split=split_by_view, join=join_by_view),
        mistake(VIEW, multi_head, split=split_by_view),
        mistake(JOIN, multi_head, join=join_by_view),
        mistake("each head took every heads-th number. A head is a stretch of head_dim neighbours: unflatten(-1, (heads, head_dim)).", multi_head, split=split_interleaved, join=join_interleaved),
        mistake("each head took every heads-th number. A head is a stretch of head_dim neighbours: unflatten(-1, (heads, head_dim)).", multi_head, split=split_interleaved),
        mistake("the output projection (output.dense) was forgotten.", multi_head, out=False),
        mistake("the bias of the output projection was forgotten.", multi_head, no_bias=("output",)),
        mistake("the biases of query, key and value were forgotten.", multi_head, no_bias=("self.query", "self.key", "self.value")),
        mistake("all biases were forgotten.", multi_head, no_bias=("self.query", "self.key", "self.value", "output")),
        mistake("the bias of the query was forgotten.", multi_head, no_bias=("self.query",)),
        mistake("the bias of the value was forgotten.", multi_head, no_bias=("self.value",)),
        mistake(FLIP, multi_head, flip=("self.query", "self.key", "self.value", "output")),
        mistake(FLIP, multi_head, flip=("self.query", "self.key", "self.value")),
        mistake(FLIP, multi_head, flip=("output",)),
        mistake("the scores were divided by √hidden; it is √head_dim, the width of one head.", lambda x, w, heads: multi_head(x, w, heads, attention=partial(attention, width=x.shape[-1]))),
        mistake("there is one single head over the whole width. Cut the vectors into heads, and let each head attend by itself.", lambda x, w, heads: multi_head(x, w, 1)),
        mistake(NO_ROOT, multi_head, attention=partial(attention, kind="no scale")),
        mistake(WRONG_AXIS, multi_head, attention=partial(attention, kind="wrong axis")),
        mistake("query and key have changed roles.", multi_head, attention=partial(attention, kind="swapped")),
        mistake("key and value have changed roles: attention(query, key, value).", multi_head, attention=lambda q, k, v, mask: attention(q, v, k, mask)),
        mistake("the heads are not at the front: with [length, heads, head_dim], the heads of one token attend to each other. transpose(0, 1).", multi_head, split=lambda x, heads: x.unflatten(-1, (heads, -1)), join=lambda x: x.flatten(-2)),
        mistake("back from the heads, the wrong two axes were swapped: [heads, length, head_dim] becomes [length, heads, head_dim] by transpose(0, 1).", multi_head, join=lambda x: x.mT.reshape(x.shape[-2], -1)),
        mistake("the residual is not part of this step: what comes in is added in step 9.", lambda x, w, heads: x + multi_head(x, w, heads)),
    )),
    Step(8, "feed_forward", "feed_forward", ("token", "number"), feed_forward_cases, (
        mistake("there is no GELU between the two layers.", feed_forward, act=lambda x: x),
        mistake("the GELU comes after the second layer; it belongs between the two.", feed_forward, late=True),
        mistake("a GELU too many: there is one between the two layers, and none after the second.", lambda x, w: F.gelu(feed_forward(x, w))),
        mistake(TANH, feed_forward, act=tanh_gelu),
        mistake("there is a ReLU between the two layers; BERT has GELU.", feed_forward, act=F.relu),
        mistake("the bias of the first layer (intermediate) was forgotten.", feed_forward, no_bias=("intermediate",)),
        mistake("the bias of the second layer (output) was forgotten.", feed_forward, no_bias=("output",)),
        mistake("both biases were forgotten.", feed_forward, no_bias=("intermediate", "output")),
        mistake("the residual is not part of this step: what comes in is added in the next one.", lambda x, w: x + feed_forward(x, w)),
        mistake("the first bias is added after the GELU. The GELU is of the whole first product, with its bias.", feed_forward, late_bias=True),
    )),
    Step(9, "layer", "layer", ("token", "number"), layer_cases, (
        mistake(PRE, layer, kind="pre-norm"),
        mistake("both residuals were forgotten: what comes in is added to what attention and feed-forward give.", layer, kind="no residual"),
        mistake("the residual around the attention was forgotten.", layer, kind="no first residual"),
        mistake("the residual around the feed-forward step was forgotten.", layer, kind="no second residual"),
        mistake("the feed-forward step's residual is the layer's input; it is what comes out of the first norm.", layer, kind="old residual"),
        mistake("the residual is added after the norm. It is norm(x + attention(x)), not x + norm(attention(x)).", layer, kind="added after the norm"),
        mistake("the two layer norms have changed places: attention.output.LayerNorm is the first.", layer, kind="norms swapped"),
        mistake("the layer norm after the attention was forgotten.", layer, kind="no first norm"),
        mistake("the layer norm at the end was forgotten.", layer, kind="no second norm"),
        mistake("the feed-forward step was given the layer's input; it gets y, what comes out of the first norm.", layer, kind="feed of x"),
        mistake("weight and bias of the layer norms have changed places.", layer, kind="weight for bias"),
        mistake(EPS, lambda x, w, heads, eps: layer(x, w, heads, 1e-5)),
        mistake(TANH, layer, feed=partial(feed_forward, act=tanh_gelu)),
        mistake(VIEW, layer, attention=partial(multi_head, split=split_by_view)),
        mistake(JOIN, layer, attention=partial(multi_head, join=join_by_view)),
        mistake(VIEW, layer, attention=partial(multi_head, split=split_by_view, join=join_by_view)),
        mistake(NO_ROOT, layer, attention=partial(multi_head, attention=partial(attention, kind="no scale"))),
    )),
    Step(10, "stack", "bert", ("state", "token", "number"), stack_cases, (
        stack(EMBEDDING_NORM, kind="no norm"),
        stack(POSITIONS, kind="positions from 1"),
        stack("the position embeddings were forgotten.", kind="no positions"),
        stack("the token type was forgotten.", kind="no token type"),
        stack("every layer has the weights of layer 0. The n-th has those that begin with encoder.layer.n.", kind="one layer"),
        stack("every layer got the embeddings. Each gets what the one before it gave.", kind="not handed on"),
        stack("the layers were run in reverse.", kind="reversed"),
        stack(PRE, layer=partial(layer, kind="pre-norm")),
        stack(TANH, layer=partial(layer, feed=partial(feed_forward, act=tanh_gelu))),
        stack(VIEW, layer=partial(layer, attention=partial(multi_head, split=split_by_view))),
        stack(JOIN, layer=partial(layer, attention=partial(multi_head, join=join_by_view))),
        stack(VIEW, layer=partial(layer, attention=partial(multi_head, split=split_by_view, join=join_by_view))),
        stack(STATE_0, kind="norm not listed"),
        stack(EPS, eps=1e-5),
        Mistake(ALL_STATES, lambda ids, w, config: bert(ids, w, config)[-1]),
        Mistake("the embeddings are missing in the list: they come first, then every layer.", lambda ids, w, config: torch.stack(bert(ids, w, config)[1:])),
        Mistake("the last layer is missing in the list.", lambda ids, w, config: torch.stack(bert(ids, w, config)[:-1])),
    )),
    Step(11, "mask", "masked_attention", ("sentence", "head", "token", "number"), mask_cases, (
        mistake("the mask was multiplied in after the softmax, so the weights no longer add up to 1. Put −∞ into the scores before it.", attention, kind="after"),
        mistake("the masked scores were set to 0, but e⁰ = 1: the softmax still gives them weight. They must be −∞.", attention, kind="zero scores"),
        mistake("the mask itself was added to the scores. Add 0 where it is 1, and −∞ where it is 0.", attention, kind="added"),
        mistake("the mask is the wrong way round: 1 keeps a token, 0 hides it.", attention, kind="inverted"),
        mistake(UNMASKED, attention, kind="unmasked"),
        mistake(NO_ROOT, attention, kind="no scale"),
        mistake(WRONG_AXIS, attention, kind="wrong axis"),
    )),
    Step(12, "mean_pooling", "mean_pooling", ("sentence", "number"), pooling_cases, (
        mistake("the padding was averaged in: only the tokens whose mask is 1 count.", mean_pooling, kind="all"),
        mistake("the sum leaves the padding out, but was divided by the padded length. Divide by the number of real tokens.", mean_pooling, kind="all tokens"),
        mistake("this is the sum; divide by the number of real tokens.", mean_pooling, kind="sum"),
        mistake("the sum was divided by the number of tokens of the whole batch. Each sentence has its own number.", mean_pooling, kind="numbers"),
        mistake("this is the vector of [CLS]; the mean of all real tokens is wanted.", mean_pooling, kind="cls"),
        mistake("this is max pooling; the mean is wanted.", mean_pooling, kind="max"),
        mistake("this is the sum divided by √n; divide by n.", mean_pooling, kind="root"),
        mistake("[CLS] and [SEP] were left out. Their mask is 1: they count like any token.", mean_pooling, kind="special"),
        mistake("the mean goes over the wrong axis: over the tokens of a sentence, dim=1.", lambda v, m: v.mean(-1)),
        mistake("the mean goes over the wrong axis: over the tokens of a sentence, dim=1.", lambda v, m: v.mean(0)),
        mistake("the mean goes over the wrong axis: over the tokens of a sentence, dim=1.", mean_pooling, kind="over sentences"),
        mistake("the padding was added in: multiply by the mask before the sum.", mean_pooling, kind="padding in the sum"),
        mistake("the tokens of all sentences went into one mean: token_vectors[mask.bool()] forgets whose they are.", mean_pooling, kind="one for all"),
        mistake("the first n tokens were averaged. The mask says which ones count: padding may stand at the front as well.", mean_pooling, kind="the first n"),
    )),
    Step(13, "cosine", "cosine", ("row", "column"), cosine_cases, (
        mistake("this is the dot product. The cosine divides it by both lengths.", cosine, kind="dot"),
        mistake("only the second vectors were divided by their length.", cosine, kind="only b"),
        mistake("only the first vectors were divided by their length.", cosine, kind="only a"),
        mistake("the lengths go over the wrong axis: each vector (a row) has its own, dim=1.", cosine, kind="wrong axis"),
        mistake("the length of the whole matrix was taken. Each vector has its own: norm(dim=1, keepdim=True).", cosine, kind="one matrix"),
        mistake("the length is the root of the sum of squares; here it was squared again.", cosine, kind="squared"),
        mistake("the length is the root of the sum of squares, not the sum of absolute values.", cosine, kind="manhattan"),
        mistake("this is 1 − cosine, a distance.", cosine, kind="distance"),
        mistake("pairs were compared one by one. Every vector of a against every vector of b is wanted: [n, m].", cosine, kind="one by one"),
        mistake("rows and columns have changed places: a row for each vector of a.", lambda a, b: cosine(a, b).T),
    )),
    Step(14, "minisbert", "plain_bert", ("state", "sentence", "token", "number"), whole_cases, (
        whole(UNMASKED, layer=partial(layer, attention=partial(multi_head, attention=partial(attention, kind="unmasked")))),
        whole("the mask was multiplied in after the softmax. Put −∞ into the scores before it.", layer=partial(layer, attention=partial(multi_head, attention=partial(attention, kind="after")))),
        whole("the masked scores were set to 0. They must be −∞.", layer=partial(layer, attention=partial(multi_head, attention=partial(attention, kind="zero scores")))),
        whole("the mask is the wrong way round: 1 keeps a token, 0 hides it.", layer=partial(layer, attention=partial(multi_head, attention=partial(attention, kind="inverted")))),
        whole("the types are not used: a token of segment 1 gets row 1 of the table.", kind="no types"),
        whole(EMBEDDING_NORM, kind="no norm"),
        whole(POSITIONS, kind="positions from 1"),
        whole(EPS, eps=1e-5),
        whole(PRE, layer=partial(layer, kind="pre-norm")),
        whole("both residuals were forgotten.", layer=partial(layer, kind="no residual")),
        whole(TANH, layer=partial(layer, feed=partial(feed_forward, act=tanh_gelu))),
        whole(VIEW, layer=partial(layer, attention=partial(multi_head, split=split_by_view))),
        whole(JOIN, layer=partial(layer, attention=partial(multi_head, join=join_by_view))),
        whole(VIEW, layer=partial(layer, attention=partial(multi_head, split=split_by_view, join=join_by_view))),
        whole(NO_ROOT, layer=partial(layer, attention=partial(multi_head, attention=partial(attention, kind="no scale")))),
        whole("every layer has the weights of layer 0.", kind="one layer"),
        whole(ROWS_TOO, layer=partial(layer, attention=partial(multi_head, attention=partial(attention, kind="rows too")))),
        whole(STATE_0, kind="norm not listed"),
        Mistake(ALL_STATES, lambda w, config, ids, mask, types: bert(ids, w, config, mask, types)[-1]),
    )),
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
