"""Sentence vectors with gradients: the same packed batch as in `encode`, and the same vectors when dropout is off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from minisbert.encoder import SentenceEncoder
from minisbert.errors import MinisbertError
from minisbert.inference.batching import length_groups
from minisbert.inference.engine import count_prompt_tokens
from minisbert.inference.inputs import choose_prompt, read_texts
from minisbert.inference.threads import lost_its_threads


def embed(encoder: SentenceEncoder, texts: Iterable[str], *, prompt: str | None = None, prompt_name: str | None = None) -> Tensor:
    """The vectors of some texts in one batch, through which gradients flow to every parameter.

    Texts of different lengths are packed without padding. Dropout is applied if `encoder.bert` is in `train()` mode; a loaded model
    is in `eval()` mode. If no parameter of `encoder.bert` requires a gradient yet, all parameters of the encoder do from then on.
    The caller's settings, such as autocast, apply.

    Args:
        encoder: the model.
        texts: any number of texts that fit into memory as one batch. Texts above `max_seq_length` are truncated.
        prompt: as in `encode`.
        prompt_name: as in `encode`.

    Returns:
        [texts, dim] on the encoder's device, with all of the model's dimensions whatever `truncate_dim` is.

    Raises:
        TypeError, ValueError: as in `encode`, for texts and prompts.
        MinisbertError: on the CPU, in a thread that was forked after it had computed: `backward()` would never return. `fit` works.

    Source: Reimers & Gurevych 2019, section 3, where the two sentences of a pair go through networks with tied weights. One batch
    with the sentences of both sides is the same.

    >>> import minisbert
    >>> encoder = minisbert.load("all-MiniLM-L6-v2")
    >>> u, v = embed(encoder, ["A man is eating food.", "Someone is having a meal."])
    >>> (1 - u @ v).backward()
    >>> encoder.bert.embeddings.word.weight.grad.shape
    torch.Size([30522, 384])
    """
    if encoder.device.type == "cpu" and lost_its_threads():
        raise MinisbertError(
            "embed: this process was forked after it had computed, so PyTorch's other threads are missing. Call embed and backward "
            "in a new thread, start processes by spawn, or call torch.set_num_threads(1)."
        )
    prompt = choose_prompt(encoder.prompts, encoder.default_prompt_name, prompt, prompt_name)
    some, _ = read_texts(texts)
    if torch.is_grad_enabled() and not any(parameter.requires_grad for parameter in encoder.bert.parameters()):
        for part in encoder.bert, encoder.modules:
            part.requires_grad_(True)
    ids = encoder.tokenizer([prompt + text for text in some]).ids
    prompt_tokens = count_prompt_tokens(encoder.tokenizer, encoder.pooling, prompt)
    return vectors(encoder, [torch.tensor(row, device="cpu") for row in ids], prompt_tokens)


def vectors(encoder: SentenceEncoder, ids: Sequence[Tensor], prompt_tokens: int = 0) -> Tensor:
    """Token ids, a tensor [length] for each text, special tokens included → [texts, dim].

    The pooling leaves out `prompt_tokens` tokens at the start.
    """
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))  # equal lengths become adjacent
    groups = length_groups([len(ids[index]) for index in order])
    packed = torch.cat([ids[index] for index in order]).to(encoder.device, torch.int64)  # [tokens]
    token_vectors = encoder.bert.forward_packed(packed, groups).to(encoder.vector_dtype)  # [tokens, hidden]
    sentence_vectors = encoder.modules(
        encoder.pooling(token_vectors, groups, prompt_tokens)
    )  # [texts, dim], in the order of `order`
    return sentence_vectors[torch.tensor(order, device="cpu").argsort().to(encoder.device)]


@contextmanager
def recomputing(encoder: SentenceEncoder) -> Iterator[None]:
    """Gradient checkpointing: a layer keeps only its input, and is computed again in the backward pass.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". Memory holds the activations of one layer and the inputs of
    all layers, for a third more computation. Dropout drops the same values both times.
    """
    layers = list(encoder.bert.layers)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the method of the class is back


@contextmanager
def trainable(encoder: SentenceEncoder) -> Iterator[None]:
    """Lets all parameters require gradients. At its end, the encoder is in `eval()` mode with frozen parameters again."""
    try:
        for part in encoder.bert, encoder.modules:
            part.train().requires_grad_(True)
        yield
    finally:
        for part in encoder.bert, encoder.modules:
            part.eval().requires_grad_(False).zero_grad()
