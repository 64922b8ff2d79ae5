"""BERT, the encoder, and nothing else.

Read it from top to bottom. A token becomes a vector (`Embeddings`). Tokens attend to each other (`SelfAttention`), and each is
transformed separately (`FeedForward`): a `Layer`. A stack of layers is `Bert`. Weights and results equal those of transformers'
`BertModel` (Devlin et al. 2019; Vaswani et al. 2017). `BertConfig` has the differences of RoBERTa, MPNet and DistilBERT.

A batch is *packed*: its sentences are concatenated without padding, and sentences of equal length are adjacent. Everything but
attention treats each token separately. Attention processes one group of equally long sentences at a time:

    sentences   "a b c" "d e" "f g"
    ids         [a b c d e f g]                       tokens = 7; padded to one length it would be 3 × 3 = 9
    groups      [(1, 3), (2, 2)]                      one sentence of 3 tokens, then two of 2
    scores      [1, heads, 3, 3], [2, heads, 2, 2]    9 + 8 values for each head; padded it would be 27

Notation, used in the shapes beside the code:

    tokens      all tokens of a batch: those of all its sentences, concatenated
    group       (sentences, length): the number of adjacent sentences of exactly that length; a batch is a list of groups
    length      tokens of a sentence;      hidden: size of a token's vector, 768 in bert-base
    heads       attention heads of head_dim each:      heads × head_dim = hidden
    inner       size inside the feed-forward step, usually 4 × hidden
    batch       rows of the padded interface, in `Bert.forward` only
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.checks import check_padded


@dataclass(frozen=True)
class BertConfig:
    """The sizes and switches of one encoder, named as in `config.json`; `hidden_size` is a multiple of `num_attention_heads`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2  # 0: no token types
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    position_offset: int = 0  # position of a sentence's first token; if above 0, the id of [PAD] is one less, as in RoBERTa
    relative_attention_num_buckets: int = 0  # 0: no relative bias
    model_type: str = "bert"  # whose names the checkpoint has (checkpoint/families.py); the model does not use it

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


LengthGroup = tuple[int, int]  # (sentences, length)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact: x Φ(x), with the error function (Hendrycks & Gimpel 2016)
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), partial(F.gelu, approximate="tanh")),
    "relu": F.relu,
    "silu": F.silu,
}


