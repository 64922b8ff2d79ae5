"""A plain BERT in which every part can be got wrong on purpose, and what to say to a learner who made that mistake.

`wrong` names a mistake and is handed down to the part that knows it. Without it, every function is right. A learner whose function
returns exactly the values of a mistake has made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

HINTS = {
    # 1. wordpiece
    "no ##": '"##" was forgotten: a piece that is not at the start of its word has "##" before its letters in the vocabulary.',
    "## lost": 'the pieces are right, but "##" is missing in the result: it belongs to the piece\'s name.',
    "shortest": "the shortest piece was taken each time. Try the longest first, and shorten it from the end.",
    "late unknown": 'a word with a part that no piece fits is as a whole "[UNK]", not only that part.',
    "nothing": 'a word with a part that no piece fits is "[UNK]", as a list of one.',
    "no limit": 'a word of more than 100 letters is "[UNK]", whatever its letters.',
    "ids": "these are the ids. This step returns the pieces themselves, as text; ids come in the next step.",
    "letters skipped": 'a letter that no piece fits was left out. The whole word is then ["[UNK]"].',
    "no letters": "pieces of a single letter were never tried: the shortest end is start + 1.",
    "limit at 100": "a word of exactly 100 letters is still split; only one of more than 100 is not.",
    # 2. ids
    "bare": "[CLS] at the start and [SEP] at the end were forgotten.",
    "no cls": "[CLS] at the start was forgotten.",
    "no sep": "[SEP] at the end was forgotten.",
    "sep first": "[CLS] and [SEP] are swapped: [CLS] is first.",
    "pieces": "these are the pieces. This step returns their ids: look each one up in vocab.",
    "words": "whole words were looked up. Split each word into its pieces first (step 1).",
    "each word": "there is a [SEP] after every word. There is only one, at the end of the sentence.",
    "nothing for nothing": "a sentence without words still has its [CLS] and [SEP].",
    # 3. embeddings
    "no positions": "the position embeddings were forgotten.",
    "no token type": "the token type was forgotten: every token here is of segment 0, whose vector is row 0 of token_type.",
    "words only": "only the words were looked up. Position and token type are added to them.",
    "positions from 1": "positions count from 0: the first token gets row 0 of the table, not row 1.",
    "position 0": "every token got the position 0. The n-th token gets row n of the table.",
    "position by id": "the position was looked up by the id of the word. It is the token's place in the sentence: 0, 1, 2, …",
    "segment 1": "this is segment 1; a single sentence is segment 0.",
    "both segments": "both segments were added; a token is in one of them, here in segment 0.",
    "mean of three": "the mean of the three was taken; they are added.",
    "side by side": "the three were concatenated (cat); they are added.",
    # 4. layer_norm
    "eps outside": "eps stands outside of the root. It is added to the variance: √(variance + eps).",
    "unbiased": "the variance is the unbiased one, divided by n − 1, which is what x.var() and x.std() give. Layer norm divides by n: correction=0.",
    "x.std": "x.std() divides by n − 1, and eps belongs under the root: √(variance + eps), with the variance divided by n.",
    "norm axis": "mean and variance go over the wrong axis: each token is normalized by itself, over its own dimensions, dim=-1.",
    "all tokens": "mean and variance were taken over all tokens together. Each token is normalized by itself: dim=-1, keepdim=True.",
    "no eps": "eps was forgotten.",
    "no norm bias": "the bias was forgotten.",
    "no norm weight": "the weight was forgotten.",
    "neither": "weight and bias were forgotten.",
    "variance": "the root was forgotten: divide by the standard deviation, not by the variance.",
    "no mean": "the mean was not subtracted.",
    "bias scaled": "the bias was multiplied as well: it is y · weight + bias, not y · (weight + bias).",
    "precedence": "the division binds more tightly than the minus: write (x - mean) / …, with parentheses.",
    # 5. gelu
    "tanh": "this is the tanh approximation of GELU (gelu_new). BERT has the exact one, with the error function: torch.erf.",
    "rounded": "√2 was rounded. Write math.sqrt(2).",
    "no √2": "the √2 was forgotten: erf(x / √2).",
    "2 for √2": "erf(x / 2) where erf(x / √2) is meant.",
    "quick": "this is x·σ(1.702 x), the quick approximation. BERT has the exact GELU, with torch.erf.",
    "silu": "this is SiLU, x·σ(x).",
    "relu": "this is ReLU; BERT has GELU.",
    "Φ": "this is Φ(x) alone; GELU is x·Φ(x).",
    "no ½": "the ½ was forgotten.",
    "no 1 +": "the 1 + was forgotten.",
    "erf": "½ and 1 + were forgotten: erf goes from −1 to 1, and Φ from 0 to 1.",
    # 6. attention
    "no root": "the scores were not divided by √head_dim.",
    "softmax axis": "the softmax goes over the wrong axis. For each query (a row), the weights of all keys add up to 1: dim=-1.",
    "head_dim": "the scores were divided by head_dim; it is √head_dim.",
    "times": "the scores were multiplied by √head_dim; they are divided by it.",
    "late": "the division by √head_dim comes after the softmax. It belongs before: the scores are divided.",
    "swapped": "query and key have changed roles: the scores are query @ key.T, a row for each query.",
    "no softmax": "the softmax was forgotten.",
    "√length": "the scores were divided by √length; it is √head_dim, the width of a query: query.shape[-1].",
    "sums of others": "each row was divided by the sums of all rows. Divide it by its own: sum(dim=-1, keepdim=True).",
    "columns": "the weights were transposed before the product with the values: it is weights @ value.",
    "weights": "these are the weights. Return the values, weighted by them: weights @ value.",
    # 7. heads
    "view": "the heads were split with view or reshape alone, which mixes the tokens. First [length, heads, head_dim], which cuts each vector into heads, then transpose to [heads, length, head_dim].",
    "join": "the heads were joined without transposing back first: from [heads, length, head_dim] to [length, heads, head_dim], then flatten.",
    "interleaved": "each head took every heads-th dimension. A head has head_dim neighbouring dimensions: unflatten(-1, (heads, head_dim)).",
    "no output": "the output projection (output.dense) was forgotten.",
    "no bias of output": "the bias of the output projection was forgotten.",
    "no biases of q, k, v": "the biases of query, key and value were forgotten.",
    "no biases": "all biases were forgotten.",
    "no bias of query": "the bias of the query was forgotten.",
    "no bias of value": "the bias of the value was forgotten.",
    "flip": "x @ W where x @ W.T is meant: the checkpoint stores a weight as [out, in], as nn.Linear does.",
    "√hidden": "the scores were divided by √hidden; it is √head_dim, the width of one head.",
    "one head": "there is one single head over the whole width. Cut the vectors into heads, and let each head attend by itself.",
    "key for value": "key and value have changed roles: attention(query, key, value).",
    "heads not in front": "the heads are not at the front: with [length, heads, head_dim], the heads of one token attend to each other. transpose(0, 1).",
    "join axes": "back from the heads, the wrong two axes were swapped: [heads, length, head_dim] becomes [length, heads, head_dim] by transpose(0, 1).",
    "residual": "the residual is not part of this step: what comes in is added in step 9.",
    # 8. feed_forward
    "no gelu": "there is no GELU between the two layers.",
    "gelu after": "the GELU comes after the second layer; it belongs between the two.",
    "gelu twice": "a GELU too many: there is one between the two layers, and none after the second.",
    "no first bias": "the bias of the first layer (intermediate) was forgotten.",
    "no second bias": "the bias of the second layer (output) was forgotten.",
    "no bias at all": "both biases were forgotten.",
    "late bias": "the first bias is added after the GELU. The GELU is of the whole first product, with its bias.",
    # 9. layer
    "pre-norm": "this is pre-norm: the norm stands before attention and feed-forward. BERT is post-norm: x = norm(x + attention(x)).",
    "no residuals": "both residuals were forgotten: what comes in is added to what attention and feed-forward give.",
    "no first residual": "the residual around the attention was forgotten.",
    "no second residual": "the residual around the feed-forward step was forgotten.",
    "old residual": "the feed-forward step's residual is the layer's input; it is what comes out of the first norm.",
    "added after the norm": "the residual is added after the norm. It is norm(x + attention(x)), not x + norm(attention(x)).",
    "norms swapped": "the two layer norms are swapped: attention.output.LayerNorm is the first.",
    "no first norm": "the layer norm after the attention was forgotten.",
    "no second norm": "the layer norm at the end was forgotten.",
    "feed of x": "the feed-forward step was given the layer's input; it gets y, what comes out of the first norm.",
    "weight for bias": "weight and bias of the layer norms are swapped.",
    "eps 1e-5": "eps is 1e-5, PyTorch's default. BERT's stands in its config: layer_norm_eps, 1e-12.",
    # 10. stack
    "no embedding norm": "the layer norm after the embeddings is missing.",
    "one layer": "every layer has the weights of layer 0. The n-th has those that begin with encoder.layer.n.",
    "not handed on": "every layer got the embeddings. Each gets what the one before it gave.",
    "reversed": "the layers ran in reverse.",
    "norm not listed": "state 0 is the embeddings after their layer norm; the list has them before it.",
    "last state": "only the last state was returned. Return the embeddings and the output of every layer, as a list.",
    "no state 0": "the embeddings are missing in the list: they come first, then every layer.",
    "no last state": "the last layer is missing in the list.",
    # 11. mask
    "mask after": "the mask was multiplied in after the softmax, so the weights no longer add up to 1. Put −∞ into the scores before it.",
    "zero scores": "the masked scores were set to 0, but e⁰ = 1: the softmax still gives them weight. They must be −∞.",
    "mask added": "the mask itself was added to the scores. Add 0 where it is 1, and −∞ where it is 0.",
    "inverted": "the mask is the wrong way round: 1 keeps a token, 0 hides it.",
    "unmasked": "real tokens look at the padding: the mask is not used, or on the wrong axis. It hides keys, the last axis of the scores: [batch, 1, 1, length].",
    "rows too": "the rows of the padding are masked as well: a softmax over nothing but −∞ is NaN, and 0 · NaN is NaN. Mask columns only.",
    # 12. mean_pooling
    "padding too": "the padding was averaged in: only the tokens whose mask is 1 count.",
    "padded length": "the sum leaves the padding out, but was divided by the padded length. Divide by the number of real tokens.",
    "sum": "this is the sum; divide by the number of real tokens.",
    "tokens of all": "the sum was divided by the number of tokens of the whole batch. Divide each sentence by its own number.",
    "cls": "this is the vector of [CLS]; the mean of all real tokens is wanted.",
    "max": "this is max pooling; the mean is wanted.",
    "root": "this is the sum divided by √n; divide by n.",
    "special": "[CLS] and [SEP] were left out. Their mask is 1: they count like any token.",
    "pooling axis": "the mean goes over the wrong axis: over the tokens of a sentence, dim=1.",
    "padding in the sum": "the padding was added in: multiply by the mask before the sum.",
    "one for all": "the tokens of all sentences went into one mean: token_vectors[mask.bool()] forgets which sentence they are from.",
    "first n": "the first n tokens were averaged. The mask says which ones count: padding may stand at the front as well.",
    # 13. cosine
    "dot": "this is the dot product. The cosine divides it by both lengths.",
    "only b": "only the second vectors were divided by their length.",
    "only a": "only the first vectors were divided by their length.",
    "length axis": "the lengths go over the wrong axis: each vector (a row) has its own, dim=1.",
    "one matrix": "the length of the whole matrix was taken. Each vector has its own: norm(dim=1, keepdim=True).",
    "squared": "the length is the root of the sum of squares; here it was squared again.",
    "manhattan": "the length is the root of the sum of squares, not the sum of absolute values.",
    "distance": "this is 1 − cosine, a distance.",
    "one by one": "pairs were compared one by one. Compare every vector of a with every vector of b: [n, m].",
    "rows": "rows and columns are swapped: a row for each vector of a.",
    # 14. minisbert
    "no types": "the types are not used: a token of segment 1 gets row 1 of the table.",
    # 15. packing
    "across": "every token attends to all tokens of the batch. Cut query, key and value where a sentence ends, and attend within each.",
    "keys of the first": "every sentence attends to the tokens of the first one. Each has its own: from start to start + length.",
    "longest first": "the sentences come back in another order. Put each result where its sentence stands.",
    "padded without a mask": "the sentences were padded with zeros and the padding was attended to. Cut each sentence to its own length.",
    # 16. softmax_loss
    "no abs": "u − v has a sign, and the loss should not depend on which sentence comes first there: |u − v|.",
    "product": "u · v is among the features where |u − v| belongs.",
    "difference first": "the features stand in another order. It is (u, v, |u − v|).",
    "v first": "u and v are swapped. It is (u, v, |u − v|).",
    "no loss bias": "the bias was forgotten.",
    "probability": "this is the probability of the right class. The loss is its negative logarithm.",
    "log probability": "this is the logarithm of the probability, which is negative. The loss is −log p.",
    "one minus": "this is 1 − p. The loss is −log p, which grows without bound as p goes to 0.",
    "over the batch": "the softmax goes over the wrong axis. For each pair (a row), the probabilities of the classes add up to 1: dim=1.",
    "score": "this is the score of the right class, negated. The softmax was forgotten.",
    # 17. negatives
    "no scale": "the cosines were not multiplied by scale.",
    "divided by scale": "the cosines were divided by scale. They are multiplied by it.",
    "dot products": "these are dot products. The vectors have other lengths than 1: take the cosine of step 13.",
    "columns of b": "the softmax goes over the wrong axis. For each row of a, the probabilities of all rows of b add up to 1: dim=1.",
    "without itself": "the right answer is missing in the sum under the fraction. The softmax goes over all rows of b.",
    "first answer": "every row looked for answer 0. Row i looks for answer i: the diagonal.",
    # 18. search
    "worst first": "the indices come from the smallest cosine to the largest. Sort descending.",
    "by dot": "the rows were compared by dot product. Vectors of the corpus have different lengths: take the cosine.",
    "in order of the corpus": "these are the right rows, in the order of the corpus. Best first.",
    "one more": "there is one row too many.",
    "best only": "only the best row was returned; top_k are wanted.",
}  # fmt: skip


def hint(wrong: str) -> str:
    """What to say about a mistake. Variants of one mistake, "flip/all" and "flip/output", share what is said."""
    return HINTS[wrong.partition("/")[0]]


def split_word(word: str, vocab: Mapping[str, int], wrong: str = "") -> Any:
    """Longest piece first."""
    if wrong == "ids/of [UNK] too":
        return [vocab[piece] for piece in split_word(word, vocab)]
    if len(word) > 100 - (wrong == "limit at 100") and wrong != "no limit":
        return ["[UNK]"]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        ends = range(start + 1, len(word) + 1) if wrong == "shortest" else range(len(word), start + (wrong == "no letters"), -1)
        mark = "" if wrong == "no ##" or not start else "##"
        end = next((end for end in ends if mark + word[start:end] in vocab), None)
        if end is None and wrong == "letters skipped":
            start += 1
        elif end is None:
            return {"late unknown": [*pieces, "[UNK]"], "nothing": []}.get(wrong, ["[UNK]"])
        else:
            pieces.append((mark if wrong != "## lost" else "") + word[start:end])
            start = end
    return [vocab[piece] for piece in pieces] if wrong == "ids" else pieces


def to_ids(words: Sequence[str], vocab: Mapping[str, int], wrong: str = "") -> list[Any]:
    """[CLS], the pieces of every word, [SEP], as ids."""
    if wrong == "nothing for nothing" and not words:
        return []
    pieces: list[str] = []
    for word in words:
        pieces += [word if word in vocab else "[UNK]"] if wrong == "words" else split_word(word, vocab)
        pieces += ["[SEP]"] if wrong == "each word" else []
    first, last = ("[SEP]", "[CLS]") if wrong == "sep first" else ("[CLS]", "[SEP]")
    start = [] if wrong in ("bare", "no cls") else [first]
    end = [] if wrong in ("bare", "no sep", "each word") else [last]
    pieces = start + pieces + end
    return pieces if wrong == "pieces" else [vocab[piece] for piece in pieces]


def embed(ids: Tensor, word: Tensor, position: Tensor, token_type: Tensor, wrong: str = "", types: Tensor | None = None) -> Tensor:
    """ids [..., length] → the sum of three vectors, [..., length, hidden]."""
    n = ids.shape[-1]
    types = torch.zeros_like(ids) if types is None or wrong == "no types" else types
    words, positions, segments = word[ids], position[:n].expand(*ids.shape, -1), token_type[types]
    positions = {
        "positions from 1": position[1 : n + 1],
        "position 0": position[0],
        "position by id": position[ids % len(position)],
    }.get(wrong, positions)
    segments = {"segment 1": token_type[1], "both segments": token_type.sum(0)}.get(wrong, segments)
    if wrong == "side by side":
        return torch.cat([words, positions, segments], dim=-1)
    x = words
    if wrong not in ("no positions", "words only"):
        x = x + positions
    if wrong not in ("no token type", "words only"):
        x = x + segments
    return x / 3 if wrong == "mean of three" else x


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, wrong: str = "") -> Tensor:
    """Layer norm."""
    if wrong == "weight for bias":
        weight, bias = bias, weight
    eps = {"eps 1e-5": 1e-5, "no eps": 0.0}.get(wrong, eps)
    axes: Any = {"norm axis": 0, "all tokens": tuple(range(x.dim()))}.get(wrong, -1)
    n = x.shape[-1]
    mean = x.mean(axes, keepdim=True)
    variance = (x if wrong == "no mean" else x - mean).square().mean(axes, keepdim=True)
    if wrong in ("unbiased", "x.std"):
        variance = variance * n / (n - 1)
    scale = (variance + eps).sqrt()
    scale = variance.sqrt() + eps if wrong in ("eps outside", "x.std") else variance + eps if wrong == "variance" else scale
    y = (x if wrong == "no mean" else x - mean) / scale
    if wrong == "precedence":
        return x - mean / scale * weight + bias
    if wrong == "bias scaled":
        return y * (weight + bias)
    y = y if wrong in ("no norm weight", "neither") else y * weight
    return y if wrong in ("no norm bias", "neither") else y + bias


def erf_gelu(x: Tensor, root: float) -> Tensor:
    """GELU with another value for √2."""
    return x * (1 + torch.erf(x / root)) / 2


WRONG_GELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda x: F.gelu(x, approximate="tanh"),
    "rounded": lambda x: erf_gelu(x, 1.41421),
    "rounded/1.4142": lambda x: erf_gelu(x, 1.4142),
    "no √2": lambda x: erf_gelu(x, 1),
    "2 for √2": lambda x: erf_gelu(x, 2),
    "quick": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "relu": F.relu,
    "Φ": lambda x: (1 + torch.erf(x / math.sqrt(2))) / 2,
    "no ½": lambda x: 2 * F.gelu(x),
    "no 1 +": lambda x: x * torch.erf(x / math.sqrt(2)) / 2,
    "erf": lambda x: x * torch.erf(x / math.sqrt(2)),
    "no gelu": lambda x: x,
}


def gelu(x: Tensor, wrong: str = "") -> Tensor:
    """The exact one."""
    return WRONG_GELUS.get(wrong, F.gelu)(x)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, wrong: str = "", hidden: int | None = None
) -> Tensor:
    """softmax(q kᵀ / √d) v, with a mask [batch, length] for queries [batch, heads, length, d]."""
    if wrong == "swapped":
        query, key = key, query
    if wrong == "key for value":
        key, value = value, key
    d = {"√length": query.shape[-2], "√hidden": hidden or 1}.get(wrong, query.shape[-1])
    scale = {"head_dim": 1 / d, "no root": 1, "times": math.sqrt(d), "late": 1}.get(wrong, 1 / math.sqrt(d))
    scores = query @ key.mT * scale
    if mask is not None and wrong != "unmasked":
        seen = (mask == 0 if wrong == "inverted" else mask != 0)[:, None, None, :]  # [batch, 1, 1, length]
        if wrong == "mask after":
            return (scores.softmax(-1) * seen) @ value
        if wrong in ("zero scores", "mask added"):
            scores = scores * seen if wrong == "zero scores" else scores + seen
        else:
            scores = scores.masked_fill(~(seen & seen.mT if wrong == "rows too" else seen), -torch.inf)
    if wrong == "no softmax":
        return scores @ value
    weights = scores.softmax(-2 if wrong == "softmax axis" else -1)
    if wrong == "sums of others":
        weights = scores.exp() / scores.exp().sum(-1).unsqueeze(-2)
    if wrong == "weights":
        return weights
    weights = {"columns": weights.mT, "late": weights / math.sqrt(d)}.get(wrong, weights)
    return weights @ value


def split(x: Tensor, heads: int, wrong: str = "") -> Tensor:
    """[..., length, hidden] → [..., heads, length, head_dim]."""
    if wrong.startswith("view"):  # the right shape with other values in it
        return x.reshape(*x.shape[:-2], heads, x.shape[-2], -1)
    if wrong.startswith("interleaved"):
        return x.unflatten(-1, (-1, heads)).movedim(-1, -3)
    x = x.unflatten(-1, (heads, -1))
    return x if wrong == "heads not in front" else x.transpose(-3, -2)


def join(x: Tensor, wrong: str = "") -> Tensor:
    """[..., heads, length, head_dim] → [..., length, hidden]."""
    if wrong in ("join", "view/and back"):
        return x.reshape(*x.shape[:-3], x.shape[-2], -1)
    if wrong == "interleaved/and back":
        return x.movedim(-3, -1).flatten(-2)
    if wrong == "join axes":
        return x.mT.reshape(x.shape[-2], -1)
    return (x if wrong == "heads not in front" else x.transpose(-3, -2)).flatten(-2)


NO_BIAS = {
    "no bias of output": ("output.dense",),
    "no biases of q, k, v": ("self.query", "self.key", "self.value"),
    "no biases": ("self.query", "self.key", "self.value", "output.dense"),
    "no bias of query": ("self.query",),
    "no bias of value": ("self.value",),
    "no first bias": ("intermediate.dense",),
    "no second bias": ("output.dense",),
    "no bias at all": ("intermediate.dense", "output.dense"),
}
FLIPPED = {
    "flip": ("self.query", "self.key", "self.value", "output.dense"),
    "flip/q, k, v": ("self.query", "self.key", "self.value"),
    "flip/output": ("output.dense",),
}


def linear(x: Tensor, w: Mapping[str, Tensor], name: str, wrong: str = "") -> Tensor:
    """x Wᵀ + b."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    x = x @ (weight if name in FLIPPED.get(wrong, ()) else weight.T)
    return x if name in NO_BIAS.get(wrong, ()) else x + bias


