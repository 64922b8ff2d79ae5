"""Chooses the matrix product of the linear layers on this machine. The weights stay ordinary tensors, whichever is chosen.

PyTorch multiplies float32 matrices with MKL by default. It also contains oneDNN, which its private operator `_linear_pointwise`
calls with a dense weight. oneDNN reads a weight along the output. So the memory of each weight is transposed once, when a model is
loaded; its shape is still [out, in], and it is held once. scripts/benchmark/README.md, "Tried and dropped", has the measurements.

A vector must not depend on its batch. So these products are tried in this order, on the model's own shapes, when it is loaded. The
first is chosen that agrees with `F.linear` and gives each row the same bits alone, in a batch, and (for oneDNN) on all cores:

    onednn      x86 with AVX2 or more, float32; without AVX2 it is slower than MKL, and its bits depend on the number of rows
    F.linear    if inputs are multiples of 16; on one core only, because MKL's bits may depend on the number of threads
    padded      always; with other widths, MKL's rounding of a row depends on its alignment in memory
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisbert.bert import Bert, Layer
from minisbert.inference.threads import on_one_core

Product = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""x [tokens, in], weight [out, in], bias [out] → x Wᵀ + b, [tokens, out]"""

LINEARS = "attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"

CHECKED_ROWS = 640
"""The number of rows of the largest product that `keeps_bits` tries. Without AVX2, oneDNN switches to another kernel at 288 rows
(768 → 3072), 320 (384 → 1536) or 544 (128 → 512)."""

ALIGNED = 16
"""Inputs are padded to a multiple of this: 64 bytes in float32, 128 in float64. Then each row is aligned for MKL's vectors."""

VECTOR = 32
"""The most elements that PyTorch's elementwise kernels compute in one step, two registers of 16. The last elements of a tensor that
do not fill a step are computed one by one, with another rounding."""


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x Wᵀ + b` by oneDNN, in float32."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def padded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x Wᵀ + b` by `F.linear`, with inputs padded by zeros to a multiple of `ALIGNED`."""
    missing = -x.shape[1] % ALIGNED
    return F.linear(F.pad(x, (0, missing)), F.pad(weight, (0, missing)), bias)


class ChosenLinear(nn.Linear):
    """An `nn.Linear` with the chosen product. It uses `F.linear` for gradients, other dtypes and other devices."""

    product: Product
    product_dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = cast("Tensor", self._parameters["weight"]), self._parameters["bias"]  # self.weight takes 0.5 µs longer
        gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        suited = x.is_cpu and x.dtype == weight.dtype == self.product_dtype and x.dim() == 2
        return self.product(x, weight, bias) if suited and not gradient else F.linear(x, weight, bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, product={self.product.__name__}"


def choose_product(bert: Bert) -> None:
    """Replaces the `nn.Linear`s of a model on a CPU by `ChosenLinear`s, unless the chosen product is `F.linear`."""
    if bert.device.type != "cpu" or bert.dtype not in (torch.float32, torch.float64):
        return
    for product, usable, cores in (
        (onednn, bert.dtype == torch.float32 and _has_onednn(), True),
        (F.linear, all(linear.in_features % ALIGNED == 0 for linear in linears(bert)), False),
        (padded, True, False),
    ):
        if usable and keeps_bits(product, bert, on_all_cores=cores):
            break
    if product is F.linear:
        return
    exchange_linears(bert, lambda linear: _chosen(linear, product))


def exchange_linears(bert: Bert, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Replaces each linear layer of a model by `make(layer)`, one at a time, so that memory holds only one of them twice."""
    for layer in cast("Iterable[Layer]", bert.layers):
        for name in LINEARS:
            layer.set_submodule(name, make(cast("nn.Linear", layer.get_submodule(name))))