class Embeddings(nn.Module):
    """The normalized sum of three embeddings: of the token, of its position, and of its segment (token type).

    [tokens] ids, [tokens] positions, [tokens] types → [tokens, hidden]          Devlin et al. 2019, section 3, figure 2
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, ids: Tensor, positions: Tensor, token_types: Tensor) -> Tensor:
        x = self.word(ids) if self.token_type is None else self.word(ids) + self.token_type(token_types)  # [tokens, hidden]
        return torch.dropout(self.norm(x + self.position(positions)), self.dropout, self.training)


class RelativeBias(nn.Module):
    """MPNet's bias: a learned scalar for each head and each bucket of distances, added to the attention score of two tokens.

    Half of the buckets are for tokens to the right. In each direction, half of the buckets hold one distance each. The others
    widen logarithmically up to distance 128, and the last one also holds all larger distances.

    [sentences, length] columns → [sentences, heads, length, length]             Raffel et al. 2020 (T5), section 2.1
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.relative_attention_num_buckets, config.num_attention_heads)

    def forward(self, columns: Tensor) -> Tensor:
        ahead = columns[:, None, :] - columns[:, :, None]  # [sentences, length, length], key column minus query column
        distance, half = ahead.abs(), self.table.num_embeddings // 2
        near = half // 2
        # In float32 and truncated, as in the training of the published models: rounding would move the bucket boundaries.
        far = near + ((distance.float() / near).log() / math.log(128 / near) * (half - near)).long()
        bucket = distance.where(distance < near, far.clamp(max=half - 1)) + half * (ahead > 0)
        return self.table(bucket).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """The output for a token is a weighted mean of the values of all tokens in its sentence, in several heads at once.

    [tokens, hidden] → [tokens, hidden]                                          Vaswani et al. 2017, section 3.2
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)  # query, key and value in one product
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        contexts = []
        for block, bias in zip(split(self.qkv(x), groups), biases, strict=True):  # a block's sentences are equally long: no mask
            query, key, value = block.view(*block.shape[:2], 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
            context = attend(query, key, value, bias, dropout)  # [sentences, heads, length, head_dim]
            contexts.append(context.transpose(1, 2).flatten(2))  # [sentences, length, hidden]
        return self.out(join(contexts, x.shape[0]))  # [tokens, hidden]


def split(x: Tensor, groups: Sequence[LengthGroup]) -> list[Tensor]:
    """[tokens, ...] → for each group [sentences, length, ...]. Drops the padding tokens after the last group."""
    ends = accumulate(map(math.prod, groups))
    return [x[end - math.prod(group) : end].view(*group, *x.shape[1:]) for group, end in zip(groups, ends, strict=True)]


def join(blocks: Sequence[Tensor], tokens: int) -> Tensor:
    """For each group [sentences, length, ...] → [tokens, ...], with zeros for padding tokens (see batching.py)."""
    parts = [block.flatten(0, 1) for block in blocks]
    if missing := tokens - sum(part.shape[0] for part in parts):
        parts.append(parts[0].new_zeros(missing, *parts[0].shape[1:]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √head_dim + bias) v, in one fused call                     Vaswani et al. 2017, equation 1

    Three [sentences, heads, length, head_dim], bias [1 or sentences, heads, length, length] → as query

    >>> query, key, value = torch.randn(3, 2, 12, 5, 32)  # 2 sentences of 5 tokens, 12 heads
    >>> weights = (query @ key.transpose(-2, -1) / math.sqrt(32)).softmax(dim=-1)  # [2, 12, 5, 5], rows sum to 1
    >>> torch.allclose(attend(query, key, value), weights @ value, atol=1e-5)
    True
    """
    head_dim = int(query.shape[-1])  # an int in a recorded graph too (inference/graphs.py)
    if missing := -head_dim % 4:  # 16 bytes in float32: otherwise the last bits depend on memory alignment
        query, key, value = (F.pad(x, (0, missing)) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=head_dim**-0.5)[..., :head_dim]


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them, applied to each token separately.

    [tokens, hidden] → [tokens, inner] → [tokens, hidden]                        Vaswani et al. 2017, section 3.3
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Layer(nn.Module):
    """Attention, then feed-forward. Each adds its output to its input, and the sum is normalized ("post-norm").

    [tokens, hidden] → [tokens, hidden]                                          Vaswani et al. 2017, section 3.1
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]) -> Tensor:
        x = self.attention_norm(x + torch.dropout(self.attention(x, groups, biases), self.dropout, self.training))
        return self.feed_forward_norm(x + torch.dropout(self.feed_forward(x), self.dropout, self.training))


class Bert(nn.Module):
    """Embeddings and a stack of layers. A new model is in `eval()` mode, so without dropout, and its parameters are frozen."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.relative_bias = RelativeBias(config) if config.relative_attention_num_buckets else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embeddings.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.embeddings.word.weight.dtype

    def forward_packed(
        self,
        ids: Tensor,
        groups: Sequence[LengthGroup],
        positions: Tensor | None = None,
        token_types: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """[tokens] → [tokens, hidden], the vectors of the last layer.

        Args:
            ids: [tokens], the token ids of all sentences, concatenated in the order of `groups`.
            groups: (sentences, length) for each group of sentences of equal length; tokens after the last group are padding.
            positions: [tokens], rows of the position table; by default those that `_positions` gives each sentence.
            token_types: [tokens]; by default all 0, the first segment.
            columns: [tokens], each token's index in its sentence, for a relative bias; by default 0, 1, 2 … in each sentence.

        Returns:
            [tokens, hidden].
        """
        if positions is None:
            positions = join([self._positions(of_group) for of_group in split(ids, groups)], ids.shape[0])
        token_types = torch.zeros_like(ids) if token_types is None else token_types
        biases: list[Tensor | None] = [None] * len(groups)
        if self.relative_bias is not None:  # shared by all layers and, without columns, by all sentences of a group
            counted = [torch.arange(length, device=ids.device)[None] for _, length in groups]
            biases = [self.relative_bias(x) for x in (counted if columns is None else split(columns, groups))]
        return self._stack(self.layers, self.embeddings(ids, positions, token_types), groups, biases)

    @staticmethod  # a plain function, which inference/graphs.py replaces by its own
    def _stack(layers: nn.ModuleList, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]) -> Tensor:
        for layer in layers:
            x = layer(x, groups, biases)
        return x  # [tokens, hidden]

    def _positions(self, ids: Tensor) -> Tensor:
        """[sentences, length] ids → same shape: 0, 1, 2 …; with an offset, [PAD] has the position before it and is not counted."""
        padding = self.config.position_offset - 1
        if padding < 0:
            return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        counted = ids != padding
        return padding + counted.cumsum(dim=1) * counted

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """[batch, length] → [batch, length, hidden]: the usual padded interface to `forward_packed`.

        Where the mask is 0, nothing is computed, no token attends to that position, and the result is zero there. Any mask works:
        padding on either side, holes, a row of zeros. As in transformers, positions count all columns, masked or not.

        Args:
            input_ids: [batch, length], integers below `vocab_size`.
            attention_mask: [batch, length] of 0 and 1 (or False and True); by default all 1.
            token_type_ids: [batch, length], integers below `type_vocab_size`; by default all 0.

        Returns:
            [batch, length, hidden].

        Raises:
            ValueError: if a shape, an id, a type or a mask value is out of its range.
            TypeError: if ids or types are not integers.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        config = self.config
        longest = config.max_position_embeddings - config.position_offset
        check_padded(input_ids, mask, types, longest=longest, vocab_size=config.vocab_size, types=config.type_vocab_size or 1)
        lengths, order = mask.bool().sum(dim=1).sort()  # rows of equal length become adjacent
        row, column = mask[order].nonzero(as_tuple=True)  # both [tokens]
        at = order[row], column
        groups = [(sentences, length) for length, sentences in Counter(lengths.tolist()).items() if length]  # drops empty rows
        hidden = self.embeddings.word.weight.new_zeros(*input_ids.shape, config.hidden_size)
        if groups:
            hidden[at] = self.forward_packed(input_ids[at], groups, self._positions(input_ids)[at], types[at], column)
        return hidden  # [batch, length, hidden]
