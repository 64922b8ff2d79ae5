"""Runs a layer as one recorded graph, without Python between its operations.

For one sentence, an operation takes a few microseconds, and Python's overhead takes as long. In int8, this also holds for larger
batches. So `torch.jit.trace` records the operations of `Layer.forward`. Weights are inputs of the graph, so one graph serves all
layers of a kind, in all models, also after weights have changed. Operations and bits are the same as without a graph.

A graph is used only if its result cannot differ from that of `Layer.forward`. This holds in inference mode, on a CPU, in PyTorch's
default state, without hooks, and if every part of the layer is of the type that `load` made. Otherwise `Layer.forward` runs. It
also runs if recording fails, or if the graph's bits differ from those of `forward` for the batch that was recorded.
A function that a program replaces, such as `F.linear` or `bert.attend`, is not noticed; a replaced `forward` is.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn import functional as F
from torch.nn.modules import module as all_modules

from minisbert.bert import ACTIVATIONS, Bert, FeedForward, Layer, LengthGroup, SelfAttention
from minisbert.inference.kernels import ChosenLinear, onednn
from minisbert.inference.quantization import Int8Linear, linear_int8
from minisbert.inference.threads import native

PLAIN_CALLS = 128
"""The number of calls after which a kind of layer is recorded. Recording takes about as long as these calls, so short programs skip
it."""

MOST_GROUPS = 8
"""The most length groups in a batch that is computed by a graph, because each number of groups needs a graph of its own."""

KNOWN: dict[type[nn.Module], Callable[..., Tensor]] = {
    part: part.forward for part in (Layer, SelfAttention, FeedForward, nn.LayerNorm, nn.Linear, ChosenLinear, Int8Linear)
}
"""The types that a layer and its parts may have, and their original `forward`, to notice if a program replaces it."""

IN_PLACE: dict[Any, Callable[[Tensor], Tensor]] = {F.gelu: torch.ops.aten.gelu_, F.relu: torch.relu_}
"""In-place activations. They are safe in a graph, because nothing else uses the input of the activation."""

Kind = tuple[Any, ...]
"""The key of a graph: everything that it depends on, except its inputs."""

Graph = Callable[..., Tensor]
"""x [tokens, hidden], a tensor [sentences, length] for each length group, the biases, the weights → as x"""

_graphs: dict[Kind, Graph | None] = {}  # None: there is no graph of this kind
_calls: Counter[Kind] = Counter()
_recording = native.allocate_lock()  # if it is held during a fork, the new process records nothing


def stack(layers: nn.ModuleList, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]) -> Tensor:
    """`Bert._stack`, with a graph for each layer that has one: the same bits."""
    described = [] if torch.compiler.is_compiling() else _described(layers, x, groups, biases)
    if not described:
        return Bert._stack(layers, x, groups, biases)
    shared = [_of_shape(*group) for group in groups] + [bias for bias in biases if bias is not None]
    for layer, (kind, weights) in zip(layers, described, strict=True):
        graph = _graphs.get(kind)
        if graph is not None:
            x = graph(x, *shared, *weights)
        else:
            before, x = x, layer(x, groups, biases)
            if kind not in _graphs:
                _count(kind, layer, (before, *shared, *weights), len(groups), [bias is None for bias in biases], x)
    return x


def use_graphs(bert: Bert) -> None:
    """Lets a model record its layers after `PLAIN_CALLS` calls, and use the graphs from then on."""
    bert._stack = stack  # type: ignore[method-assign]  # a function by name, so the model can be copied and pickled


def _described(
    layers: nn.ModuleList, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor | None]
) -> list[tuple[Kind, list[Tensor]]]:
    """The kind of each layer's graph, and its weights; an empty list if `Layer.forward` must be used.

    This is called on every forward pass, so it must be fast. All layers are described before the first is computed, because
    computing evicts Python's data from the cache. `_modules` and the like are read directly, because `getattr` is slower.
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
    of_batch = x.dtype, sum(map(math.prod, groups)) == len(x), *[bias is None for bias in biases]
    described = []
    for layer in layers._modules.values():
        found = _of_layer(layer)
        if found is None:
            return []
        described.append(((*of_batch, *found[0]), found[1]))
    return described


def _of_layer(layer: Any) -> tuple[list[Any], list[Tensor]] | None:
    """What a layer's graph depends on, and its weights; None if any part differs from what `load` makes."""
    if type(layer) is not Layer or len(layer._modules) != 4:
        return None
    inside = layer._modules
    attention, feed_forward = inside.get("attention"), inside.get("feed_forward")
    if type(attention) is not SelfAttention or type(feed_forward) is not FeedForward:
        return None
    if len(attention._modules) != 2 or len(feed_forward._modules) != 2 or feed_forward.activation not in _ACTIVATIONS:
        return None
    leaves = _leaves(layer)
    for part in (layer, attention, feed_forward, *leaves):
        if KNOWN.get(type(part)) is not type(part).forward or part.training or part._forward_hooks or part._forward_pre_hooks:
            return None
        if "forward" in part.__dict__:
            return None
    kind = [attention.heads, attention.head_dim, feed_forward.activation]
    weights: list[Tensor] = []
    for leaf in leaves:
        function, tensors = _computed(leaf)
        if any(type(tensor) not in (nn.Parameter, Tensor) for tensor in tensors):
            return None
        kind.append(function)
        weights += tensors
    return kind + [weight.dtype for weight in weights], weights


