"""Training against sentence-transformers, in float64 with dropout off: every loss, every gradient, and twenty steps of AdamW.

Gradients are compared tensor by tensor, relative to the largest entry of the reference's. Some are zero in exact arithmetic: the
bias of the key adds the same to all scores of a query, which the softmax takes out. Rounding leaves 1e-17 there, so a tensor whose
largest entry is a billionth of the model's largest is compared with that one.

Measured (AVX-512): 3e-14 for gradients, 5e-13 for the weights after twenty steps, of which the smallest planted fault moves one by
1.5e-3.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checkpoints import FAMILIES, TINY_VOCAB, save_tiny
from layouts import dense, laid
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation as their_evaluation
from sentence_transformers.sentence_transformer import losses as theirs
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import get_linear_schedule_with_warmup

import minisbert
from minisbert import train as ours
from minisbert.checkpoint.families import to_hub_names
from minisbert.train.data import batches
from minisbert.train.embedding import recomputing, vectors
from parity.plain_bert import plain_bert

RELATIVE = 1e-10
HIDDEN = 32


def sentences(count: int, seed: int) -> list[str]:
    """Texts of 1 to 25 words that the tiny vocabulary has."""
    generator = torch.Generator().manual_seed(seed)
    words = [word for word in TINY_VOCAB[5:] if word.isalpha()]
    lengths = torch.randint(1, 26, (count,), generator=generator).tolist()
    return [" ".join(words[i] for i in torch.randint(len(words), (length,), generator=generator).tolist()) for length in lengths]


COLUMNS = [sentences(6, seed) for seed in (1, 2, 3)]
SCORES = torch.tensor([0.0, 0.25, 1.0, 0.5, 0.75, 0.25])
CLASSES = torch.tensor([0, 2, 1, 1, 0, 2])
TEACHER = torch.randn(6, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


class Case(NamedTuple):
    """A loss on both sides, how many columns it takes, and its labels."""

    ours: Callable[[], nn.Module]
    theirs: Callable[[SentenceTransformer], nn.Module]
    columns: int
    labels: Tensor | None


CASES: dict[str, Case] = {
    "softmax": Case(lambda: ours.SoftmaxLoss(HIDDEN, 3), lambda model: theirs.SoftmaxLoss(model, HIDDEN, 3), 2, CLASSES),
    "cosine": Case(ours.CosineSimilarityLoss, theirs.CosineSimilarityLoss, 2, SCORES),
    "triplet": Case(ours.TripletLoss, theirs.TripletLoss, 3, None),
    "contrastive": Case(ours.ContrastiveLoss, theirs.ContrastiveLoss, 2, (SCORES > 0.3).long()),
    "in-batch negatives": Case(ours.MultipleNegativesRankingLoss, theirs.MultipleNegativesRankingLoss, 2, None),
    "hard negatives": Case(ours.MultipleNegativesRankingLoss, theirs.MultipleNegativesRankingLoss, 3, None),
    "CoSENT": Case(ours.CoSENTLoss, theirs.CoSENTLoss, 2, SCORES),
    "matryoshka": Case(
        lambda: ours.MatryoshkaLoss(ours.MultipleNegativesRankingLoss(), [HIDDEN, 8], [1.0, 0.5]),
        lambda model: theirs.MatryoshkaLoss(model, theirs.MultipleNegativesRankingLoss(model), [HIDDEN, 8], [1.0, 0.5]),
        2,
        None,
    ),
    "distillation": Case(ours.DistillationLoss, theirs.MSELoss, 1, TEACHER),
}


class Pair(NamedTuple):
    """One checkpoint on both sides, ready for gradients."""

    encoder: minisbert.SentenceEncoder
    reference: SentenceTransformer


def pair(folder: Path) -> Pair:
    reference = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float64})
    return Pair(minisbert.load(folder, device="cpu", dtype=torch.float64), reference.double().eval())


@pytest.fixture
def tiny(tiny_folder: Path) -> Pair:
    return pair(tiny_folder)


def reference_loss(
    reference: SentenceTransformer, loss: nn.Module, columns: Sequence[Sequence[str]], labels: Tensor | None
) -> Tensor:
    return loss([reference.preprocess(list(column)) for column in columns], labels)


def our_loss(
    encoder: minisbert.SentenceEncoder, loss: nn.Module, columns: Sequence[Sequence[str]], labels: Tensor | None
) -> Tensor:
    """As `fit` does: all columns in one packed batch."""
    embeddings = ours.embed(encoder, [text for column in columns for text in column])
    return loss(list(embeddings.split([len(column) for column in columns])), labels)


def our_gradients(encoder: minisbert.SentenceEncoder) -> dict[str, Tensor]:
    """The gradient of every parameter, under the hub's names."""
    bert = copy.deepcopy(encoder.bert)
    for name, parameter in bert.named_parameters():
        gradient = encoder.bert.get_parameter(name).grad
        assert gradient is not None, name
        parameter.requires_grad_(False).copy_(gradient)
    modules = {f"modules.{name}": parameter.grad for name, parameter in encoder.modules.named_parameters()}
    return to_hub_names(bert) | {name: gradient for name, gradient in modules.items() if gradient is not None}


