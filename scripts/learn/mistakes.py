"""A plain BERT in which every part can be got wrong on purpose, and what to say to a learner who made that mistake.

`wrong` names mistakes, one or several, and is handed down to the parts that know them. Without it, every function is right. A learner
whose function returns exactly the values of these mistakes has made them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

T = TypeVar("T")
Wrong = frozenset[str]
RIGHT: Wrong = frozenset()

VARIANT = ""
"""Stands for a hint: the mistake, such as "flip/output", is a variant of another, "flip", and has its hint."""


def forgotten(parts: Mapping[str, str]) -> dict[str, str]:
    """The hints of mistakes by which something is missing: the name of each → what it is, with "was" or "were"."""
    return {wrong: f"{what} forgotten." for wrong, what in parts.items()}


# For each step its usual mistakes, the likelier first, and what to say to a learner who made one.
HINTS: dict[str, dict[str, str]] = {
    "wordpiece": {
        "no ##": '"##" was forgotten: a piece that is not at the start of its word has "##" before its letters in the vocabulary.',
        "## lost": 'the pieces are right, but "##" is missing in the result: it belongs to the piece\'s name.',
        "shortest": "the shortest piece was taken each time. Try the longest first, and shorten it from the end.",
        "late unknown": 'if no piece fits at some place, the whole word becomes ["[UNK]"], not only that part.',
        "nothing": 'if no piece fits at some place, the result is ["[UNK]"], a list of one piece.',
        "no limit": 'a word of more than 100 letters becomes ["[UNK]"], whatever its letters.',
        "ids": "these are the ids. Return the pieces themselves, as text; ids come in the next step.",
        "ids/of [UNK] too": VARIANT,
        "letters skipped": 'a letter that no piece fits was left out. The whole word becomes ["[UNK]"] then.',
        "no letters": "pieces of a single letter were never tried: the shortest end is start + 1.",
        "limit at 100": 'a word of exactly 100 letters is still split. Only a longer one becomes ["[UNK]"].',
    },
    "ids": {
        "sep first": "[CLS] and [SEP] are swapped: [CLS] is first.",
        "pieces": "these are the pieces. Return their ids: look each one up in vocab.",
        "words": "whole words were looked up. Split each word into its pieces first (step 1).",
        "each word": "there is a [SEP] after every word. Put only one, at the end of the sentence.",
        "nothing for nothing": "a sentence without words still has its [CLS] and [SEP].",
        **forgotten({"no cls": "[CLS] at the start was", "no sep": "[SEP] at the end was"}),
    },
    "embeddings": {
        "no token type": "the token type was forgotten. Every token here is of segment 0: add row 0 of token_type.",
        "positions from 1": "positions count from 0: the first token gets row 0 of the table, not row 1.",
        "position 0": "every token got the position 0. Token n gets row n of the table.",
        "position by id": "the position was looked up by the id of the word. Use the token's place in the sentence: 0, 1, 2, …",
        "segment 1": "segment 1 was added. A single sentence is segment 0: add row 0 of token_type.",
        "both segments": "both segments were added. Every token here is in segment 0 only.",
        "mean of three": "the mean of the three was taken. Add them.",
        "side by side": "the three were concatenated. Add them.",
        **forgotten({"no positions": "the position embeddings were"}),
    },
    "layer_norm": {
        "eps outside": "eps stands outside the root. Add it to the variance: √(variance + eps).",
        "unbiased": "the variance is the unbiased one, divided by n − 1, as x.var() and x.std() give it. Divide by n: correction=0.",
        "norm axis": "mean and variance go over the wrong axis. Normalize each token by itself, over its own dimensions: dim=-1.",
        "all tokens": "mean and variance were taken over all tokens together. Normalize each token by itself: dim=-1, keepdim=True.",
        "variance": "the root was forgotten. Divide by the standard deviation, not by the variance.",
        "no mean": "the mean was not subtracted.",
        "bias scaled": "the bias was multiplied as well: y · (weight + bias). Write y · weight + bias.",
        "precedence": "the division binds more tightly than the minus. Write (x - mean) / …, with parentheses.",
        **forgotten({"no eps": "eps was", "no norm bias": "the bias was", "no norm weight": "the weight was"}),
    },
    "gelu": {},  # they stand beside the wrong functions, in WRONG_GELUS
    "attention": {
        "no root": "the scores were not divided by √head_dim.",
        "softmax axis": "the softmax goes over the wrong axis. For each query (a row), the weights of all keys add up to 1: dim=-1.",
        "head_dim": "the scores were divided by head_dim. Divide by its root, √head_dim.",
        "times": "the scores were multiplied by √head_dim. Divide by it.",
        "late": "the weights were divided by √head_dim, after the softmax. Divide the scores, before it.",
        "swapped": "query and key have changed roles. Compute query @ key.mT, with one row per query.",
        "√length": "the scores were divided by √length. Divide by √head_dim, the root of query.shape[-1].",
        "sums of others": "each row was divided by the sums of all rows. Divide it by its own: sum(dim=-1, keepdim=True).",
        "columns": "the weights were transposed before the product with the values. Compute weights @ value.",
        "weights": "these are the weights. Return weights @ value.",
        **forgotten({"no softmax": "the softmax was"}),
    },
    "heads": {
        "view": "the heads were split with view or reshape alone, which mixes the tokens. First cut each vector into heads, [length, heads, head_dim], then transpose to [heads, length, head_dim].",
        "view/and back": VARIANT,
        "join": "the heads were joined without transposing back first. Go from [heads, length, head_dim] to [length, heads, head_dim], then flatten.",
        "interleaved": "each head took every heads-th dimension. A head has head_dim neighbouring dimensions: unflatten(-1, (heads, head_dim)).",
        "interleaved/and back": VARIANT,
        "flip": "x @ W was computed where x @ W.T is meant. The checkpoint stores a weight as [out, in], as nn.Linear does.",
        "flip/q, k, v": VARIANT, "flip/output": VARIANT,
        "√hidden": "the scores were divided by √hidden. Divide by √head_dim; head_dim is the width of one head.",
        "one head": "there is one single head over the whole width. Cut the vectors into heads, and let each head attend by itself.",
        "key for value": "key and value have changed roles. Call attention(query, key, value).",
        "heads not in front": "the heads are not in front. With [length, heads, head_dim], the heads of one token attend to each other: transpose(0, 1).",
        "join axes": "after the heads, the wrong two axes were swapped. transpose(0, 1) makes [length, heads, head_dim] of [heads, length, head_dim].",
        "residual": "the residual is not part of this step. Step 9 adds what comes in.",
        **forgotten({
            "no output": "the output projection (output.dense) was", "no bias of output": "the bias of the output projection was",
            "no biases of q, k, v": "the biases of query, key and value were", "no bias of query": "the bias of the query was",
            "no bias of value": "the bias of the value was",
        }),
    },
    "feed_forward": {
        "no gelu": "there is no GELU between the two products.",
        "gelu after": "the GELU comes after the second product. It belongs between the two.",
        "gelu twice": "there is a GELU too many. One belongs between the two products, none after the second.",
        "late bias": "the first bias is added after the GELU. Add it before: gelu(x Wᵀ + b).",
        **forgotten({
            "no first bias": "the bias of the first product (intermediate) was",
            "no second bias": "the bias of the second product (output) was",
        }),
    },
    "layer": {
        "pre-norm": "this is pre-norm: the norms come before attention and feed-forward. BERT is post-norm: norm(x + attention(x)).",
        "old residual": "x was added to the feed-forward step's result. Add y, which the first norm gives: norm₂(y + feed_forward(y)).",
        "added after the norm": "the residual was added after the norm: x + norm(attention(x)). Add it before: norm(x + attention(x)).",
        "norms swapped": "the two layer norms are swapped. attention.output.LayerNorm comes first.",
        "feed of x": "the feed-forward step was given x, the layer's input. Give it y, the result of the first norm.",
        "weight for bias": "weight and bias of the layer norms are swapped.",
        "eps 1e-5": "eps is 1e-5, PyTorch's default. Use the eps that the function is given: layer_norm_eps in the config, 1e-12.",
        **forgotten({
            "no first residual": "the residual around the attention was",
            "no second residual": "the residual around the feed-forward step was",
            "no first norm": "the layer norm after the attention was", "no second norm": "the layer norm at the end was",
        }),
    },
    "stack": {
        "no embedding norm": "the layer norm after the embeddings is missing.",
        "one layer": 'every layer has the weights of the first, "encoder.layer.0.". Take those of each layer in turn: f"encoder.layer.{n}.".',
        "not handed on": "every layer got the embeddings. Each gets the result of the layer before it.",
        "reversed": "the layers ran in reverse order.",
        "norm not listed": "state 0 is the embeddings before their layer norm. Put the normalized ones into the list.",
        "last state": "only the last state was returned. Return the embeddings and the result of every layer, as a list.",
        "no state 0": "the embeddings are missing in the list. They come first, then every layer.",
        "no last state": "the last layer is missing in the list.",
    },
    "mask": {
        "mask after": "the mask was multiplied in after the softmax, so the weights no longer add up to 1. Put −∞ into the scores before it.",
        "zero scores": "the masked scores were set to 0, but e⁰ = 1: the softmax still gives them weight. Set them to −∞.",
        "mask added": "the mask itself was added to the scores. Add 0 where it is 1, and −∞ where it is 0.",
        "inverted": "the mask is the wrong way round. 1 keeps a token, 0 hides it.",
        "unmasked": "real tokens attend to the padding: the mask is not used, or on the wrong axis. It hides keys, the last axis of the scores: [batch, 1, 1, length].",
    },
    "mean_pooling": {
        "padding too": "the padding was averaged in. Count only tokens whose mask is 1.",
        "padded length": "the sum was divided by the padded length. Divide it by the number of real tokens.",
        "sum": "this is the sum. Divide it by the number of real tokens.",
        "tokens of all": "the sum was divided by the number of tokens of the whole batch. Divide each sentence by its own number.",
        "cls": "this is the vector of [CLS]. Take the mean of all real tokens.",
        "max": "this is max pooling. Take the mean.",
        "root": "the sum was divided by √n. Divide it by n.",
        "special": "[CLS] and [SEP] were left out. Their mask is 1: they count like any token.",
        "pooling axis": "the mean goes over the wrong axis. Take it over the tokens of a sentence, dim=1.",
        "pooling axis/0": VARIANT, "pooling axis/over sentences": VARIANT,
        "padding in the sum": "the padding was added in. Multiply by the mask before the sum.",
        "one for all": "the tokens of all sentences went into one mean. token_vectors[mask.bool()] loses the sentence that a token is from.",
        "first n": "the first n tokens were averaged. The mask says which ones count: padding may stand at the front as well.",
    },
    "cosine": {
        "dot": "this is the dot product. Divide it by both lengths.",
        "only b": "only the second vectors were divided by their length. Divide the first ones too.",
        "only a": "only the first vectors were divided by their length. Divide the second ones too.",
        "length axis": "the lengths go over the wrong axis. Each vector (a row) has its own: dim=1.",
        "one matrix": "the length of the whole matrix was taken. Each vector has its own: norm(dim=1, keepdim=True).",
        "squared": "the root was forgotten. A length is the root of the sum of squares.",
        "manhattan": "the sum of absolute values was taken as a length. Take the root of the sum of squares.",
        "distance": "this is 1 − cosine, a distance. Return the cosine.",
        "one by one": "pairs were compared one by one. Compare every vector of a with every vector of b: [n, m].",
        "rows": "rows and columns are swapped. Each vector of a has a row.",
    },
    "minisbert": {
        "no types": "the types are not used. A token of segment 1 gets row 1 of the table.",
        "rows too": "the rows of the padding are masked as well. A softmax over nothing but −∞ is NaN, and 0 · NaN is NaN. Mask columns only.",
    },
    "packing": {
        "across": "every token attends to all tokens of the batch. Cut query, key and value where a sentence ends, and attend within each.",
        "keys of the first": "every sentence attends to the tokens of the first one. Each has its own: from start to start + length.",
        "longest first": "the sentences come back in another order. Put each result where its sentence stands.",
        "padded without a mask": "the sentences were padded with zeros and the padding was attended to. Cut each sentence to its own length.",
    },
    "softmax_loss": {
        "no abs": "u − v has a sign. Take |u − v|, which does not depend on which sentence comes first.",
        "product": "u · v stands where |u − v| belongs.",
        "difference first": "the features stand in another order. Put them as (u, v, |u − v|).",
        "v first": "u and v are swapped. Put the features as (u, v, |u − v|).",
        "probability": "this is the probability of the right class. Return its negative logarithm.",
        "log probability": "this is the logarithm of the probability, which is negative. Return −log p.",
        "one minus": "this is 1 − p. Return −log p, which grows without bound as p goes to 0.",
        "over the batch": "the softmax goes over the wrong axis. For each pair (a row), the probabilities of the classes add up to 1: dim=1.",
        "score": "this is the score of the right class, negated. The softmax was forgotten.",
        **forgotten({"no loss bias": "the bias was"}),
    },
    "negatives": {
        "no scale": "the cosines were not multiplied by scale.",
        "divided by scale": "the cosines were divided by scale. Multiply by it.",
        "dot products": "these are dot products. The vectors do not have length 1: take the cosine of step 13.",
        "columns of b": "the softmax goes over the wrong axis. For each row of a, the probabilities of all rows of b add up to 1: dim=1.",
        "without itself": "the right answer is missing in the sum of the softmax, which goes over all rows of b.",
        "first answer": "every row looked for answer 0. Row i looks for answer i: the diagonal.",
    },
    "search": {
        "worst first": "the indices come from the smallest cosine to the largest. Sort descending.",
        "by dot": "the rows were compared by dot product. Vectors of the corpus have different lengths: take the cosine.",
        "in order of the corpus": "these are the right rows, in the order of the corpus. Sort them, best first.",
        "one more": "there is one row too many.",
        "best only": "only the best row was returned; top_k are wanted.",
    },
}  # fmt: skip


def hint(wrong: str) -> str:
    """What to say about a mistake."""
    return next(hints[wrong.partition("/")[0]] for hints in HINTS.values() if wrong in hints)


def pick(wrong: Wrong, right: T, variants: Mapping[str, T]) -> T:
    """The variant that one of the mistakes names, or what is right."""
    return next((value for name, value in variants.items() if name in wrong), right)


def split_word(word: str, vocab: Mapping[str, int], wrong: Wrong = RIGHT) -> Any:
    """Longest piece first."""
    if "ids/of [UNK] too" in wrong:
        return [vocab[piece] for piece in split_word(word, vocab)]
    if len(word) > 100 - ("limit at 100" in wrong) and "no limit" not in wrong:
        return ["[UNK]"]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        ends = range(start + 1, len(word) + 1) if "shortest" in wrong else range(len(word), start + ("no letters" in wrong), -1)
        mark = "" if "no ##" in wrong or not start else "##"
        end = next((end for end in ends if mark + word[start:end] in vocab), None)
        if end is None and "letters skipped" in wrong:
            start += 1
        elif end is None:
            return pick(wrong, ["[UNK]"], {"late unknown": [*pieces, "[UNK]"], "nothing": []})
        else:
            pieces.append((mark if "## lost" not in wrong else "") + word[start:end])
            start = end
    return [vocab[piece] for piece in pieces] if "ids" in wrong else pieces


def to_ids(words: Sequence[str], vocab: Mapping[str, int], wrong: Wrong = RIGHT) -> list[Any]:
    """[CLS], the pieces of every word, [SEP], as ids."""
    if "nothing for nothing" in wrong and not words:
        return []
    pieces: list[str] = []
    for word in words:
        pieces += [word if word in vocab else "[UNK]"] if "words" in wrong else split_word(word, vocab)
        pieces += ["[SEP]"] if "each word" in wrong else []
    first, last = ("[SEP]", "[CLS]") if "sep first" in wrong else ("[CLS]", "[SEP]")
    start = [] if "no cls" in wrong else [first]
    end = [] if wrong & {"no sep", "each word"} else [last]
    pieces = start + pieces + end
    return pieces if "pieces" in wrong else [vocab[piece] for piece in pieces]


def embed(
    ids: Tensor, word: Tensor, position: Tensor, token_type: Tensor, wrong: Wrong = RIGHT, types: Tensor | None = None
) -> Tensor:
    """ids [..., length] → the sum of three vectors, [..., length, hidden]."""
    n = ids.shape[-1]
    types = torch.zeros_like(ids) if types is None or "no types" in wrong else types
    words, positions, segments = word[ids], position[:n].expand(*ids.shape, -1), token_type[types]
    places = {"positions from 1": position[1 : n + 1], "position 0": position[0], "position by id": position[ids % len(position)]}
    positions = pick(wrong, positions, places)
    segments = pick(wrong, segments, {"segment 1": token_type[1], "both segments": token_type.sum(0)})
    if "side by side" in wrong:
        return torch.cat([words, positions, segments], dim=-1)
    x = words if "no positions" in wrong else words + positions
    x = x if "no token type" in wrong else x + segments
    return x / 3 if "mean of three" in wrong else x


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, wrong: Wrong = RIGHT) -> Tensor:
    """Layer norm."""
    if "weight for bias" in wrong:
        weight, bias = bias, weight
    eps = pick(wrong, eps, {"eps 1e-5": 1e-5, "no eps": 0.0})
    axes: Any = pick(wrong, -1, {"norm axis": 0, "all tokens": tuple(range(x.dim()))})
    n = x.shape[-1]
    mean = x.mean(axes, keepdim=True)
    variance = (x if "no mean" in wrong else x - mean).square().mean(axes, keepdim=True)
    if "unbiased" in wrong:
        variance = variance * n / (n - 1)
    scale = (variance + eps).sqrt()
    scale = variance.sqrt() + eps if "eps outside" in wrong else variance + eps if "variance" in wrong else scale
    y = (x if "no mean" in wrong else x - mean) / scale
    if "precedence" in wrong:
        return x - mean / scale * weight + bias
    if "bias scaled" in wrong:
        return y * (weight + bias)
    y = y if "no norm weight" in wrong else y * weight
    return y if "no norm bias" in wrong else y + bias


def erf_gelu(x: Tensor, root: float) -> Tensor:
    """GELU with another value for √2."""
    return x * (1 + torch.erf(x / root)) / 2


# What stands for GELU by mistake, and the hint.
WRONG_GELUS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "tanh": (lambda x: F.gelu(x, approximate="tanh"), "this is the tanh approximation of GELU (gelu_new). Use the exact one, with torch.erf."),
    "rounded": (lambda x: erf_gelu(x, 1.41421), "√2 was rounded. Write math.sqrt(2)."),
    "rounded/1.4142": (lambda x: erf_gelu(x, 1.4142), VARIANT),
    "no √2": (lambda x: erf_gelu(x, 1), "the √2 was forgotten. Write erf(x / √2)."),
    "2 for √2": (lambda x: erf_gelu(x, 2), "x was divided by 2. Write erf(x / √2)."),
    "quick": (lambda x: x * torch.sigmoid(1.702 * x), "this is x·σ(1.702 x), the quick approximation. Use the exact GELU, with torch.erf."),
    "silu": (F.silu, "this is SiLU, x·σ(x). BERT uses GELU."),
    "relu": (F.relu, "this is ReLU. BERT uses GELU."),
    "Φ": (lambda x: (1 + torch.erf(x / math.sqrt(2))) / 2, "this is Φ(x) alone. Multiply it by x."),
    "no ½": (lambda x: 2 * F.gelu(x), "the ½ was forgotten."),
    "no 1 +": (lambda x: x * torch.erf(x / math.sqrt(2)) / 2, "the 1 + was forgotten."),
    "erf": (lambda x: x * torch.erf(x / math.sqrt(2)), "½ and 1 + were forgotten: erf goes from −1 to 1, and Φ from 0 to 1."),
}  # fmt: skip
HINTS["gelu"].update({name: hint for name, (_, hint) in WRONG_GELUS.items()})


def gelu(x: Tensor, wrong: Wrong = RIGHT) -> Tensor:
    """The exact one."""
    return pick(wrong, F.gelu, {name: function for name, (function, _) in WRONG_GELUS.items()})(x)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, wrong: Wrong = RIGHT, hidden: int | None = None
) -> Tensor:
    """softmax(q kᵀ / √d) v, with a mask [batch, length] for queries [batch, heads, length, d]."""
    if "swapped" in wrong:
        query, key = key, query
    if "key for value" in wrong:
        key, value = value, key
    d = pick(wrong, query.shape[-1], {"√length": query.shape[-2], "√hidden": hidden or 1})
    scale = pick(wrong, 1 / math.sqrt(d), {"head_dim": 1 / d, "no root": 1, "times": math.sqrt(d), "late": 1})
    scores = query @ key.mT * scale
    if mask is not None and "unmasked" not in wrong:
        seen = (mask == 0 if "inverted" in wrong else mask != 0)[:, None, None, :]  # [batch, 1, 1, length]
        if "mask after" in wrong:
            return (scores.softmax(-1) * seen) @ value
        if wrong & {"zero scores", "mask added"}:
            scores = scores * seen if "zero scores" in wrong else scores + seen
        else:
            scores = scores.masked_fill(~(seen & seen.mT if "rows too" in wrong else seen), -torch.inf)
    if "no softmax" in wrong:
        return scores @ value
    weights = scores.softmax(-2 if "softmax axis" in wrong else -1)
    if "sums of others" in wrong:
        weights = scores.exp() / scores.exp().sum(-1).unsqueeze(-2)
    if "weights" in wrong:
        return weights
    weights = weights / math.sqrt(d) if "late" in wrong else weights
    weights = weights.mT if "columns" in wrong else weights
    return weights @ value


def split(x: Tensor, heads: int, wrong: Wrong = RIGHT) -> Tensor:
    """[..., length, hidden] → [..., heads, length, head_dim]."""
    if wrong & {"view", "view/and back"}:  # the right shape with other values in it
        return x.reshape(*x.shape[:-2], heads, x.shape[-2], -1)
    if wrong & {"interleaved", "interleaved/and back"}:
        return x.unflatten(-1, (-1, heads)).movedim(-1, -3)
    x = x.unflatten(-1, (heads, -1))
    return x if "heads not in front" in wrong else x.transpose(-3, -2)


def join(x: Tensor, wrong: Wrong = RIGHT) -> Tensor:
    """[..., heads, length, head_dim] → [..., length, hidden]."""
    if wrong & {"join", "view/and back"}:
        return x.reshape(*x.shape[:-3], x.shape[-2], -1)
    if "interleaved/and back" in wrong:
        return x.movedim(-3, -1).flatten(-2)
    if "join axes" in wrong:
        return x.mT.reshape(x.shape[-2], -1)
    return (x if "heads not in front" in wrong else x.transpose(-3, -2)).flatten(-2)


NO_BIAS = {
    "no bias of output": ("output.dense",),
    "no biases of q, k, v": ("self.query", "self.key", "self.value"),
    "no bias of query": ("self.query",),
    "no bias of value": ("self.value",),
    "no first bias": ("intermediate.dense",),
    "no second bias": ("output.dense",),
}
FLIPPED = {
    "flip": ("self.query", "self.key", "self.value", "output.dense"),
    "flip/q, k, v": ("self.query", "self.key", "self.value"),
    "flip/output": ("output.dense",),
}


def linear(x: Tensor, w: Mapping[str, Tensor], name: str, wrong: Wrong = RIGHT) -> Tensor:
    """x Wᵀ + b."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    x = x @ (weight if any(name in FLIPPED.get(one, ()) for one in wrong) else weight.T)
    return x if any(name in NO_BIAS.get(one, ()) for one in wrong) else x + bias


