"""Linear layers in int8: a quarter of the memory, and integer products, which processors compute faster.

With `quantize="int8"`, weights are rounded to integers when a model is loaded, and tokens before each product:

    weights [out, in]        w ≈ scale · W         one scale for each output; W in −127 … 127, or in −63 … 63
    tokens [tokens, in]      x ≈ low + step · X    one low and one step for each token; X in 0 … 255

    x wᵀ + b  ≈  step · (scale · Σ X W) + low · (scale · Σ W) + b                Σ over the inputs

Σ X W is a sum of integers, so it is exact in any order. Everything else is computed for each token separately. So a vector depends
on its text only, with the same bits in any batch and on any number of cores. A scale for each token is also more accurate than one
for a batch. Embeddings, layer norms, attention and the modules after the pooling stay in float32.

Processors without VNNI (AVX2, early AVX-512) add pairs of products in 16 bits. 2 · 255 · 127 overflows, and 2 · 255 · 63 fits. So,
when a model is loaded, the larger range of W is tried with the largest possible values; if it overflows, the smaller one is taken.
scripts/benchmark/README.md compares other schemes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from minisbert.bert import Bert
from minisbert.errors import MinisbertError
from minisbert.inference.kernels import exchange_linears, linears
from minisbert.inference.threads import on_one_core

LEVELS = 127, 63
"""The largest magnitudes of an integer weight, the more accurate one first."""


class Packed:
    """Constant integer weights [out, in], in the layout that oneDNN chooses for this machine."""

    def __init__(self, integers: Tensor) -> None:
        # oneDNN ignores strides. The operator also needs a zero point for each output.
        self.tensor = torch.ops.onednn.qlinear_prepack(integers.contiguous(), None)
        self.zero_points = torch.zeros(len(integers), dtype=torch.int64)

    def integers(self) -> Tensor:
        """The integers as they were: int8 [out, in]."""
        return self.tensor.to_dense().t()

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.integers(),)


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[tokens, in] → X, uint8 [tokens, in], and step and low, [tokens, 1] each."""
    low = x.amin(dim=1, keepdim=True)
    step = (x.amax(dim=1, keepdim=True) - low) / 255  # 0 for a token of equal values, for which X does not matter
    # PyTorch rounds to int8 six times faster than to uint8. So it rounds X − 128, and flips the highest bit.
    signed = x.sub(low + 128 * step).div_(step).round_().to(torch.int8)
    return signed.bitwise_xor_(-128).to(torch.uint8), step, low


def integer_product(integers: Tensor, weight: Tensor, scale: Tensor, zero_points: Tensor) -> Tensor:
    """uint8 [tokens, in], packed int8 [out, in] → scale · Σ X W, float32 [tokens, out]."""
    weights = weight, scale, zero_points
    return torch.ops.onednn.qlinear_pointwise(integers, 1.0, 0, *weights, None, 1.0, 0, torch.float32, "none", [], "")


def linear_int8(
    x: Tensor, weight: Tensor, scale: Tensor, zero_points: Tensor, sums: Tensor, bias: Tensor, *, product: Any = integer_product
) -> Tensor:
    """[tokens, in] → [tokens, out]; see the top of this file."""
    integers, step, low = quantize_tokens(x)
    return torch.addcmul(bias, low, sums).addcmul_(step, product(integers, weight, scale, zero_points))


class Int8Linear(nn.Module):
    """An `nn.Linear` whose weights are int8, for inference on a processor: [tokens, in] → [tokens, out], in float32.

    Args:
        linear: the layer in float32.
        levels: the largest magnitude of an integer weight.
    """

    scale: Tensor
    sums: Tensor
    quantize = "int8"
    product = staticmethod(linear_int8)

    def __init__(self, linear: nn.Linear, levels: int) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()  # [out, in]
        scale = weight.abs().amax(dim=1) / levels  # [out]; 0 where all weights are 0
        integers = (weight / scale.clamp_min(torch.finfo(scale.dtype).tiny)[:, None]).round_().to(torch.int8)  # [out, in]
        self.register_buffer("scale", scale)  # [out]
        self.register_buffer("sums", scale * integers.sum(dim=1))  # [out]
        self.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)  # [out]
        self.packed = Packed(integers)

    @property
    def weight(self) -> Tensor:
        """The weights that the integers represent: float32 [out, in], computed at each call."""
        return self.scale[:, None] * self.packed.integers()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise MinisbertError("quantize: int8 layers have no gradients. Load the model without quantize to train it.")
        if x.device.type != "cpu" or x.dtype != torch.float32:
            raise MinisbertError(
                f"quantize: found {x.dtype} on {x.device.type}, expected torch.float32 on cpu in int8 layers. Load without "
                "quantize for another dtype or device."
            )
        return linear_int8(x, *self.tensors())

    def tensors(self) -> tuple[Tensor, ...]:
        """The arguments of `linear_int8` after x."""
        scale, sums = self._buffers.values()
        (bias,) = self._parameters.values()
        return cast("tuple[Tensor, ...]", (self.packed.tensor, scale, self.packed.zero_points, sums, bias))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"

    def get_extra_state(self) -> Tensor:
        """The integer weights [out, in], so that `state_dict` is complete."""
        return self.packed.integers()

    def set_extra_state(self, state: Tensor) -> None:
        """Takes integer weights [out, in] from a `state_dict`."""
        self.packed = Packed(state)


