"""The same training in sentence-transformers, to compare the recipes with."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from common import Row, spearman
from torch import Tensor

import minisbert
from minisbert.train import Examples
from minisbert.train.data import batches


def train_theirs(
    encoder: minisbert.SentenceEncoder,
    data: Examples,
    make_loss: Callable[[Any], torch.nn.Module],
    chosen: argparse.Namespace,
    seed: int,
    evaluate: Callable[[Any], float] | None = None,
    evaluate_every: int | None = None,
    no_duplicates: bool = False,  # noqa: FBT001, FBT002 (as `fit` has it)
) -> Any:
    """The same training with sentence-transformers' model and loss, torch's AdamW and transformers' schedule.

    Args:
        encoder: not trained yet; both sides begin with its weights.
        data: the rows.
        make_loss: the model → its loss.
        chosen: the recipe's options.
        seed: of the batches and of dropout.
        evaluate: the model → a number; the weights with the largest one count.
        evaluate_every: after how many steps that is asked.
        no_duplicates: no text twice in a batch.

    Returns:
        The trained SentenceTransformer.
    """
    from sentence_transformers import SentenceTransformer
    from transformers import get_linear_schedule_with_warmup

    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        model = SentenceTransformer(folder, device=str(encoder.device))
    torch.manual_seed(seed)
    loss = make_loss(model).to(model.device)
    lengths = [sum(counts) for counts in zip(*(encoder.count_tokens(column) for column in data.columns), strict=True)]
    keys = list(zip(*data.columns, strict=True)) if no_duplicates else None
    order = [rows for epoch in range(chosen.epochs) for rows in batches(lengths, chosen.batch_size, seed, epoch, keys)]
    named = dict(loss.named_parameters())
    groups = [
        {"params": [weight for weight in named.values() if (weight.dim() > 1) is decayed], "weight_decay": 0.01 if decayed else 0.0}
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * len(order)), len(order))
    best: tuple[float, dict[str, Tensor]] | None = None
    for step, rows in enumerate(order, start=1):
        model.train()
        features = [model.preprocess([column[row] for row in rows]) for column in data.columns]
        features = [
            {name: value.to(model.device) for name, value in each.items() if isinstance(value, Tensor)} for each in features
        ]
        labels = None if data.labels is None else data.labels[rows].to(model.device)
        loss(features, labels).backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if evaluate is not None and (step % (evaluate_every or len(order)) == 0 or step == len(order)):
            value = evaluate(model.eval())
            if best is None or value > best[0]:
                best = value, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if best is not None:
        model.load_state_dict(best[1])
    return model.eval()


def theirs(
    encoder: minisbert.SentenceEncoder,
    data: Examples,
    make_loss: Callable[[Any], torch.nn.Module],
    chosen: argparse.Namespace,
    *more: Any,
) -> Row:
    """`common.spearman` of what `train_theirs` gives."""
    model = train_theirs(encoder, data, make_loss, chosen, *more)
    return spearman(chosen, lambda texts: model.encode(texts, convert_to_tensor=True, show_progress_bar=False).cpu())