def their_gradients(reference: SentenceTransformer) -> dict[str, Tensor]:
    named = {name: parameter.grad for name, parameter in reference[0].auto_model.named_parameters()}
    for number, module in enumerate(list(reference)[2:]):
        named |= {f"modules.{number}.{name}": parameter.grad for name, parameter in module.named_parameters()}
    return {name: gradient for name, gradient in named.items() if gradient is not None}


def same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float = RELATIVE) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        scale = largest if scale < 1e-9 * largest else scale
        difference = float((found[name] - gradient).abs().max()) / scale
        assert difference <= relative, f"{name}: {difference:.1e}"


def check(both: Pair, case: Case, columns: Sequence[Sequence[str]]) -> None:
    """Loss and gradients of the same batch on both sides."""
    loss, their_loss = case.ours().double(), case.theirs(both.reference).double()
    if isinstance(loss, ours.SoftmaxLoss):
        loss.classifier.load_state_dict(their_loss.classifier.state_dict())
    found = our_loss(both.encoder, loss, columns[: case.columns], case.labels)
    expected = reference_loss(both.reference, their_loss, columns[: case.columns], case.labels)
    torch.testing.assert_close(found, expected, rtol=RELATIVE, atol=0)
    both.encoder.bert.zero_grad()
    found.backward()
    expected.backward()
    same_gradients(our_gradients(both.encoder), their_gradients(both.reference))
    if isinstance(loss, ours.SoftmaxLoss):
        same_gradients(*({n: p.grad for n, p in side.classifier.named_parameters()} for side in (loss, their_loss)))  # type: ignore[arg-type, misc]


# --- losses and gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_the_gradient_of_every_parameter_are_those_of_sentence_transformers(tiny: Pair, case: str) -> None:
    check(tiny, CASES[case], COLUMNS)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
def test_every_family_has_the_gradients_of_sentence_transformers(tmp_path: Path, family: str) -> None:
    save_tiny(tmp_path / family, model_type=family)
    check(pair(tmp_path / family), CASES["in-batch negatives"], COLUMNS)


def test_modules_after_the_pooling_get_their_gradients(tmp_path: Path) -> None:
    modules = [("Dense", dense(2 * HIDDEN, HIDDEN)), ("LayerNorm", {"dimension": HIDDEN}), ("Normalize", None)]
    laid(tmp_path / "one", modes=("mean", "max"), after=modules)
    check(pair(tmp_path / "one"), CASES["in-batch negatives"], COLUMNS)


def test_the_real_model_has_the_gradients_of_sentence_transformers_on_real_pairs(
    minilm_folder: Path, sts_sentences: list[str]
) -> None:
    both = pair(minilm_folder)
    columns = [sts_sentences[0:12:2], sts_sentences[1:12:2]]
    check(both, CASES["cosine"], columns)


def test_the_plain_bert_has_the_same_gradients(tiny: Pair, tiny_folder: Path) -> None:
    weights = {name: tensor.double().requires_grad_() for name, tensor in load_file(tiny_folder / "model.safetensors").items()}
    config = json.loads((tiny_folder / "config.json").read_text("utf-8"))
    batch = tiny.reference.tokenizer(COLUMNS[0], padding=True, truncation=True, max_length=32, return_tensors="pt")
    mask = batch["attention_mask"]
    states = plain_bert(weights, config, batch["input_ids"], mask, torch.zeros_like(mask))[-1]
    loss = F.mse_loss((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), TEACHER)
    loss.backward()
    our_loss(tiny.encoder, ours.DistillationLoss(), COLUMNS[:1], TEACHER).backward()
    same_gradients(our_gradients(tiny.encoder), {n: w.grad for n, w in weights.items() if w.grad is not None})


def test_gradient_checkpointing_gives_the_same_gradients(tiny: Pair) -> None:
    our_loss(tiny.encoder, ours.CosineSimilarityLoss(), COLUMNS[:2], SCORES).backward()
    expected = our_gradients(tiny.encoder)
    tiny.encoder.bert.zero_grad()
    with recomputing(tiny.encoder):
        our_loss(tiny.encoder, ours.CosineSimilarityLoss(), COLUMNS[:2], SCORES).backward()
    same_gradients(our_gradients(tiny.encoder), expected)


# --- twenty steps -------------------------------------------------------------------------------------------------------------