def check_quantize(quantize: Any, device: Any, dtype: Any) -> None:
    """Refuses options that conflict, before anything is loaded.

    Raises:
        TypeError: if `quantize` is neither None nor a text.
        ValueError: if it is not "int8", or int8 layers do not support the device or dtype.
    """
    if quantize is None:
        return
    if not isinstance(quantize, str):
        raise TypeError(f"quantize: found {type(quantize).__name__}, expected None or 'int8'.")
    if quantize != Int8Linear.quantize:
        raise ValueError(f"quantize: found {quantize!r}, expected None or 'int8'. Half precision is dtype=torch.float16.")
    if device is not None and torch.device(device).type != "cpu":
        raise ValueError(f"device: found {str(device)!r}, expected 'cpu' with quantize='int8'. On a GPU take dtype=torch.float16.")
    if dtype not in (None, torch.float32):
        raise ValueError(f"dtype: found {dtype}, expected torch.float32 with quantize='int8'. Leave out one of the two.")


def quantize_linears(bert: Bert) -> None:
    """Replaces the linear layers of a float32 model on a CPU by `Int8Linear`s, one at a time.

    Raises:
        MinisbertError: if this PyTorch has no exact int8 products on this machine.
    """
    shapes = tuple((linear.out_features, linear.in_features) for linear in linears(bert))
    levels = next((levels for levels in LEVELS if is_exact(levels, shapes, torch.get_num_threads())), None)
    if levels is None:
        raise MinisbertError(
            f"quantize: PyTorch {torch.__version__} has no exact int8 products on this machine, expected those of oneDNN "
            "(onednn::qlinear_pointwise). Load the model without quantize."
        )
    exchange_linears(bert, lambda linear: Int8Linear(linear, levels).eval())


@lru_cache(maxsize=64)
def is_exact(levels: int, shapes: tuple[tuple[int, ...], ...], threads: int) -> bool:
    """Whether the largest integers are multiplied exactly, and each row has the same bits in any batch and on all cores.

    Args:
        levels: the largest magnitude of an integer weight.
        shapes: [out, in] of each linear layer of a model.
        threads: the number of threads that use all cores.
    """
    rounding = 16 * torch.finfo(torch.float32).eps

    def made(outputs: int, inputs: int) -> tuple[Tensor, Tensor, Tensor, Packed]:
        several = torch.arange(-levels, levels + 1, dtype=torch.int8).repeat(outputs * inputs // (2 * levels) + 1)
        weight = several[: outputs * inputs].view(outputs, inputs)
        weight[::2] = levels
        x = torch.arange(32.0 * inputs).view(32, inputs) % 256
        x[:8] = 255
        x[:, 0], x[:, 1] = 0, 255  # so that low is 0 and step is 1
        scale = torch.rand(outputs, generator=torch.Generator().manual_seed(0))
        return x, scale, (x @ weight.float().t()) * scale + scale, Packed(weight)

    def exact(outputs: int, inputs: int) -> bool:
        x, scale, expected, packed = on_one_core(lambda: made(outputs, inputs))

        def product(rows: Tensor) -> Tensor:
            with torch.inference_mode():
                return linear_int8(rows, packed.tensor, scale, packed.zero_points, scale, scale)

        def on_one() -> bool:
            whole = product(x)
            close = torch.allclose(whole, expected, rtol=rounding, atol=rounding * 255 * levels)
            return close and torch.equal(product(x[4:12].clone()), whole[4:12]) and all(torch.equal(each, whole) for each in on_all)

        # Only the product runs on all cores, because an operation on all cores waits for any other program on one of them.
        on_all = [product(x)] if threads > 1 else []
        return on_one_core(on_one)

    try:
        return all(exact(*shape) for shape in shapes)
    except (RuntimeError, AttributeError):  # no such operator in this PyTorch or on this machine, or one with other arguments
        return False