def multi_head(x: Tensor, w: Mapping[str, Tensor], heads: int, mask: Tensor | None = None, wrong: str = "") -> Tensor:
    """Self-attention with the weights below "attention."."""
    heads = 1 if wrong == "one head" else heads
    query, key, value = (split(linear(x, w, f"self.{part}", wrong), heads, wrong) for part in ("query", "key", "value"))
    contexts = join(attention(query, key, value, mask, wrong, hidden=x.shape[-1]), wrong)
    y = contexts if wrong == "no output" else linear(contexts, w, "output.dense", wrong)
    return x + y if wrong == "residual" else y


def feed_forward(x: Tensor, w: Mapping[str, Tensor], wrong: str = "") -> Tensor:
    """The feed-forward step with the weights "intermediate.dense" and "output.dense"."""
    inner = linear(x, w, "intermediate.dense", wrong)
    if wrong == "late bias":
        inner = gelu(inner - w["intermediate.dense.bias"]) + w["intermediate.dense.bias"]
    elif wrong != "gelu after":
        inner = gelu(inner, wrong)
    y = linear(inner, w, "output.dense", wrong)
    y = gelu(y) if wrong in ("gelu after", "gelu twice") else y
    return x + y if wrong == "residual" else y


def layer(x: Tensor, w: Mapping[str, Tensor], heads: int, eps: float, mask: Tensor | None = None, wrong: str = "") -> Tensor:
    """One layer."""
    inner = {name.removeprefix("attention."): value for name, value in w.items() if name.startswith("attention.")}
    names = ["attention.output.LayerNorm", "output.LayerNorm"]
    first, second = names[::-1] if wrong == "norms swapped" else names

    def scaled(x: Tensor, name: str) -> Tensor:
        return norm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps, wrong)

    if wrong == "pre-norm":
        x = x + multi_head(scaled(x, first), inner, heads, mask)
        return x + feed_forward(scaled(x, second), w)
    attended = multi_head(x, inner, heads, mask, wrong)
    if wrong == "added after the norm":
        y = x + scaled(attended, first)
        return y + scaled(feed_forward(y, w), second)
    y = attended if wrong in ("no residuals", "no first residual") else x + attended
    y = y if wrong == "no first norm" else scaled(y, first)
    z = feed_forward(x if wrong == "feed of x" else y, w, wrong)
    if wrong not in ("no residuals", "no second residual"):
        z = z + (x if wrong == "old residual" else y)
    return z if wrong == "no second norm" else scaled(z, second)


