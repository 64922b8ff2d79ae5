"""onnxruntime, openvino and ctranslate2, each in its strongest form (`Runtime`) and in the usual one (`Usual`)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.exports import read_json
from benchmark.interface import WAYS, Setting, System, Way, batches

if TYPE_CHECKING:
    import numpy as np

USUAL_BATCH = 32


class Runtime(System):
    """Another library's model with our tokenizer and our batches, duplicates removed. Subclasses give `forward`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        import minisbert

        encoder = minisbert.load(self.folder)  # only its tokenizer is used
        self.tokenizer, self.dimension, self.usual = encoder.tokenizer, encoder.dimension, encoder.max_seq_length
        self.normalize = normalizes(self.folder)
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

        def compute(indices: list[int]) -> None:
            chosen = [ids[index] for index in indices]
            mask = None
            if way.padded:
                lengths = np.array([len(one) for one in chosen])
                longest = int(lengths[0])
                mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
                chosen = [one + [0] * (longest - len(one)) for one in chosen]
            rows[indices] = self.forward(np.array(chosen, dtype=np.int64), mask, way)

        groups = batches([len(one) for one in ids], way)[::part]
        if way.apart and len(groups) > 1:
            list(self.pool.map(compute, groups))
        else:
            for group in groups:
                compute(group)
        if self.normalize:
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        if len(unique) == len(texts):
            return rows
        place = {text: index for index, text in enumerate(unique)}
        return rows[[place[text] for text in texts]]

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        """Ids [batch, length], mask [batch, length] or None → [batch, hidden], mean-pooled."""
        raise NotImplementedError


class OnnxRuntime(Runtime):
    """The fused graphs, with and without a mask, of one row of EXPORTS."""

    def __init__(self, setting: Setting, export: str = "onnxruntime") -> None:
        super().__init__(setting)
        self.sessions = {
            (graph, threads): onnx_session(self.exports / export / f"{graph}.onnx", threads)
            for graph in ("equal", "masked")
            for threads in {1, self.threads}
        }

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        session = self.sessions["equal" if mask is None else "masked", 1 if way.apart else self.threads]
        return session.run(None, {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask})[0]


def onnx_session(path: Path, threads: int) -> Any:
    """All graph optimizations are on by default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OpenVino(Runtime):
    """One stream on all threads, or one stream for each thread."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.compiled = {
            (graph, apart): openvino_model(self.exports / "openvino" / f"{graph}.xml", self.threads, self.threads if apart else 1)
            for graph in ("equal", "masked")
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
    """In float32: by default it computes in bfloat16 where the processor has it."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    return openvino.Core().compile_model(path, "CPU", settings)


class CTranslate2(Runtime):
    """Its Encoder gets the true lengths in place of a mask."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.encoders = {
            False: ctranslate2_encoder(self.exports, inter_threads=1, intra_threads=self.threads),
            True: ctranslate2_encoder(self.exports, inter_threads=self.threads, intra_threads=1),
        }

    def forward(self, ids: np.ndarray, mask: np.ndarray | None, way: Way) -> np.ndarray:
        import ctranslate2
        import numpy as np

        lengths = np.full(len(ids), ids.shape[1]) if mask is None else mask.sum(1)
        view = ctranslate2.StorageView.from_array
        found = self.encoders[way.apart].forward_batch(view(ids.astype(np.int32)), view(lengths.astype(np.int32)))
        hidden = np.asarray(found.last_hidden_state)
        return hidden.mean(1) if mask is None else masked_mean(hidden, mask)


def ctranslate2_encoder(exports: Path, **threads: int) -> Any:
    """In float32."""
    import ctranslate2

    return ctranslate2.Encoder(str(exports / "ctranslate2"), device="cpu", compute_type="float32", **threads)


class Usual(System):
    """The usual way to call a runtime: sorted by length, batches of 32, padded, masked, mean-pooled. Subclasses give `hidden`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.usual = read_json(self.folder / "sentence_bert_config.json")["max_seq_length"]
        self.normalize = normalizes(self.folder)

    def limit(self, tokens: int | None) -> None:
        self.most = tokens or self.usual

    def encode(self, texts: list[str], way: Way, *, single: bool = False, part: int = 1) -> Any:
        import numpy as np

        indices = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        rows = []
        for start in range(0, len(texts), USUAL_BATCH):
            chosen = [texts[index] for index in indices[start : start + USUAL_BATCH]]
            batch = self.tokenizer(chosen, padding=True, truncation=True, max_length=self.most, return_tensors="np")
            rows.append(masked_mean(self.hidden(dict(batch)), batch["attention_mask"]))
        found = np.concatenate(rows)
        if self.normalize:
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        back = np.empty_like(found)
        back[indices] = found
        return back

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """ids, mask and types, each [batch, length] → [batch, length, hidden]."""
        raise NotImplementedError


class OnnxRuntimeUsual(Usual):
    """The exported model as it is."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.session = onnx_session(self.exports / "onnxruntime" / "plain.onnx", self.threads)

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return self.session.run(None, batch)[0]


class OpenVinoUsual(Usual):
    """The converted model as it is."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.request = openvino_model(self.exports / "openvino" / "plain.xml", self.threads, 1).create_infer_request()

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        inputs = [batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
        return next(iter(self.request.infer(inputs).values()))


class CTranslate2Usual(Usual):
    """Lists of ids in, padded hidden states out."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.encoder = ctranslate2_encoder(self.exports, intra_threads=self.threads)

    def hidden(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        lengths = batch["attention_mask"].sum(1)
        ids = [row[:length].tolist() for row, length in zip(batch["input_ids"], lengths, strict=True)]
        return np.asarray(self.encoder.forward_batch(ids).last_hidden_state)


def masked_mean(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hidden [batch, length, hidden], mask [batch, length] → [batch, hidden]."""
    weights = mask[:, :, None].astype(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def normalizes(folder: Path) -> bool:
    """Whether the model's vectors have length 1."""
    return any(module["type"].endswith(".Normalize") for module in read_json(folder / "modules.json"))
