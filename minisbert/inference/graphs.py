"""A layer as one call: its operations are recorded once, and from then on run without Python between them.

One sentence gives each operation a few microseconds of work, and Python takes as long to come to the next one. int8 has many small
operations in larger batches too. So `torch.jit.trace` records what `Layer.forward` does, with the weights among the inputs: one
graph serves all layers of a kind, in all models, with the weights as they are at each call. The operations are the same, so the
bits are.

Layers run their graphs only where nobody can tell: in inference mode, on a processor, in PyTorch's default state, without hooks,
and with parts of the types in `LEAVES`. Everything else goes through `Layer.forward`. So does a layer whose graph cannot be
recorded, or has other bits than `forward` for the batch that it was recorded with.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from threading import Lock
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn import functional as F
from torch.nn.modules import module as all_modules

from minisbert.bert import Bert, FeedForward, Layer, Layers, LengthGroup, SelfAttention
from minisbert.inference.kernels import ChosenLinear, onednn
from minisbert.inference.quantization import Int8Linear, linear_int8

PLAIN_CALLS = 128
"""Calls of layers before one of their kind is recorded, which takes about as long. Many a program is over by then."""

MOST_GROUPS = 8
"""Length groups of a batch that is worth a graph: each number of groups has one of its own."""

LEAVES: dict[type[nn.Module], Callable[[Any], tuple[Any, Iterable[Tensor]]]] = {
    nn.LayerNorm: lambda norm: (norm.eps, norm._parameters.values()),
    nn.Linear: lambda linear: (F.linear, linear._parameters.values()),
    ChosenLinear: lambda linear: (linear.product, linear._parameters.values()),
    Int8Linear: lambda linear: (linear_int8, linear.tensors()),
}
"""What a part with weights computes, a product or a layer norm with that ε, and with which tensors."""

IN_PLACE: dict[Any, Callable[[Tensor], Tensor]] = {F.gelu: torch.ops.aten.gelu_, F.relu: torch.relu_}
"""Activations that need no memory of their own in a graph, where nobody else holds their input."""

Kind = tuple[Any, ...]
"""Everything that a graph depends on, but for its inputs."""

Graph = Callable[..., Tensor]
"""x [tokens, hidden], a tensor [sentences, length] for each length group, the biases, the weights → as x"""

_graphs: dict[Kind, Graph | None] = {}  # None: there is no graph of this kind
_calls: Counter[Kind] = Counter()
_recording = Lock()


class GraphLayers(Layers):
    """A stack of layers that runs their graphs where it can."""

    def forward(self, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]) -> Tensor:
        """As `Layers` does, with the same bits."""
        layers = list(self._modules.values())
        described = _described(layers, x, groups, biases)
        if not described:
            return super().forward(x, groups, biases)
        shared = [_of_shape(*group) for group in groups] + [bias for bias in biases if bias is not None]
        for layer, (kind, weights) in zip(layers, described, strict=True):
            graph = _graphs.get(kind)
            if graph is not None:
                x = graph(x, *shared, *weights)
            else:
                before, x = x, layer(x, groups, biases)
                if kind not in _graphs:
                    _count(kind, layer, (before, *shared, *weights), groups, biases, x)
        return x


def use_graphs(bert: Bert) -> None:
    """Has the layers of a model recorded when they have been called often enough."""
    bert.layers = GraphLayers(bert.layers)


def _described(
    layers: Sequence[Any], x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]
) -> list[tuple[Kind, list[Tensor]]]:
    """The kind of each layer's graph, and its weights; nothing if only `Layer.forward` will do.

    All layers are described before one is computed: in between, their weights would push Python's data out of the cache. For the
    same reason modules are asked for what their dictionaries hold.
    """
    if (
        len(groups) > MOST_GROUPS
        or not (x.is_cpu and torch.is_inference_mode_enabled())
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state()
        or all_modules._global_forward_hooks
        or all_modules._global_forward_pre_hooks
    ):
        return []
    without_filler = sum(map(math.prod, groups)) == len(x)
    of_batch = x.dtype, without_filler, *[bias is None for bias in biases]
    described = []
    for layer in layers:
        attention, feed_forward, leaves = _parts(layer)
        if type(layer) is not Layer or type(attention) is not SelfAttention or type(feed_forward) is not FeedForward:
            return []
        if any(
            part.training or part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__
            for part in (layer, attention, feed_forward, *leaves)
        ):
            return []
        kind = [of_batch, attention.heads, attention.head_dim, feed_forward.activation]
        weights: list[Tensor] = []
        for leaf in leaves:
            if type(leaf) not in LEAVES:
                return []
            function, tensors = LEAVES[type(leaf)](leaf)
            kind.append(function)
            weights += tensors
        described.append(((*kind, *[weight.dtype for weight in weights]), weights))
    return described


def _parts(layer: Any) -> tuple[Any, Any, list[Any]]:
    """The attention and the feed-forward step of a layer, and the six parts with weights."""
    modules = layer._modules
    attention, feed_forward = modules["attention"], modules["feed_forward"]
    (qkv, out), (up, down) = attention._modules.values(), feed_forward._modules.values()
    return attention, feed_forward, [qkv, out, modules["attention_norm"], up, down, modules["feed_forward_norm"]]


@lru_cache(maxsize=1024)
def _of_shape(sentences: int, length: int) -> Tensor:
    """A tensor of that shape without memory of its own: graphs take only tensors."""
    return torch.zeros(1).expand(sentences, length)


# Recording


def _count(
    kind: Kind,
    layer: Any,
    inputs: tuple[Tensor, ...],
    groups: Sequence[LengthGroup],
    biases: Sequence[Tensor | None],
    expected: Tensor,
) -> None:
    """Counts a call, and records the layer if there were enough. Other threads go on meanwhile as before."""
    _calls[kind] += 1
    if _calls[kind] >= PLAIN_CALLS and _recording.acquire(blocking=False):
        try:
            _graphs[kind] = _recorded(layer, inputs, groups, biases, expected)
        finally:
            _recording.release()


def _recorded(
    layer: Any, inputs: tuple[Tensor, ...], groups: Sequence[LengthGroup], biases: Sequence[Tensor | None], expected: Tensor
) -> Graph | None:
    """The graph of a layer; None if it cannot be recorded or has other bits than expected."""
    weights: list[list[Tensor]] = []

    def leaf(place: int, function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: function(x, *weights[place])

    known = [LEAVES[type(part)](part) for part in _parts(layer)[2]]
    counts = [len(list(tensors)) for _, tensors in known]
    activation = layer.feed_forward.activation
    qkv, out, attention_norm, up, down, feed_forward_norm = (
        leaf(place, _traceable(function)) for place, (function, _) in enumerate(known)
    )
    whole = _with(
        layer,
        attention=_with(layer.attention, qkv=qkv, out=out),
        attention_norm=attention_norm,
        feed_forward=_with(layer.feed_forward, up=up, down=down, activation=IN_PLACE.get(activation, activation)),
        feed_forward_norm=feed_forward_norm,
    )

    def forward(x: Tensor, *others: Tensor) -> Tensor:
        rest = iter(others)
        shapes = [tuple(next(rest).shape) for _ in groups]  # in a trace, sizes that are not fixed
        given = [None if bias is None else next(rest) for bias in biases]
        weights[:] = [list(islice(rest, count)) for count in counts]
        return whole(x, shapes, given)

    try:
        with _silent():
            graph: Graph = torch.jit.trace(forward, inputs, check_trace=False)
        # PyTorch optimizes a graph at its first and its second call.
        return graph if all(torch.equal(graph(*inputs), expected) for _ in range(3)) else None
    except (RuntimeError, AttributeError, TypeError):  # an operation that is not recorded, or a PyTorch that cannot do this
        return None


def _with(module: Any, **parts: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The `forward` of a module with other parts in it."""
    return partial(type(module).forward, SimpleNamespace(**vars(module) | parts))


