"""Whatever a caller has set in PyTorch, the same call gives the same bits: in its thread and in a worker, one text or many."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from train.made import evaluator, rows

import minisbert
from minisbert import SentenceEncoder, util
from minisbert.train import CosineSimilarityLoss, fit

TEXTS = [
    "a man is eating food .",
    "the cat sat on the mat",
    "a dog",
    "a man is eating food .",
    *(f"a {'red ' * n}dog" for n in range(20)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, hidden_size=64, intermediate_size=80)
    return folder


@pytest.fixture(scope="module")
def tiny(folder: Path) -> SentenceEncoder:
    return minisbert.load(folder, device="cpu")


def doubled(result: Any) -> Any:
    return result * 2 if isinstance(result, torch.Tensor) and result.is_floating_point() else result


class DoubledFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return doubled(func(*args, **(kwargs or {})))


class DoubledOperations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return doubled(func(*args, **(kwargs or {})))


def as_set(set_to: Callable[[Any], object], value: object, before: object) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def setting() -> Iterator[None]:
        set_to(value)
        try:
            yield
        finally:
            set_to(before)

    return setting


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "with a device": lambda: torch.device("meta"),
    "default device": as_set(torch.set_default_device, "meta", None),
    "default dtype": as_set(torch.set_default_dtype, torch.float64, torch.float32),
    "half default dtype": as_set(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "deterministic": as_set(torch.use_deterministic_algorithms, True, False),
    "anomaly mode": torch.autograd.detect_anomaly,
    "one thread": as_set(torch.set_num_threads, 1, torch.get_num_threads()),
    "three threads": as_set(torch.set_num_threads, 3, torch.get_num_threads()),
    "function mode": DoubledFunctions,
    "dispatch mode": DoubledOperations,
    "flush denormals": as_set(torch.set_flush_denormal, True, False),
}


def everything(encoder: SentenceEncoder, folder: Path) -> dict[str, Any]:
    """What every public operation that computes gives."""
    vectors = encoder.encode(TEXTS)
    lists = vectors.tolist()
    trace = minisbert.trace(TEXTS[0], TEXTS[1], model=encoder, corpus=TEXTS)
    encoder.save(folder / "saved")
    return {
        "one": encoder.encode(TEXTS[1]),
        "many": vectors,
        "small batches": encoder.encode(TEXTS, batch_size=2, normalize_embeddings=True),
        "stream": list(encoder.encode_stream(TEXTS, window=5)),
        "tokens": encoder.encode(TEXTS, output_value="token_embeddings"),
        "arrays": encoder.encode(TEXTS, convert_to_numpy=True).tolist(),
        "similarity": [encoder.similarity(vectors, lists)],
        "pairwise": [util.similarity_pairwise(vectors, lists, name) for name in ("cosine", "dot", "euclidean", "manhattan")],
        "search": [util.semantic_search(lists, vectors, top_k=3, score_function=name) for name in ("cosine", "manhattan")],
        "paraphrases": util.paraphrase_mining(encoder, TEXTS, top_k=5),
        "communities": util.community_detection(vectors, threshold=0.9, min_community_size=2),
        "counts": encoder.count_tokens(TEXTS),
        "trace": [
            trace.a.attention,
            trace.pair_matrix,
            trace.layer_cosines,
            trace.a.neighbours.cosines,
            trace.cosine,
            trace.html(),
        ],
        "loaded": minisbert.load(folder / "saved", device="cpu").encode(TEXTS),
        "by name": minisbert.encode(TEXTS, folder / "saved"),
        "pickled": pickle.loads(pickle.dumps(encoder)).encode(TEXTS),  # noqa: S301
        "copied": copy.deepcopy(encoder).encode(TEXTS[2]),
        "info": encoder.info().parameters,
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and not b.requires_grad and not b.is_inference()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture(scope="module")
def expected(tiny: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return everything(tiny, tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("state", STATES)
def test_a_callers_state_changes_no_bit(tiny: SentenceEncoder, expected: dict[str, Any], state: str, tmp_path: Path) -> None:
    with STATES[state]():
        found = everything(tiny, tmp_path)
    assert {name for name in expected if not same(expected[name], found[name])} == set()


@pytest.mark.parametrize("on", [False, True])
def test_values_that_the_processor_may_flush_to_zero_are_kept(folder: Path, on: bool) -> None:
    """Workers that were started while the caller flushes, and a caller that does so now, give what all others give."""
    encoder = minisbert.load(folder, device="cpu")
    last = encoder.bert.layers[-1].feed_forward_norm
    for parameter in last.weight, last.bias:
        parameter.mul_(1e-40)
    many = encoder.encode(TEXTS, batch_size=2)
    torch.set_flush_denormal(on)
    try:
        one = encoder.encode(TEXTS[0])
        again = encoder.encode(TEXTS, batch_size=2)
        torch.set_num_threads(torch.get_num_threads() + 5)
        started_now = encoder.encode(TEXTS, batch_size=2)
    finally:
        torch.set_num_threads(torch.get_num_threads() - 5)
        torch.set_flush_denormal(False)
    assert 0 < many.abs().max() < 1e-38
    assert torch.equal(many[0], one)
    assert torch.equal(many, again)
    assert torch.equal(many, started_now)


def test_gradients_flow_through_the_scores_also_within_autocast() -> None:
    a = torch.randn(3, 4, requires_grad=True)
    util.cos_sim(a, torch.ones(2, 4)).sum().backward()
    expected, a.grad = a.grad, None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = util.cos_sim(a, torch.ones(2, 4))
    assert scores.dtype == torch.float32
    scores.sum().backward()
    assert torch.equal(a.grad, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert not util.cos_sim(a, a).requires_grad


def trained(folder: Path) -> torch.Tensor:
    """The vectors after four steps and two evaluations."""
    encoder = minisbert.load(folder, device="cpu")
    fit(encoder, rows(16), loss=CosineSimilarityLoss(), epochs=2, batch_size=8, learning_rate=1e-3, evaluate=evaluator(8))
    return encoder.encode(TEXTS)


@pytest.mark.parametrize("state", [state for state in STATES if "thread" not in state])
def test_a_callers_state_changes_no_bit_of_a_training_run(folder: Path, state: str) -> None:
    expected = trained(folder)
    with STATES[state]():
        found = trained(folder)
    assert same(expected, found)