def bert(
    ids: Tensor,
    w: Mapping[str, Tensor],
    config: Mapping[str, Any],
    mask: Tensor | None = None,
    types: Tensor | None = None,
    wrong: str = "",
) -> Tensor:
    """The whole stack: [layers + 1, ..., length, hidden]."""
    eps, layers = config["layer_norm_eps"], list(range(config["num_hidden_layers"]))
    tables = [w[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
    embedded = embed(ids, *tables, wrong, types)
    x = norm(embedded, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps, wrong)
    x = embedded if wrong == "no embedding norm" else x
    states = [embedded if wrong == "norm not listed" else x]
    for n in {"reversed": layers[::-1], "one layer": layers[:1] * len(layers)}.get(wrong, layers):
        prefix = f"encoder.layer.{n}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        x = layer(states[0] if wrong == "not handed on" else x, own, config["num_attention_heads"], eps, mask, wrong)
        states.append(x)
    if wrong == "last state":
        return states[-1]
    return torch.stack({"no state 0": states[1:], "no last state": states[:-1]}.get(wrong, states))


def mean_pooling(vectors: Tensor, mask: Tensor, wrong: str = "") -> Tensor:
    """The mean of the tokens whose mask is 1: [batch, length, hidden] → [batch, hidden]."""
    seen = mask[..., None].to(vectors.dtype)
    if wrong == "special":  # without [CLS] and [SEP]
        seen = seen.clone()
        for row, tokens in enumerate(mask):
            seen[row, tokens.nonzero()[[0, -1]]] = 0
    total, count = (vectors * seen).sum(1), seen.sum(1)
    counts = mask.sum(1).tolist()
    return {
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
    }.get(wrong, total / count)


def cosine(a: Tensor, b: Tensor, wrong: str = "") -> Tensor:
    """[n, dimension], [m, dimension] → [n, m]."""
    if wrong == "one by one":
        return F.cosine_similarity(a[: len(b)], b[: len(a)])
    axis: Any = {"length axis": 0, "one matrix": (0, 1)}.get(wrong, 1)
    length_a, length_b = (x.norm(dim=axis, keepdim=True) for x in (a, b))
    if wrong == "squared":
        length_a, length_b = length_a**2, length_b**2
    if wrong == "manhattan":
        length_a, length_b = (x.abs().sum(1, keepdim=True) for x in (a, b))
    a = a if wrong in ("dot", "only b") else a / length_a
    found = a @ (b if wrong in ("dot", "only a") else b / length_b).T
    return {"distance": 1 - found, "rows": found.T}.get(wrong, found)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], wrong: str = "") -> Tensor:
    """Three [heads, tokens, head_dim] of sentences end to end → the same."""
    inner = wrong if wrong in ("no root", "softmax axis") else ""
    if wrong == "across":
        return attention(query, key, value)
    parts = list(zip(*(part.split(list(lengths), dim=1) for part in (query, key, value)), strict=True))
    if wrong == "padded without a mask":
        longest = max(lengths)
        full = [[F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in each] for each in parts]
        found = [attention(*each)[:, :length] for each, length in zip(full, lengths, strict=True)]
    elif wrong == "keys of the first":
        found = [attention(one, *parts[0][1:]) for one, *_ in parts]
    else:
        found = [attention(*each, wrong=inner) for each in parts]
    if wrong == "longest first":
        found = [found[place] for place in sorted(range(len(found)), key=lambda place: -lengths[place])]
    return torch.cat(found, dim=1)


