"""Layers that run as recorded graphs give the bits of `Layer.forward`, and run only where nobody can tell."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert import Bert
from minisbert.bert import BertConfig
from minisbert.inference import graphs
from minisbert.inference.graphs import use_graphs
from minisbert.inference.kernels import choose_product
from minisbert.inference.quantization import quantize_linears

pytestmark = pytest.mark.every_processor

GROUPS = [(3, 5)], [(1, 12)], [(1, 9), (2, 4)], [(1, 200)], [(40, 1)]


@pytest.fixture(autouse=True)
def recorded_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(graphs, "PLAIN_CALLS", 1)
    graphs._graphs.clear()
    yield
    graphs._graphs.clear()


def made(prepare: Callable[[Bert], None] = choose_product, *, dtype: torch.dtype = torch.float32, **settings: int | str) -> Bert:
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128} | settings
    bert = Bert(BertConfig(vocab_size=30, max_position_embeddings=256, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.normal_(std=0.3, generator=generator)
    bert.to(dtype)
    prepare(bert)
    use_graphs(bert)
    return bert


def both(bert: Bert, groups: list[tuple[int, int]], filler: int = 0) -> tuple[Tensor, Tensor]:
    """The vectors of a batch, as the model gives them and as plain layers do."""
    ids = torch.arange(sum(sentences * length for sentences, length in groups) + filler) % 29
    with torch.inference_mode():
        given = bert.forward_packed(ids, groups)
        bert._stack = Bert._stack
        plain = bert.forward_packed(ids, groups)
        use_graphs(bert)
    return given, plain


def recorded() -> int:
    assert None not in graphs._graphs.values()
    return len(graphs._graphs)


@pytest.mark.parametrize(
    ("prepare", "settings"),
    [
        (choose_product, {}),
        (choose_product, {"hidden_act": "relu", "relative_attention_num_buckets": 8, "type_vocab_size": 0}),
        (choose_product, {"hidden_act": "gelu_new", "num_attention_heads": 1, "hidden_size": 36, "intermediate_size": 40}),
        (choose_product, {"hidden_act": "silu", "num_attention_heads": 3, "hidden_size": 15, "position_offset": 2}),
        (choose_product, {"dtype": torch.float64}),
        (choose_product, {"dtype": torch.bfloat16}),
        (quantize_linears, {}),
    ],
    ids=["bert", "mpnet", "odd sizes", "odd heads", "float64", "bfloat16", "int8"],
)
def test_a_graph_gives_the_bits_of_the_layers_for_any_batch(prepare: Callable[[Bert], None], settings: dict[str, object]) -> None:
    bert = made(prepare, **settings)
    for filler in (0, 3):
        for groups in GROUPS * 2:
            given, plain = both(bert, groups, filler)
            assert torch.equal(given, plain)
    assert recorded() == 4  # one and two groups, without filler and with it


def test_many_groups_and_a_processor_without_recording_run_as_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    bert = made()
    assert torch.equal(*both(bert, [(1, length) for length in range(1, graphs.MOST_GROUPS + 2)]))
    assert recorded() == 0

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.jit, "trace", refuse)
    for _ in range(2):
        assert torch.equal(*both(bert, [(1, 7)]))
    assert list(graphs._graphs.values()) == [None]


def test_a_graph_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.IN_PLACE, F.gelu, torch.relu_)
    bert = made()
    for _ in range(2):
        assert torch.equal(*both(bert, [(1, 7)]))
    assert list(graphs._graphs.values()) == [None]


def test_weights_count_as_they_are_at_each_call() -> None:
    bert = made()
    before, _ = both(bert, [(2, 6)])
    with torch.no_grad():
        bert.layers[1].get_parameter("attention.out.weight").mul_(2)
        bert.layers[2].attention_norm.bias = nn.Parameter(torch.ones(64))
    given, plain = both(bert, [(2, 6)])
    assert torch.equal(given, plain)
    assert not torch.equal(given, before)
    assert recorded() == 1


def alter_by_hook(bert: Bert) -> None:
    bert.layers[1].get_submodule("feed_forward.up").register_forward_hook(lambda _, __, result: result + 1)


def alter_a_part(bert: Bert) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    bert.layers[1].set_submodule("feed_forward.up", Doubled(64, 128))


def alter_forward(bert: Bert) -> None:
    attention = bert.layers[0].get_submodule("attention")
    attention.forward = lambda x, *_: x


def alter_the_activation(bert: Bert) -> None:
    bert.layers[0].get_submodule("feed_forward").activation = torch.sin


def alter_the_order(bert: Bert) -> None:
    norm = bert.layers[2].get_submodule("attention_norm")
    weight, norm.weight = norm.weight, None
    del norm.weight
    norm.register_parameter("weight", nn.Parameter(weight + 1))


def alter_a_bias(bert: Bert) -> None:
    bert.layers[0].get_submodule("feed_forward.down").bias = None


def alter_a_layer(bert: Bert) -> None:
    bert.layers[1] = Twice(bert.layers[1])


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return self.layer(self.layer(x, *rest), *rest)


def alter_with_a_module(bert: Bert) -> None:
    bert.layers[0].get_submodule("feed_forward").activation = nn.SiLU()


def alter_epsilon(bert: Bert) -> None:
    bert.layers[2].attention_norm.eps = 0.5


def alter_the_list(bert: Bert) -> None:
    bert.layers = nn.ModuleList(list(bert.layers)[:2])


ODD = alter_the_list, alter_the_order, alter_a_bias, alter_a_layer, alter_with_a_module


@pytest.mark.parametrize("alter", [alter_by_hook, alter_a_part, alter_forward, alter_the_activation, alter_epsilon, *ODD])
def test_what_the_owner_changes_holds(alter: Callable[[Bert], None]) -> None:
    bert = made()
    before, _ = both(bert, [(2, 6)])
    assert recorded() == 1
    alter(bert)
    for _ in range(2):
        given, plain = both(bert, [(2, 6)])
        assert torch.equal(given, plain)
        assert not torch.equal(given, before)


def test_outside_of_plain_inference_there_are_no_graphs() -> None:
    bert = made()
    ids, groups = torch.arange(6), [(2, 3)]
    with torch.inference_mode():
        expected = bert.forward_packed(ids, groups)
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.equal(bert.forward_packed(ids, groups), expected)
    bert.requires_grad_()
    bert.forward_packed(ids, groups).sum().backward()
    assert all(parameter.grad is not None for parameter in bert.layers.parameters())
    bert.train()
    with torch.inference_mode():
        assert not torch.equal(bert.forward_packed(ids, groups), bert.forward_packed(ids, groups))  # dropout


def test_a_class_that_is_patched_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    bert = made()
    before, _ = both(bert, [(2, 6)])
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: x * self.weight)
    given, plain = both(bert, [(2, 6)])
    assert torch.equal(given, plain)
    assert not torch.equal(given, before)


def test_a_graph_keeps_no_model_in_memory_and_no_mode_is_changed() -> None:
    bert = made()
    assert not any(module.training for module in bert.modules())
    both(bert, [(2, 6)])
    assert recorded() == 1
    weight = weakref.ref(bert.layers[0].get_parameter("attention.qkv.weight"))
    del bert
    gc.collect()
    assert weight() is None


def test_recording_warns_nobody_and_threads_may_ask_for_it_at_once() -> None:
    bert = made()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: both(made(), [(1, 7)]), range(8)))
        assert list(warnings.filters) == before
    assert not caught
    assert all(torch.equal(given, results[0][1]) for given, _ in results)
    copies = copy.deepcopy(bert), pickle.loads(pickle.dumps(bert))  # noqa: S301 (our own)
    assert all(one._stack is graphs.stack for one in copies)
    assert set(bert.state_dict()) == set(Bert(bert.config).state_dict())
