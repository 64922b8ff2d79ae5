"""Adapters: the encoder in the form that other programs expect.

A program is imported only when its adapter is called; minisbert needs none of them. scikit-learn, pandas, FAISS and usearch need
no adapter: they take what `encode(..., convert_to_numpy=True)` returns. For BERTopic, LlamaIndex, Haystack, MTEB and SetFit,
scripts/integrations.md has ten lines each. A corpus in files is encoded by `minisbert.corpus`; `RayEncoder` is for other pipelines.

    from minisbert.integrations import for_keybert
    KeyBERT(for_keybert(minisbert.load("all-MiniLM-L6-v2"))).extract_keywords(text)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from minisbert.errors import imported

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder


def for_keybert(encoder: SentenceEncoder) -> Any:
    """A backend for `KeyBERT(...)`, which silently loads a model of its own in place of an object that it does not know."""
    base = imported("keybert.backend", "keybert").BaseEmbedder

    class Backend(base):  # type: ignore[misc, valid-type]
        def embed(self, documents: Sequence[str], verbose: bool = False) -> Any:  # noqa: FBT001, FBT002 - their signature
            return encoder.encode(list(documents), show_progress_bar=verbose, convert_to_numpy=True)

    return Backend()


def for_langchain(encoder: SentenceEncoder) -> Any:
    """LangChain's `Embeddings`: documents with the checkpoint's prompt for documents, if it has one, and queries with theirs."""
    base = imported("langchain_core.embeddings", "langchain-core").Embeddings

    class Embeddings(base):  # type: ignore[misc, valid-type]
        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            return encoder.encode_document(list(texts)).tolist()

        def embed_query(self, text: str) -> list[float]:
            return encoder.encode_query(text).tolist()

    return Embeddings()


class RayEncoder:
    """A callable class for `ray.data.Dataset.map_batches`, and for whatever else maps a dict of arrays to a dict of arrays.

    Each Ray actor makes one, and so loads the model once. Ray is not imported.

        pool = ray.data.ActorPoolStrategy(size=2)
        dataset.map_batches(RayEncoder, fn_constructor_args=("all-MiniLM-L6-v2",), compute=pool, num_cpus=1)

    Args:
        model: as in `minisbert.load`.
        text_column: the column with the texts.
        vector_column: the column that is added.
        threads: cores to compute on; set it to the actor's `num_cpus`. Default: PyTorch's own number.
        load: further options of `minisbert.load`, such as {"device": "cuda"}.
        encode: further options of `SentenceEncoder.encode`, such as normalize_embeddings=True.

    Raises:
        ValueError: if the vector's column is the text's.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        text_column: str = "text",
        vector_column: str = "vector",
        threads: int | None = None,
        load: Mapping[str, Any] | None = None,
        **encode: Any,
    ) -> None:
        import torch

        import minisbert

        if vector_column == text_column:
            raise ValueError(f"vector_column: found {vector_column!r}, which is the column of the texts. Name another.")
        if threads is not None:
            torch.set_num_threads(threads)
        self.encoder = minisbert.load(model, **(load or {}))
        self.text_column = text_column
        self.vector_column = vector_column
        self.options = {"show_progress_bar": False, **encode}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Arrays, among them the texts [rows] → the same arrays, and the vectors as a numpy array, float32 [rows, dim].

        Raises:
            KeyError: if there is no such column.
        """
        if self.text_column not in batch:
            raise KeyError(
                f"text_column: found the columns {', '.join(map(repr, batch))}, expected {self.text_column!r} among them."
            )
        vectors = self.encoder.encode(batch[self.text_column], convert_to_numpy=True, **self.options)
        return {**batch, self.vector_column: vectors}


def for_spark(model: str | os.PathLike[str], *, threads: int | None = 1, **encode: Any) -> Callable[[], Callable[[Any], Any]]:
    """The first argument of `pyspark.ml.functions.predict_batch_udf`: loads the model once in each of Spark's Python workers.

        udf = predict_batch_udf(for_spark("all-MiniLM-L6-v2"), return_type=ArrayType(FloatType()), batch_size=1024)
        frame.withColumn("vector", udf("text"))

    Args:
        model: as in `minisbert.load`.
        threads: cores for each Python worker: Spark's `spark.task.cpus`. None: PyTorch's own number.
        encode: options of `SentenceEncoder.encode`.

    Returns:
        A function without arguments that gives another one: texts as a numpy array [rows] → vectors, float32 [rows, dim].
    """
    return partial(_spark_worker, os.fspath(model), threads, encode)


def _spark_worker(model: str, threads: int | None, options: dict[str, Any]) -> Callable[[Any], Any]:
    encoder = RayEncoder(model, threads=threads, **options)
    return lambda texts: encoder({"text": texts})["vector"]