def _leaves(layer: Any) -> list[Any]:
    """The modules of a layer that have weights; None for a missing one."""
    inside = layer._modules
    attention, feed_forward = inside["attention"]._modules, inside["feed_forward"]._modules
    return [
        *(attention.get("qkv"), attention.get("out"), inside.get("attention_norm")),
        *(feed_forward.get("up"), feed_forward.get("down"), inside.get("feed_forward_norm")),
    ]


def _computed(leaf: Any) -> tuple[Any, Sequence[Any]]:
    """The function of a leaf, or the ε of a layer norm, and the tensors that it takes; None for a missing tensor."""
    if type(leaf) is Int8Linear:
        return linear_int8, leaf.tensors()
    parameters = leaf._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if type(leaf) is nn.LayerNorm:
        return leaf.eps, (weight, bias)
    suited = type(leaf) is ChosenLinear and weight is not None and weight.dtype == leaf.product_dtype
    return leaf.product if suited else F.linear, (weight, bias)


_ACTIVATIONS = tuple(ACTIVATIONS.values())  # a tuple and no set, because a user's activation may not be hashable


@lru_cache(maxsize=1024)
def _of_shape(sentences: int, length: int) -> Tensor:
    """Passes the two sizes to a graph, whose inputs are tensors only. Expanding needs no memory."""
    return torch.zeros(1).expand(sentences, length)


# Recording


def _count(kind: Kind, layer: Any, inputs: tuple[Tensor, ...], groups: int, without_bias: Sequence[bool], expected: Tensor) -> None:
    """Counts a call, and records the layer after `PLAIN_CALLS` of them. Other threads continue without a graph meanwhile."""
    _calls[kind] += 1
    if _calls[kind] < PLAIN_CALLS or not expected.isfinite().all() or not _recording.acquire(False):
        return
    try:
        if kind not in _graphs:
            _graphs[kind] = _recorded(layer, inputs, groups, without_bias, expected)
    finally:
        _recording.release()


def _recorded(layer: Any, inputs: tuple[Tensor, ...], groups: int, without_bias: Sequence[bool], expected: Tensor) -> Graph | None:
    """The graph of a layer; None if it cannot be recorded or has other bits than expected."""
    if sys.version_info >= (3, 14):  # where `torch.jit.trace` "may break"
        return None
    known = [_computed(leaf) for leaf in _leaves(layer)]
    functions, counts = [_traceable(function) for function, _ in known], [len(tensors) for _, tensors in known]
    # The functions' settings, and not the layer itself, because the graph would keep it in memory.
    of_layer, of_attention, of_feed_forward = (_settings(part) for part in (layer, layer.attention, layer.feed_forward))
    of_feed_forward["activation"] = IN_PLACE.get(layer.feed_forward.activation, layer.feed_forward.activation)

    def forward(x: Tensor, *others: Tensor) -> Tensor:
        rest = iter(others)
        shapes: list[Any] = [tuple(next(rest).shape) for _ in range(groups)]  # sizes stay variable in the graph
        biases = [None if missing else next(rest) for missing in without_bias]
        qkv, out, attention_norm, up, down, feed_forward_norm = (
            partial(_apply, function, list(islice(rest, count))) for function, count in zip(functions, counts, strict=True)
        )
        attention = partial(KNOWN[SelfAttention], SimpleNamespace(**of_attention, qkv=qkv, out=out))
        feed_forward = partial(KNOWN[FeedForward], SimpleNamespace(**of_feed_forward, up=up, down=down))
        norms = {"attention_norm": attention_norm, "feed_forward_norm": feed_forward_norm}
        whole = SimpleNamespace(**of_layer, **norms, attention=attention, feed_forward=feed_forward)
        return KNOWN[Layer](whole, x, shapes, biases)

    try:
        with _silent():
            graph = torch.jit.trace(forward, inputs, check_trace=False)
        # PyTorch optimizes a graph in its first and its second call, so three are compared.
        same = isinstance(graph, torch.jit.ScriptFunction) and all(torch.equal(graph(*inputs), expected) for _ in range(3))
    except (RuntimeError, AttributeError, TypeError, ValueError, Warning):
        return None  # an operation that cannot be recorded, or another version of PyTorch: `Layer.forward` is used
    return graph if same else None


def _settings(part: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if not name.startswith("_")}


def _apply(function: Callable[..., Tensor], weights: Sequence[Tensor], x: Tensor) -> Tensor:
    return function(x, *weights)


def _traceable(function: Any) -> Callable[..., Tensor]:
    """The function of a leaf, in a form that `torch.jit.trace` can record."""
    if isinstance(function, float):
        return lambda x, weight, bias: F.layer_norm(x, x.shape[1:], weight, bias, function)
    if function is onednn:
        return _operator(ONEDNN)
    return partial(linear_int8, product=_operator(INTEGER_PRODUCT)) if function is linear_int8 else function


# The operators of `kernels.onednn` and `quantization.integer_product`, with the same arguments. `torch.jit.trace` cannot record
# their lists of type Scalar?[], but it can record a call of another graph that contains such a list.

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
    """Hides the warnings of `torch.jit.trace` about deprecation and about recorded conditions.

    `warnings.catch_warnings` is not used, because at its end it would also undo filters that other threads set meanwhile. Another
    thread's `catch_warnings` may also replace the list of filters, so the old list and the new one are cleaned.
    """
    ours: list[Any] = [("ignore", None, category, None, 0) for category in (TracerWarning, DeprecationWarning)]
    filters: Any = warnings.filters
    filters[:0] = ours
    try:
        yield
    finally:
        now: Any = warnings.filters
        for some in (filters, now):  # by identity: Python's own list has equal entries
            some[:] = [entry for entry in some if not any(entry is one for one in ours)]