ROWS = 64
DATA = ours.Examples([sentences(ROWS, 5), sentences(ROWS, 6)], torch.rand(ROWS, generator=torch.Generator().manual_seed(7)))
SETTINGS: dict[str, Any] = {"batch_size": 16, "epochs": 5, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup": 0.2, "seed": 3}


def without_dropout(encoder: minisbert.SentenceEncoder) -> minisbert.SentenceEncoder:
    for module in encoder.bert.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0
    return encoder


def reference_steps(reference: SentenceTransformer, lengths: list[int]) -> dict[str, Tensor]:
    """The same batches with torch.optim.AdamW and transformers' schedule, as sentence-transformers' trainer puts them together."""
    named = dict(reference.named_parameters())
    norms = {id(p) for module in reference.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    plain = [p for name, p in named.items() if id(p) in norms or name.endswith(".bias")]
    decayed = [p for p in named.values() if all(p is not other for other in plain)]
    groups = [{"params": decayed, "weight_decay": SETTINGS["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=SETTINGS["learning_rate"])
    order = [rows for epoch in range(SETTINGS["epochs"]) for rows in batches(lengths, 16, SETTINGS["seed"], epoch)]
    assert len(order) == 20
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(SETTINGS["warmup"] * len(order)), len(order))
    loss = theirs.CosineSimilarityLoss(reference)
    for rows in order:
        columns = [[column[row] for row in rows] for column in DATA.columns]
        reference_loss(reference, loss, columns, DATA.labels[rows]).backward()  # type: ignore[index]
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return {name: tensor.detach() for name, tensor in reference[0].auto_model.named_parameters() if "pooler" not in name}


def lengths_of(encoder: minisbert.SentenceEncoder) -> list[int]:
    first, second = (encoder.tokenizer(column).ids for column in DATA.columns)
    return [len(a) + len(b) for a, b in zip(first, second, strict=True)]


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.fixture(scope="module")
def expected_weights(tiny_folder: Path) -> dict[str, Tensor]:
    both = pair(tiny_folder)
    return reference_steps(both.reference, lengths_of(both.encoder))


def test_twenty_steps_of_adamw_give_the_weights_of_the_reference(tiny: Pair, expected_weights: dict[str, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in to_hub_names(tiny.encoder.bert).items()}
    history = ours.fit(without_dropout(tiny.encoder), DATA, loss=ours.CosineSimilarityLoss(), **SETTINGS)
    assert furthest(before, expected_weights) > 1e-3
    assert furthest(to_hub_names(tiny.encoder.bert), expected_weights) < 1e-8
    assert [step.learning_rate for step in history.steps[:6]] == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3 * 15 / 16])


def detached_second_tower(patch: pytest.MonkeyPatch) -> None:
    def embeddings(*arguments: Any) -> Tensor:
        first, second = vectors(*arguments).chunk(2)
        return torch.cat([first, second.detach()])

    patch.setattr("minisbert.train.loop.vectors", embeddings)


def sum_instead_of_mean(patch: pytest.MonkeyPatch) -> None:
    # With clipping on, a missing 1/batch would be scaled away where the norm is above 1; it is not always.
    patch.setattr("minisbert.train.losses.F.mse_loss", lambda a, b: ((a - b) ** 2).sum())


def decay_on_norms(patch: pytest.MonkeyPatch) -> None:
    everything = lambda weights, decay: torch.optim.AdamW(weights.values(), weight_decay=decay)  # noqa: E731
    patch.setattr("minisbert.train.loop.optimizer_for", everything)


def warm_up_off_by_one(patch: pytest.MonkeyPatch) -> None:
    right = ours.loop.learning_rate_factor
    patch.setattr("minisbert.train.loop.learning_rate_factor", lambda done, steps, warm: right(done + 1, steps, warm))


@pytest.mark.parametrize("fault", [detached_second_tower, sum_instead_of_mean, decay_on_norms, warm_up_off_by_one])
def test_a_fault_is_noticed(
    tiny: Pair, expected_weights: dict[str, Tensor], fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    ours.fit(without_dropout(tiny.encoder), DATA, loss=ours.CosineSimilarityLoss(), **SETTINGS)
    assert furthest(to_hub_names(tiny.encoder.bert), expected_weights) > 1e-5


# --- evaluation ---------------------------------------------------------------------------------------------------------------


def test_the_evaluators_give_the_measures_of_sentence_transformers(minilm_folder: Path, sts_sentences: list[str]) -> None:
    both = pair(minilm_folder)
    first, second = sts_sentences[0:80:2], sts_sentences[1:80:2]
    scores = [float(index % 7) for index in range(len(first))]  # many ties
    queries, corpus = ({f"{kind}{i}": text for i, text in enumerate(column)} for kind, column in (("q", first), ("d", second)))
    relevant = {f"q{i}": {f"d{i}", f"d{(3 * i + 1) % 40}"} for i in range(0, 40, 2)}
    cases = [
        (ours.EmbeddingSimilarityEvaluator, their_evaluation.EmbeddingSimilarityEvaluator, (first, second, scores)),
        (ours.TripletEvaluator, their_evaluation.TripletEvaluator, (first, second, second[1:] + second[:1])),
        (ours.InformationRetrievalEvaluator, their_evaluation.InformationRetrievalEvaluator, (queries, corpus, relevant)),
    ]
    for our_evaluator, their_evaluator, data in cases:
        found, expected = our_evaluator(*data)(both.encoder), their_evaluator(*data)(both.reference)  # type: ignore[operator]
        assert {name: pytest.approx(value, abs=1e-6) for name, value in found.items()} == {n: float(v) for n, v in expected.items()}