def align_modules(modules: nn.Sequential) -> None:
    """Makes post-pooling dense layers use `padded` if the number of their inputs is no multiple of `ALIGNED`."""
    for dense in modules:
        for name, linear in list(dense.named_children()):
            if isinstance(linear, nn.Linear) and linear.in_features % ALIGNED and linear.weight.device.type == "cpu":
                dense.set_submodule(name, _chosen(linear, padded))


def _chosen(linear: nn.Linear, product: Product) -> ChosenLinear:
    chosen = ChosenLinear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    chosen.weight, chosen.bias = linear.weight, linear.bias
    chosen.product, chosen.product_dtype = product, linear.weight.dtype
    if product is onednn:
        chosen.weight.data = linear.weight.data.t().contiguous().t()  # still [out, in], in memory as [in, out]
    return chosen.eval()


def _has_onednn() -> bool:
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def product_of(bert: Bert) -> Any:
    """The product that was chosen for a model."""
    return getattr(cast("Layer", bert.layers[0]).attention.out, "product", F.linear)


def keeps_bits(product: Any, bert: Bert, *, on_all_cores: bool) -> bool:
    """Whether a product agrees with `F.linear` on the shapes of a model, and gives each row the same bits in any batch.

    Rows are compared in the smallest batch, of 8 tokens, and in larger ones, on one core and optionally on all. The widest product
    is also tried with `CHECKED_ROWS` rows. This also detects a oneDNN that `ONEDNN_MAX_CPU_ISA` limits. Bits depend on shapes, not
    on values, so models of equal shapes are tried once.
    """
    shapes = tuple((linear.in_features, linear.out_features) for linear in linears(bert))
    return _keeps_bits(product, shapes, bert.dtype, torch.get_num_threads() if on_all_cores else 1)


@lru_cache(maxsize=64)
def _keeps_bits(product: Any, shapes: tuple[tuple[int, int], ...], dtype: torch.dtype, threads: int) -> bool:
    random = torch.Generator().manual_seed(0)
    widest = max(shapes, key=lambda shape: shape[1])

    def keeps(inputs: int, outputs: int) -> bool:
        x = torch.randn(CHECKED_ROWS if (inputs, outputs) == widest else 24, inputs, generator=random, dtype=dtype)
        weight = (torch.rand(inputs, outputs, generator=random, dtype=dtype) - 0.5).t()  # [out, in], along the output
        weight = weight if product is onednn else weight.contiguous()
        bias = torch.randn(outputs, generator=random, dtype=dtype)

        def on_all() -> list[Tensor]:
            with torch.inference_mode():
                return [product(rows, weight, bias) for rows in (x, x[:8])]

        def on_one() -> bool:
            with torch.inference_mode():
                whole, alone = on_all()
                difference = (whole[:24] - F.linear(x[:24], weight, bias)).abs().max()
                bound = 64 * torch.finfo(dtype).eps * x[:24].norm(dim=1).max() * weight.norm(dim=1).max()
                pairs = [(whole[:8], alone), (whole[4:20], product(x[4:20].clone(), weight, bias))]
                pairs += zip(all_cores, (whole, alone), strict=True) if all_cores else []
                return bool(difference <= bound) and all(torch.equal(one, other) for one, other in pairs)

        # Only the products run on all cores, because an operation on all cores waits for any other program on one of them.
        all_cores = on_all() if threads > 1 else []
        return on_one_core(on_one)

    try:
        return all(keeps(*shape) for shape in shapes)
    except RuntimeError:  # the private operator has other arguments in this PyTorch, or no implementation here
        return False


def linears(bert: Bert) -> list[nn.Linear]:
    """The linear layers of the first layer; the other layers have the same shapes."""
    return [cast("nn.Linear", bert.layers[0].get_submodule(name)) for name in LINEARS]


def row_multiple(*widths: int) -> int:
    """The number that a batch's tokens must be a multiple of, so that tensors of these widths fill whole elementwise steps.

    See `VECTOR`.

    >>> row_multiple(384, 1536), row_multiple(18, 40), row_multiple(77)
    (1, 16, 32)
    """
    return VECTOR // math.gcd(VECTOR, *widths)
