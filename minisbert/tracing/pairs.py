"""How much each pair of tokens adds to the cosine of two sentences: exact, because pooling is linear."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.encoder import SentenceEncoder
from minisbert.inference.engine import count_prompt_tokens
from minisbert.inference.threads import in_default_state
from minisbert.pooling import Dense, LayerNorm, token_weights
from minisbert.tracing.record import Neighbours, SentenceTrace


class Traced:
    """What happened to one sentence, or to two, and what follows from it; the attributes are described in `Trace`."""

    def __init__(self, encoder: SentenceEncoder, a: SentenceTrace, b: SentenceTrace | None, corpus: list[str]) -> None:
        self.encoder = encoder
        self.a = a
        self.b = b
        self.corpus = corpus

    def __repr__(self) -> str:
        texts = repr(self.a.text) if self.b is None else f"{self.a.text!r}, {self.b.text!r}"
        return f"{type(self).__name__}({texts}, model={self.encoder.model!r})"

    @property
    def neighbours(self) -> Neighbours | None:
        """Those of the first sentence; the second one's are `b.neighbours`."""
        return self.a.neighbours

    @property
    def cosine(self) -> float:
        """The cosine of the two embeddings, computed in float64."""
        b = self.second("cosine")
        ours, theirs = self.a.embedding, b.embedding
        return in_default_state(lambda: F.cosine_similarity(ours.double(), theirs.double(), dim=0).item())

    @cached_property
    def layer_cosines(self) -> Tensor:
        """[layers + 1], float64: the cosine if the model had ended after the embeddings, or after that layer."""
        b = self.second("layer_cosines")
        ours, theirs = self.a.layer_vectors, b.layer_vectors
        return in_default_state(lambda: F.cosine_similarity(ours.double(), theirs.double(), dim=1))

    @cached_property
    def pair_matrix(self) -> Tensor:
        """[tokens of a, tokens of b], float64: how much each pair of tokens adds to the cosine. The entries sum to it.

        Exact, because pooling is linear: with u = Σᵢ uᵢ, the contributions of the tokens to one sentence vector, and v = Σⱼ vⱼ to
        the other, cos(u, v) = u·v / ‖u‖‖v‖ = Σᵢⱼ uᵢ·vⱼ / ‖u‖‖v‖. Post-pooling modules are applied to each; see `contributions`.

        Raises:
            ValueError: if there is one sentence only, or if the model's sentence vector is no sum over tokens.
        """
        b = self.second("pair_matrix")
        return in_default_state(lambda: pair_matrix(self.encoder, self.a, b))

    def second(self, name: str) -> SentenceTrace:
        """The second sentence; where there is none, an error that names what needs it."""
        if self.b is None:
            raise ValueError(f"{name}: only one sentence was traced, expected two. Call minisbert.trace(a, b).")
        return self.b


def pair_matrix(encoder: SentenceEncoder, a: SentenceTrace, b: SentenceTrace) -> Tensor:
    """[tokens of a, tokens of b], float64; see `Trace.pair_matrix`."""
    ours, theirs = contributions(encoder, a), contributions(encoder, b)  # [tokens of a, dim], [tokens of b, dim]
    scale = ours.sum(dim=0).norm() * theirs.sum(dim=0).norm()
    return ours @ theirs.T / scale.clamp(min=1e-30)  # a vector of zeros has cosine 0 with any other


def contributions(encoder: SentenceEncoder, sentence: SentenceTrace) -> Tensor:
    """[tokens, dim], float64: what each token gives to the sentence vector, which is their sum.

    A dense layer without a nonlinearity is linear, so it is applied to each contribution. Normalize and layer norm divide every
    contribution by a scalar of the whole vector. A bias belongs to no token; each token gets a part of it by its pooling weight.

    Raises:
        ValueError: if the sentence vector is no sum over tokens.
    """
    _check_sum(encoder)
    vectors = sentence.hidden[-1].double()  # [tokens, hidden]
    ones = vectors.new_ones(1, len(vectors))
    prompt_tokens = count_prompt_tokens(encoder.tokenizer, encoder.pooling, sentence.prompt)
    given = torch.cat([token_weights(mode, ones, prompt_tokens).T * vectors for mode in encoder.pooling.modes], dim=1)
    bias_given = sentence.pooling_weights.double()[:, None]  # [tokens, 1]
    for module in encoder.modules:
        whole = given.sum(dim=0)
        if isinstance(module, Dense):
            turned = given @ _double(module.linear.weight).T
            if module.linear.bias is not None:
                turned = turned + bias_given * _double(module.linear.bias)
            if module.residual is not None:
                turned = turned + (given @ _double(module.residual.weight).T if isinstance(module.residual, nn.Linear) else given)
            given = turned
        elif isinstance(module, LayerNorm):
            norm = module.norm
            centred = given - given.mean(dim=1, keepdim=True)
            given = centred / (whole.var(correction=0) + norm.eps).sqrt() * _double(norm.weight) + bias_given * _double(norm.bias)
        else:
            given = given / whole.norm().clamp(min=1e-12)
    return given[:, : encoder.dimension]


def _double(weight: Tensor) -> Tensor:
    return weight.detach().cpu().double()


def _check_sum(encoder: SentenceEncoder) -> None:
    if "max" in encoder.pooling.modes:
        raise ValueError(
            "pair_matrix: this model pools with max, which takes each value of the sentence vector from the token where it is "
            "largest. Its cosine is not a sum over pairs of tokens, so pairs have no exact contributions. Take a model with "
            "another pooling."
        )
    for module in encoder.modules:
        if isinstance(module, Dense) and not isinstance(module.activation, nn.Identity):
            raise ValueError(
                f"pair_matrix: this model has the nonlinearity {type(module.activation).__name__} in a dense layer. Its "
                "cosine is not a sum over pairs of tokens, so pairs have no exact contributions. Take a model without such a layer."
            )