def multi_head(x: Tensor, w: Mapping[str, Tensor], heads: int, mask: Tensor | None = None, wrong: Wrong = RIGHT) -> Tensor:
    """Self-attention with the weights below "attention."."""
    heads = 1 if "one head" in wrong else heads
    query, key, value = (split(linear(x, w, f"self.{part}", wrong), heads, wrong) for part in ("query", "key", "value"))
    contexts = join(attention(query, key, value, mask, wrong, hidden=x.shape[-1]), wrong)
    y = contexts if "no output" in wrong else linear(contexts, w, "output.dense", wrong)
    return x + y if "residual" in wrong else y


def feed_forward(x: Tensor, w: Mapping[str, Tensor], wrong: Wrong = RIGHT) -> Tensor:
    """The feed-forward step with the weights "intermediate.dense" and "output.dense"."""
    inner = linear(x, w, "intermediate.dense", wrong)
    if "late bias" in wrong:
        inner = gelu(inner - w["intermediate.dense.bias"]) + w["intermediate.dense.bias"]
    elif not wrong & {"no gelu", "gelu after"}:
        inner = gelu(inner, wrong)
    y = linear(inner, w, "output.dense", wrong)
    y = gelu(y) if wrong & {"gelu after", "gelu twice"} else y
    return x + y if "residual" in wrong else y


