"""An encoder as other programs want it: for each program that does not take a `SentenceEncoder` as it is, a few lines here.

Nothing is imported before it is asked for, and none of these programs is needed by minisbert. With scikit-learn, pandas, FAISS and
usearch no adapter is needed: `encode(..., convert_to_numpy=True)` gives them what they take. A corpus in files is encoded by
`minisbert.corpus`, on Ray too; what is here is for people's own pipelines.

    from minisbert.integrations import for_keybert
    KeyBERT(for_keybert(minisbert.load("all-MiniLM-L6-v2"))).extract_keywords(text)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import GenericAlias
from typing import TYPE_CHECKING, Any

from minisbert.errors import imported

if TYPE_CHECKING:
    import torch

    from minisbert.encoder import SentenceEncoder


def for_keybert(encoder: SentenceEncoder) -> Any:
    """A backend for `KeyBERT(...)`, which silently loads a model of its own in place of an object that it does not know."""
    return _backend(imported("keybert.backend", "keybert").BaseEmbedder, encoder)


def for_bertopic(encoder: SentenceEncoder) -> Any:
    """A backend for `BERTopic(embedding_model=...)`, which silently loads a model of its own in place of an unknown object."""
    return _backend(imported("bertopic.backend", "bertopic").BaseEmbedder, encoder)


def _backend(base: Any, encoder: SentenceEncoder) -> Any:
    class Backend(base):  # type: ignore[misc]
        def embed(self, documents: Sequence[str], verbose: bool = False) -> Any:  # noqa: FBT001, FBT002 - their signature
            return self.embedding_model.encode(list(documents), show_progress_bar=verbose, convert_to_numpy=True)

    return Backend(embedding_model=encoder)


def for_langchain(encoder: SentenceEncoder) -> Any:
    """LangChain's `Embeddings`: documents with the checkpoint's prompt for documents, if it has one, and queries with theirs."""
    base = imported("langchain_core.embeddings", "langchain-core").Embeddings

    class Embeddings(base):  # type: ignore[misc, valid-type]
        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            return encoder.encode_document(list(texts)).tolist()

        def embed_query(self, text: str) -> list[float]:
            return encoder.encode_query(text).tolist()

    return Embeddings()


def for_llama_index(encoder: SentenceEncoder) -> Any:
    """LlamaIndex's `BaseEmbedding`: texts with the checkpoint's prompt for documents, if it has one, and queries with theirs."""
    base = imported("llama_index.core.base.embeddings.base", "llama-index-core").BaseEmbedding

    class Embedding(base):  # type: ignore[misc, valid-type]
        def _get_query_embedding(self, query: str) -> list[float]:
            return encoder.encode_query(query).tolist()

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

        def _get_text_embedding(self, text: str) -> list[float]:
            return encoder.encode_document(text).tolist()

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return encoder.encode_document(texts).tolist()

    return Embedding(model_name=encoder.model)


def for_haystack(encoder: SentenceEncoder) -> tuple[Any, Any]:
    """Haystack's components: an embedder of texts (queries), and one of documents."""
    component = imported("haystack", "haystack-ai").component
    document_class = imported("haystack", "haystack-ai").Document

    class TextEmbedder:
        def run(self, text: str) -> dict[str, list[float]]:
            return {"embedding": encoder.encode_query(text).tolist()}

    class DocumentEmbedder:
        def run(self, documents: list[Any]) -> dict[str, list[Any]]:
            vectors = encoder.encode_document([document.content or "" for document in documents]).tolist()
            return {
                "documents": [
                    document_class.from_dict({**document.to_dict(flatten=False), "embedding": vector})
                    for document, vector in zip(documents, vectors, strict=True)
                ]
            }

    # Haystack reads the types of `run`, which have to be types and not their names.
    document_list = GenericAlias(list, (document_class,))
    TextEmbedder.run.__annotations__ = {"text": str}
    DocumentEmbedder.run.__annotations__ = {"documents": document_list}
    component.output_types(embedding=list[float])(TextEmbedder.run)
    component.output_types(documents=document_list)(DocumentEmbedder.run)
    return component(TextEmbedder)(), component(DocumentEmbedder)()


def for_mteb(encoder: SentenceEncoder) -> Any:
    """A model for `mteb.evaluate`. The prompts are the checkpoint's own, for queries and documents."""
    base = imported("mteb.models.abs_encoder", "mteb").AbsEncoder
    meta = imported("mteb.models.model_meta", "mteb").ModelMeta
    organisation, _, name = encoder.model.rstrip("/").rpartition("/")

    class Encoder(base):  # type: ignore[misc, valid-type]
        mteb_model_meta = meta.create_empty({"name": f"{organisation.rpartition('/')[2] or 'minisbert'}/{name}"})

        def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Any:
            texts = [text for batch in inputs for text in batch["text"]]
            prompted: dict[Any, Any] = {"query": encoder.encode_query, "document": encoder.encode_document}
            return prompted.get(getattr(prompt_type, "value", prompt_type), encoder.encode)(texts, convert_to_numpy=True)

    return Encoder()


class for_setfit:  # noqa: N801 - it is called as the functions are
    """A body for `SetFitModel(model_body=..., model_head=...)`, whose head can be fitted; the body cannot be trained."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.encoder.device

    def encode(self, sentences: Sequence[str], *, convert_to_tensor: bool = False, **options: Any) -> Any:
        """`SentenceEncoder.encode`, as an array by default, as in sentence-transformers."""
        return self.encoder.encode(sentences, convert_to_numpy=not convert_to_tensor, **options)


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
