"""What is timed: one row of `SYSTEMS` for each system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmark import runtimes
from benchmark.interface import Setting, System, Way


class AsCalled(System):
    """A library's own `encode`, as its users call it. Subclasses set `encoder`."""

    encoder: Any

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import torch

        torch.set_num_threads(self.threads)

    def limit(self, tokens: int | None) -> None:
        self.encoder.max_seq_length = tokens or self.usual

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        return self.encoder.encode(texts[0] if single else texts)


class Minisbert(AsCalled):
    """`options` go to `minisbert.load`."""

    def __init__(self, setting: Setting, **options: Any) -> None:
        super().__init__(setting)
        import minisbert

        self.encoder = minisbert.load(self.folder, **options)
        self.usual = self.encoder.max_seq_length


class SentenceTransformers(AsCalled):
    """With its defaults: batches of 32."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        from sentence_transformers import SentenceTransformer

        self.encoder = SentenceTransformer(str(self.folder), device="cpu")
        self.usual = self.encoder.max_seq_length


class Gemm(Minisbert):
    """The linear layers of minisbert's model over minisbert's own batches, and nothing else. It has no vectors."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import torch
        from torch import nn

        self.linears = [module for module in self.encoder.bert.modules() if isinstance(module, nn.Linear)]
        widths = {linear.in_features for linear in self.linears}
        self.rows = {width: torch.ones(self.encoder.bert.config.max_position_embeddings * 4, width) for width in widths}
        self.sizes: dict[tuple[str, ...], list[int]] = {}

    def ways(self) -> list[Way]:
        return [Way(apart=False), Way(apart=True)]

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        from minisbert.inference.batching import pack, padding_tokens
        from minisbert.inference.threads import Task, workers

        key = tuple(texts)
        if key not in self.sizes:  # counted once, in the warm-up: only the products are to be timed
            lengths = [len(ids) for ids in self.encoder.tokenizer(list(dict.fromkeys(texts))).ids]
            self.sizes[key] = [batch.tokens + padding_tokens(batch.tokens) for batch in pack(lengths, self.encoder.device)]
        products = [partial(self.multiply, size) for size in self.sizes[key][::part]]
        if way.apart and len(products) > 1:
            tasks = [Task(product) for product in products]
            for task in tasks:
                workers(self.threads).submit(task)
            for task in tasks:
                task.done.get().result()
        else:
            for product in products:
                product()

    def multiply(self, tokens: int) -> None:
        """All linear layers, once, over so many tokens."""
        import torch

        with torch.inference_mode():
            for linear in self.linears:
                linear(self.rows[linear.in_features][:tokens])


@dataclass(frozen=True)
class Row:
    """One system of the table.

    Attributes:
        make: builds it, in its own process.
        exports: the rows of EXPORTS that it reads, in the order in which they are made.
        precision: what its vectors must agree with: see AGREEMENT in measure.py.
        peer: the report says how minisbert compares with the best peer of the same precision.
    """

    make: Callable[[Setting], System]
    exports: tuple[str, ...] = ()
    precision: str = "float32"
    peer: bool = False


SYSTEMS: dict[str, Row] = {
    "minisbert": Row(Minisbert),
    "sentence-transformers": Row(SentenceTransformers),
    "onnxruntime": Row(runtimes.OnnxRuntime, ("onnxruntime",), peer=True),
    "openvino": Row(runtimes.OpenVino, ("openvino",), peer=True),
    "ctranslate2": Row(runtimes.CTranslate2, ("ctranslate2",), peer=True),
    "onnxruntime-user": Row(runtimes.OnnxRuntimeUsual, ("onnxruntime",)),
    "openvino-user": Row(runtimes.OpenVinoUsual, ("openvino",)),
    "ctranslate2-user": Row(runtimes.CTranslate2Usual, ("ctranslate2",)),
    "minisbert-int8": Row(partial(Minisbert, quantize="int8"), precision="int8"),
    "onnxruntime-int8": Row(
        partial(runtimes.OnnxRuntime, export="onnxruntime-int8"), ("onnxruntime", "onnxruntime-int8"), precision="int8", peer=True
    ),
    "gemm": Row(Gemm),
}
"""In the order of the report. The vectors of the first system that is timed are what those of the others must agree with."""

OURS = {"float32": "minisbert", "int8": "minisbert-int8"}
"""The system of ours that is compared with the peers of a precision."""