def layer(x: Tensor, w: Mapping[str, Tensor], heads: int, eps: float, mask: Tensor | None = None, wrong: Wrong = RIGHT) -> Tensor:
    """One layer."""
    inner = {name.removeprefix("attention."): value for name, value in w.items() if name.startswith("attention.")}
    names = ["attention.output.LayerNorm", "output.LayerNorm"]
    first, second = names[::-1] if "norms swapped" in wrong else names

    def scaled(x: Tensor, name: str) -> Tensor:
        return norm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps, wrong)

    if "pre-norm" in wrong:
        x = x + multi_head(scaled(x, first), inner, heads, mask)
        return x + feed_forward(scaled(x, second), w)
    attended = multi_head(x, inner, heads, mask, wrong)
    if "added after the norm" in wrong:
        y = x + scaled(attended, first)
        return y + scaled(feed_forward(y, w), second)
    y = attended if "no first residual" in wrong else x + attended
    y = y if "no first norm" in wrong else scaled(y, first)
    z = feed_forward(x if "feed of x" in wrong else y, w, wrong)
    if "no second residual" not in wrong:
        z = z + (x if "old residual" in wrong else y)
    return z if "no second norm" in wrong else scaled(z, second)


def bert(
    ids: Tensor,
    w: Mapping[str, Tensor],
    config: Mapping[str, Any],
    mask: Tensor | None = None,
    types: Tensor | None = None,
    wrong: Wrong = RIGHT,
) -> Tensor:
    """The whole stack: [layers + 1, ..., length, hidden]."""
    eps, layers = config["layer_norm_eps"], list(range(config["num_hidden_layers"]))
    tables = [w[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
    embedded = embed(ids, *tables, wrong, types)
    x = norm(embedded, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps, wrong)
    x = embedded if "no embedding norm" in wrong else x
    states = [embedded if "norm not listed" in wrong else x]
    for n in pick(wrong, layers, {"reversed": layers[::-1], "one layer": layers[:1] * len(layers)}):
        prefix = f"encoder.layer.{n}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        x = layer(states[0] if "not handed on" in wrong else x, own, config["num_attention_heads"], eps, mask, wrong)
        states.append(x)
    if "last state" in wrong:
        return states[-1]
    return torch.stack(states["no state 0" in wrong : len(states) - ("no last state" in wrong)])


def mean_pooling(vectors: Tensor, mask: Tensor, wrong: Wrong = RIGHT) -> Tensor:
    """The mean of the tokens whose mask is 1: [batch, length, hidden] → [batch, hidden]."""
    seen = mask[..., None].to(vectors.dtype)
    if "special" in wrong:  # without [CLS] and [SEP]
        seen = seen.clone()
        for row, tokens in enumerate(mask):
            seen[row, tokens.nonzero()[[0, -1]]] = 0
    total, count = (vectors * seen).sum(1), seen.sum(1)
    counts = mask.sum(1).tolist()
    found = {
        "padding too": vectors.mean(1),
        "padding in the sum": vectors.sum(1) / count,
        "pooling axis": vectors.mean(-1),
        "pooling axis/0": vectors.mean(0),
        "pooling axis/over sentences": (vectors * seen).sum(0) / seen.sum(0),
        "one for all": vectors[mask.bool()].mean(0),
        "first n": torch.stack([row[:n].mean(0) for row, n in zip(vectors, counts, strict=True)]),
        "padded length": total / mask.shape[1],
        "sum": total,
        "cls": vectors[:, 0],
        "max": vectors.masked_fill(seen == 0, -torch.inf).amax(1),
        "root": total / count.sqrt(),
        "tokens of all": total / mask.sum(),
    }
    return pick(wrong, total / count, found)


def cosine(a: Tensor, b: Tensor, wrong: Wrong = RIGHT) -> Tensor:
    """[n, dimension], [m, dimension] → [n, m]."""
    if "one by one" in wrong:
        return F.cosine_similarity(a[: len(b)], b[: len(a)])
    axis: Any = pick(wrong, 1, {"length axis": 0, "one matrix": (0, 1)})
    length_a, length_b = (x.norm(dim=axis, keepdim=True) for x in (a, b))
    if "squared" in wrong:
        length_a, length_b = length_a**2, length_b**2
    if "manhattan" in wrong:
        length_a, length_b = (x.abs().sum(1, keepdim=True) for x in (a, b))
    a = a if wrong & {"dot", "only b"} else a / length_a
    found = a @ (b if wrong & {"dot", "only a"} else b / length_b).T
    found = 1 - found if "distance" in wrong else found
    return found.T if "rows" in wrong else found


def packed_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], wrong: Wrong = RIGHT) -> Tensor:
    """Three [heads, tokens, head_dim] of sentences end to end → the same."""
    inner = wrong & {"no root", "softmax axis"}
    if "across" in wrong:
        return attention(query, key, value, wrong=inner)
    parts = list(zip(*(part.split(list(lengths), dim=1) for part in (query, key, value)), strict=True))
    if "padded without a mask" in wrong:
        longest = max(lengths)
        full = [[F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in each] for each in parts]
        found = [attention(*each, wrong=inner)[:, :length] for each, length in zip(full, lengths, strict=True)]
    elif "keys of the first" in wrong:
        found = [attention(one, *parts[0][1:], wrong=inner) for one, *_ in parts]
    else:
        found = [attention(*each, wrong=inner) for each in parts]
    if "longest first" in wrong:
        found = [found[place] for place in sorted(range(len(found)), key=lambda place: -lengths[place])]
    return torch.cat(found, dim=1)