def cross_entropy(scores: Tensor, labels: Tensor, wrong: str = "") -> Tensor:
    """[rows, classes] and the right class of each row → [rows]."""
    rows = torch.arange(len(scores))
    log_p = scores.log_softmax(0 if wrong in ("over the batch", "columns of b") else 1)[rows, labels]
    if wrong == "score":
        return -scores[rows, labels]
    return {"probability": log_p.exp(), "log probability": log_p, "one minus": 1 - log_p.exp()}.get(wrong, -log_p)


def softmax_loss(u: Tensor, v: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, wrong: str = "") -> Tensor:
    """[batch, dim] twice, [batch] → [batch]."""
    difference = {"no abs": u - v, "product": u * v}.get(wrong, (u - v).abs())
    order = {"difference first": (difference, u, v), "v first": (v, u, difference)}.get(wrong, (u, v, difference))
    return cross_entropy(torch.cat(order, dim=1) @ weight.T + (0 if wrong == "no loss bias" else bias), labels, wrong)


def negatives_loss(a: Tensor, b: Tensor, scale: float, wrong: str = "") -> Tensor:
    """[batch, dim] twice → [batch]."""
    cosines = cosine(a, b, "dot" if wrong == "dot products" else "")
    scores = cosines * {"no scale": 1, "divided by scale": 1 / scale}.get(wrong, scale)
    right = torch.arange(len(a))
    if wrong == "without itself":
        others = scores.masked_fill(torch.eye(len(a), dtype=torch.bool), -torch.inf)
        return others.logsumexp(dim=1) - scores.diagonal()
    return cross_entropy(scores, right * 0 if wrong == "first answer" else right, wrong)


def search(query: Tensor, corpus: Tensor, top_k: int, wrong: str = "") -> list[int]:
    """[dim] and [n, dim] → at most top_k indices."""
    scores = cosine(query[None], corpus, "dot" if wrong == "by dot" else "")[0]
    order = scores.sort(descending=wrong != "worst first").indices.tolist()
    found = order[: {"one more": top_k + 1, "best only": 1}.get(wrong, top_k)]
    return sorted(found) if wrong == "in order of the corpus" else found
