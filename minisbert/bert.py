"""BERT, the encoder, and nothing else.

Read it from top to bottom. A token becomes a vector (`Embeddings`), tokens attend to each other (`SelfAttention`), each is
transformed alone (`FeedForward`), both steps make a `Layer`, and a stack of layers is `Bert`. After Devlin et al. 2019 (BERT) and
Vaswani et al. 2017 (the Transformer), with weights and results equal to those of transformers' `BertModel`.

Sentences differ in length. Instead of padding them to one length and masking the padding, a batch here is *packed*: the tokens of
all its sentences stand end to end, and sentences of equal length are neighbours. Only attention needs to know where a sentence
ends. Everything else sees one long list of tokens, and nothing is spent on padding.

    sentences   "a b c" "d e" "f g"
    ids         [a b c d e f g]             tokens = 7
    groups      [(1, 3), (2, 2)]            one sentence of 3 tokens, then two of 2

Notation, used in the shapes beside the code:

    tokens      all tokens of a batch, of all its sentences, end to end
    group       (sentences, length): the number of neighbouring sentences of exactly that length; a batch is a list of groups
    hidden      size of a token's vector, 768 in bert-base;      heads × head_dim = hidden
    inner       size inside the feed-forward step, usually 4 × hidden
    batch       rows of the padded interface, used in `Bert.forward` only
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.errors import CheckpointError


@dataclass(frozen=True)
class BertConfig:
    """The sizes and switches of one BERT encoder, under the names of `config.json`.

    Source: Devlin et al. 2019, section 3 ("Model Architecture"), where L, H and A are `num_hidden_layers`, `hidden_size` and
    `num_attention_heads`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"config.json: hidden_size {self.hidden_size} is not divisible by num_attention_heads "
                f"{self.num_attention_heads}, but every head takes an equal share of it. Correct one of the two."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