def cross_entropy(scores: Tensor, labels: Tensor, wrong: Wrong = RIGHT) -> Tensor:
    """[rows, classes] and the right class of each row → [rows]."""
    rows = torch.arange(len(scores))
    log_p = scores.log_softmax(0 if wrong & {"over the batch", "columns of b"} else 1)[rows, labels]
    if "score" in wrong:
        return -scores[rows, labels]
    return pick(wrong, -log_p, {"probability": log_p.exp(), "log probability": log_p, "one minus": 1 - log_p.exp()})


def softmax_loss(u: Tensor, v: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, wrong: Wrong = RIGHT) -> Tensor:
    """[batch, dim] twice, [batch] → [batch]."""
    difference = pick(wrong, (u - v).abs(), {"no abs": u - v, "product": u * v})
    order = pick(wrong, (u, v, difference), {"difference first": (difference, u, v), "v first": (v, u, difference)})
    return cross_entropy(torch.cat(order, dim=1) @ weight.T + (0 if "no loss bias" in wrong else bias), labels, wrong)


def negatives_loss(a: Tensor, b: Tensor, scale: float, wrong: Wrong = RIGHT) -> Tensor:
    """[batch, dim] twice → [batch]."""
    cosines = cosine(a, b, Wrong({"dot"}) if "dot products" in wrong else RIGHT)
    scores = cosines * pick(wrong, scale, {"no scale": 1.0, "divided by scale": 1 / scale})
    right = torch.arange(len(a))
    if "without itself" in wrong:
        others = scores.masked_fill(torch.eye(len(a), dtype=torch.bool), -torch.inf)
        return others.logsumexp(dim=1) - scores.diagonal()
    return cross_entropy(scores, right * 0 if "first answer" in wrong else right, wrong)


def search(query: Tensor, corpus: Tensor, top_k: int, wrong: Wrong = RIGHT) -> list[int]:
    """[dim] and [n, dim] → at most top_k indices."""
    scores = cosine(query[None], corpus, Wrong({"dot"}) if "by dot" in wrong else RIGHT)[0]
    order = scores.sort(descending="worst first" not in wrong).indices.tolist()
    found = order[: pick(wrong, top_k, {"one more": top_k + 1, "best only": 1})]
    return sorted(found) if "in order of the corpus" in wrong else found