def _traceable(function: Any) -> Callable[..., Tensor]:
    """What a part computes, as a function of x and its tensors that `torch.jit.trace` can record."""
    if isinstance(function, float):
        return lambda x, weight, bias: F.layer_norm(x, x.shape[1:], weight, bias, function)
    if function is onednn:
        return _operator(ONEDNN)
    return partial(linear_int8, product=_operator(INTEGER_PRODUCT)) if function is linear_int8 else function


# The operators of `kernels.onednn` and `quantization.integer_product`, with the same arguments. `torch.jit.trace` cannot record
# them, since it knows no lists of the type Scalar?[], but it can record a call of a graph that holds one.

ONEDNN = """
graph(%x : Tensor, %weight : Tensor, %bias : Tensor?):
  %none : str = prim::Constant[value="none"]()
  %empty : str = prim::Constant[value=""]()
  %list : Scalar?[] = prim::ListConstruct()
  %y : Tensor = mkldnn::_linear_pointwise(%x, %weight, %bias, %none, %list, %empty)
  return (%y)
"""

INTEGER_PRODUCT = """
graph(%x : Tensor, %weight : Tensor, %scale : Tensor, %zeros : Tensor):
  %none : NoneType = prim::Constant()
  %name : str = prim::Constant[value="none"]()
  %empty : str = prim::Constant[value=""]()
  %0 : int = prim::Constant[value=0]()
  %1 : float = prim::Constant[value=1.]()
  %type : int = prim::Constant[value=6]()
  %list : Scalar?[] = prim::ListConstruct()
  %y : Tensor = onednn::qlinear_pointwise(%x, %1, %0, %weight, %scale, %zeros, %none, %1, %0, %type, %name, %list, %empty)
  return (%y)
"""


@lru_cache
def _operator(text: str) -> Callable[..., Tensor]:
    operator: Callable[..., Tensor] = torch._C._create_function_from_graph("operator", torch._C.parse_ir(text))
    return operator


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings of `torch.jit.trace`: that it is deprecated, and that a condition is recorded as it is now.

    `warnings.catch_warnings` would also put back what other threads set meanwhile.
    """
    ours: list[Any] = [("ignore", None, category, None, 0) for category in (TracerWarning, DeprecationWarning)]
    warnings.filters[:0] = ours  # type: ignore[index]
    try:
        yield
    finally:
        for entry in ours:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