LengthGroup = tuple[int, int]
"""(sentences, length)"""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact: x Φ(x), with the error function (Hendrycks & Gimpel 2016)
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class Embeddings(nn.Module):
    """The sum of three embeddings, normalized: which word, where in the sentence, in which segment.

    [tokens] ids, [tokens] positions, [tokens] types → [tokens, hidden]          Devlin et al. 2019, section 3, figure 2
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, ids: Tensor, positions: Tensor, token_types: Tensor) -> Tensor:
        x = self.word(ids) + self.token_type(token_types) + self.position(positions)  # [tokens, hidden]
        return F.dropout(self.norm(x), self.dropout, self.training)


class SelfAttention(nn.Module):
    """Every token takes a weighted mean over all tokens of its own sentence, in several heads at once.

    [tokens, hidden] → [tokens, hidden]                                          Vaswani et al. 2017, section 3.2
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)  # query, key and value in one product
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        qkv = self.qkv(x)  # [tokens, 3 × hidden]
        chunks = qkv.split([sentences * length for sentences, length in groups])
        dropout = self.dropout if self.training else 0.0
        contexts = []
        for (sentences, length), chunk in zip(groups, chunks, strict=True):  # equal lengths: no mask
            block = chunk.view(sentences, length, 3, self.heads, self.head_dim)
            query, key, value = block.permute(2, 0, 3, 1, 4)  # each [sentences, heads, length, head_dim]
            contexts.append(attend(query, key, value, dropout).transpose(1, 2).reshape(len(chunk), -1))
        return self.out(torch.cat(contexts))  # [tokens, hidden]


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √head_dim) v, in one fused call                            Vaswani et al. 2017, equation 1

    Three [sentences, heads, length, head_dim] → [sentences, heads, length, head_dim]; `dropout` applies to the softmax.
    """
    # On one thread 1.6 to 2 times as fast as two batched products and a softmax at 8 to 14 tokens, 1 to 3.7 times from 48 on, and
    # between 0.8 and 1.2 times. It reads query, key and value where they lie (scripts/benchmark/README.md, "Tried and dropped").
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them, applied to each token alone.

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

    def forward(self, x: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        x = self.attention_norm(x + F.dropout(self.attention(x, groups), self.dropout, self.training))
        return self.feed_forward_norm(x + F.dropout(self.feed_forward(x), self.dropout, self.training))


class Bert(nn.Module):
    """Embeddings and a stack of layers. Ready for inference: in `eval()` mode, and no parameter asks for a gradient.

    In `train()` mode there is dropout: on the embeddings, on the attention weights, and on what each half of a layer adds.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.word.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self.embeddings.word.weight.dtype

    def forward_packed(
        self, ids: Tensor, groups: Sequence[LengthGroup], positions: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """[tokens] → [tokens, hidden], the vectors of the last layer.

        Args:
            ids: [tokens], the token ids of all sentences, end to end, in the order of `groups`.
            groups: (sentences, length) for each group of sentences of equal length; they add up to `tokens`.
            positions: [tokens]; by default each sentence counts 0, 1, 2 …
            token_types: [tokens]; by default all 0, the first segment.

        Returns:
            [tokens, hidden].
        """
        if positions is None:
            positions = torch.cat([torch.arange(length).repeat(sentences) for sentences, length in groups]).to(ids.device)
        if token_types is None:
            token_types = torch.zeros_like(ids)
        x = self.embeddings(ids, positions, token_types)  # [tokens, hidden]
        for layer in self.layers:
            x = layer(x, groups)
        return x

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """[batch, length] → [batch, length, hidden]: the usual padded interface, over the packed code.

        A position whose mask is 0 is not computed, no token attends to it, and the result is zero there. Any mask works: padding on
        the right or left, holes, a row of zeros. A token's position is its column, as in transformers.

        Args:
            input_ids: [batch, length], integers below `vocab_size`.
            attention_mask: [batch, length] of 0 and 1 (or False and True); by default all 1.
            token_type_ids: [batch, length], integers below `type_vocab_size`; by default all 0.

        Returns:
            [batch, length, hidden], zero where the mask is 0.

        Raises:
            ValueError: if a shape, an id, a type or a mask value is out of its range.
            TypeError: if ids or types are not integers.

        >>> import torch
        >>> sizes = dict(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> bert = Bert(BertConfig(**sizes, max_position_embeddings=16))
        >>> bert(torch.tensor([[2, 5, 3], [2, 3, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])).shape
        torch.Size([2, 3, 4])
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        self._check_padded(input_ids, mask, types)

        lengths, order = mask.bool().sum(dim=1).sort(stable=True)  # rows of equal length side by side
        row, column = mask[order].nonzero(as_tuple=True)  # both [tokens]
        row = order[row]
        groups = [
            (sentences, length)
            for length, sentences in zip(*(x.tolist() for x in lengths.unique_consecutive(return_counts=True)), strict=True)
            if length
        ]
        hidden = self.embeddings.word.weight.new_zeros(*input_ids.shape, self.config.hidden_size)
        if groups:
            hidden[row, column] = self.forward_packed(input_ids[row, column], groups, column, types[row, column])
        return hidden  # [batch, length, hidden]

    def _check_padded(self, input_ids: Tensor, mask: Tensor, types: Tensor) -> None:
        config = self.config
        if input_ids.dim() != 2 or input_ids.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"input_ids: found shape {list(input_ids.shape)}, expected [batch, length] with length ≤ "
                f"{config.max_position_embeddings}, the number of positions this model has. Cut or split longer texts."
            )
        for name, ids, size in ("input_ids", input_ids, config.vocab_size), ("token_type_ids", types, config.type_vocab_size):
            if ids.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"{name}: found {ids.dtype}, expected integers (torch.int64).")
            if ids.shape != input_ids.shape:
                raise ValueError(f"{name}: found shape {list(ids.shape)}, expected that of input_ids, {list(input_ids.shape)}.")
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                raise ValueError(f"{name}: found {ids.min()} to {ids.max()}, expected 0 to {size - 1}.")
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask: found shape {list(mask.shape)}, expected that of input_ids, {list(input_ids.shape)}."
            )
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("attention_mask: found values other than 0 and 1. 1 keeps a token, 0 hides it.")
