"""Uses minisbert's encoder in other programs in place of sentence-transformers', and compares the results.

    python -m venv try && try/bin/pip install '.[test]' bertopic faiss-cpu haystack-ai llama-index-core mteb pyspark setfit
    try/bin/python scripts/try_integrations.py --data DIR

DIR holds stsb-test.tsv, as in scripts/evaluate_sts.py. Programs that are not installed are listed as such. Exit code 1 if a result
differs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_sts import read_task

import minisbert
from minisbert import integrations

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

MODEL = "all-MiniLM-L6-v2"
Pair = tuple[list[str], list[float], Any, Any]

PAGE = Path(__file__).with_name("integrations.md")
BELOW = "below"
"""The adapter stands in the page, below the table."""


def adapter(name: str) -> Any:
    """Runs the block of the page that defines an adapter of this name."""
    (code,) = re.findall(rf"^```python\n([^`]*^(?:def|class) {name}\b[^`]*)^```$", PAGE.read_text("utf-8"), re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(code, PAGE, "exec"), names)  # noqa: S102 (the code of this repository)
    return names[name]


def keybert(data: Pair) -> bool:
    """The same keywords for ten documents."""
    from keybert import KeyBERT

    texts, _, ours, theirs = data
    documents = [" ".join(texts[i : i + 8]) for i in range(0, 80, 8)]
    a = KeyBERT(integrations.for_keybert(ours)).extract_keywords(documents, keyphrase_ngram_range=(1, 2))
    return a == KeyBERT(theirs).extract_keywords(documents, keyphrase_ngram_range=(1, 2))


def bertopic(data: Pair) -> bool:
    """The same topics for 1,000 sentences, except for a few (adjusted Rand index above 0.95), with PCA.

    With UMAP no comparison is possible: it magnifies the last bits of a vector, so sentence-transformers' own topics change
    between two batch sizes (an adjusted Rand index of 0.34 between batches of 32 and 7, 0.36 between theirs and ours; one run of
    each). The bound of 0.95 was set after a run with PCA gave 0.99; even with PCA a few sentences change their topic.
    """
    from bertopic import BERTopic
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score

    def topics(model: Any) -> list[int]:
        reduced = PCA(n_components=5, svd_solver="full")
        return BERTopic(embedding_model=model, umap_model=reduced).fit_transform(data[0][:1000])[0]

    agreement = adjusted_rand_score(topics(adapter("for_bertopic")(data[2])), topics(data[3]))
    print(f"  bertopic: adjusted Rand index {agreement:.3f}", file=sys.stderr)
    return agreement > 0.95


def mteb(data: Pair) -> bool:
    """The same scores of a task from local data."""
    import mteb as program
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS

    texts, scores, ours, theirs = data
    rows = {"sentence1": texts[0::2], "sentence2": texts[1::2], "score": scores}

    class Local(AbsTaskSTS):
        metadata = program.get_task("STSBenchmark").metadata.model_copy(update={"name": "Local"})
        min_score, max_score = 0, 5

        def load_data(self, *_: Any, **__: Any) -> None:
            self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
            self.data_loaded = True

    def score(model: Any) -> float:
        result = program.evaluate(model, Local(), cache=None, show_progress_bar=False)
        return result.task_results[0].get_score()

    a, b = score(adapter("for_mteb")(ours)), score(theirs)
    print(f"  mteb: {100 * a:.2f} and {100 * b:.2f}", file=sys.stderr)
    return abs(a - b) < 1e-6


def langchain(data: Pair) -> bool:
    """The same neighbours from its in-memory store."""
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore

    class Theirs(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return data[3].encode(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return data[3].encode(text).tolist()

    def neighbours(embeddings: Any) -> list[str]:
        store = InMemoryVectorStore(embeddings)
        store.add_texts(distinct(data)[:150])
        return [document.page_content for document in store.similarity_search(data[0][301], k=10)]

    return neighbours(integrations.for_langchain(data[2])) == neighbours(Theirs())


def llama_index(data: Pair) -> bool:
    """The neighbours in its index of vectors, against those by sentence-transformers."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    texts = distinct(data)[:150]
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=adapter("for_llama_index")(data[2]))
    found = [node.text for node in index.as_retriever(similarity_top_k=10).retrieve(data[0][301])]
    return found == reference_neighbours(data, texts)


def haystack(data: Pair) -> bool:
    """The neighbours that a pipeline with its in-memory store finds."""
    from haystack import Document, Pipeline
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    texts = distinct(data)[:150]
    of_text, of_documents = adapter("for_haystack")(data[2])
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(of_documents.run([Document(content=text) for text in texts])["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", of_text)
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=10))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    found = pipeline.run({"embedder": {"text": data[0][301]}})["retriever"]["documents"]
    return [document.content for document in found] == reference_neighbours(data, texts)


def setfit(data: Pair) -> bool:
    """The same classes from a classifier that was fitted to a few examples."""
    from setfit import SetFitModel
    from sklearn.linear_model import LogisticRegression

    texts = data[0][:200]
    labels = [int("man" in text.lower()) for text in texts]

    def classes(body: Any) -> list[int]:
        model = SetFitModel(model_body=body, model_head=LogisticRegression())
        model.fit(texts[:60], labels[:60], num_epochs=1)
        return [int(label) for label in model.predict(texts[60:])]

    return classes(adapter("ForSetFit")(data[2])) == classes(data[3])


def scikit_learn(data: Pair) -> bool:
    """The same classes from a pipeline whose first step is the encoder."""
    from functools import partial

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    texts = data[0][:200]
    labels = ["man" in text.lower() for text in texts]

    def classes(encode: Callable[[list[str]], Any]) -> list[bool]:
        return (
            make_pipeline(FunctionTransformer(encode), LogisticRegression())
            .fit(texts[:100], labels[:100])
            .predict(texts[100:])
            .tolist()
        )

    return classes(partial(data[2].encode, convert_to_numpy=True)) == classes(data[3].encode)


def pandas(data: Pair) -> bool:
    """A Series in, a column of vectors out, within rounding."""
    import pandas as program

    frame = program.DataFrame({"text": data[0][:100]}, index=range(100, 200))
    frame["vector"] = list(data[2].encode(frame["text"], convert_to_numpy=True))
    return bool(np.allclose(np.stack(frame["vector"]), data[3].encode(data[0][:100]), rtol=0, atol=1e-6))


def faiss(data: Pair) -> bool:
    """The same neighbours."""
    import faiss as program

    def neighbours(vectors: Any) -> list[list[int]]:
        index = program.IndexFlatIP(vectors.shape[1])
        index.add(vectors[20:])
        return index.search(vectors[:20], 5)[1].tolist()

    texts = distinct(data)[:200]
    return neighbours(data[2].encode(texts, convert_to_numpy=True)) == neighbours(data[3].encode(texts))


def usearch(data: Pair) -> bool:
    """The same neighbours, by exact search."""
    from usearch.index import search

    texts = distinct(data)[:200]
    found = [
        search(vectors[20:], vectors[:20], 5, exact=True).keys.tolist()
        for vectors in (data[2].encode(texts, convert_to_numpy=True), data[3].encode(texts))
    ]
    return found[0] == found[1]


def datasets(data: Pair) -> bool:
    """The vectors of `Dataset.map`, within rounding."""
    from datasets import Dataset

    dataset = Dataset.from_dict({"text": data[0][:100]})
    dataset = dataset.map(lambda batch: {"vector": data[2].encode(batch["text"], convert_to_numpy=True)}, batched=True)
    return bool(np.allclose(dataset.with_format("numpy")["vector"][:], data[3].encode(data[0][:100]), rtol=0, atol=1e-6))


def pyspark(data: Pair) -> bool:
    """The vectors of a column made by `predict_batch_udf`, within rounding (needs a Java runtime)."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import SparkSession
    from pyspark.sql.types import ArrayType, FloatType

    os.environ["PYSPARK_PYTHON"] = sys.executable  # or its workers are the first python3 of PATH
    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        udf = predict_batch_udf(integrations.for_spark(MODEL), return_type=ArrayType(FloatType()), batch_size=64)
        frame = session.createDataFrame([(n, text) for n, text in enumerate(data[0][:100])], ["n", "text"])
        rows = frame.withColumn("vector", udf("text")).orderBy("n").collect()
    finally:
        session.stop()
    return bool(np.allclose([row["vector"] for row in rows], data[3].encode(data[0][:100]), rtol=0, atol=1e-6))


def distinct(data: Pair) -> list[str]:
    """Texts that differ for the model: equal ones would tie, and each program breaks ties in its own way."""
    return list({" ".join(text.lower().split()): text for text in data[0]}.values())


def reference_neighbours(data: Pair, texts: list[str]) -> list[str]:
    """The ten texts closest to the 302nd sentence, by sentence-transformers alone."""
    from sentence_transformers import util

    (hits,) = util.semantic_search(data[3].encode(data[0][301]), data[3].encode(texts), top_k=10)
    return [texts[hit["corpus_id"]] for hit in hits]


PROGRAMS: dict[str, tuple[Callable[[Pair], bool], str]] = {
    "keybert": (keybert, "`for_keybert`"),
    "bertopic": (bertopic, BELOW),
    "mteb": (mteb, BELOW),
    "langchain-core": (langchain, "`for_langchain`"),
    "llama-index-core": (llama_index, BELOW),
    "haystack-ai": (haystack, BELOW),
    "setfit": (setfit, BELOW),
    "scikit-learn": (scikit_learn, "none"),
    "pandas": (pandas, "none"),
    "faiss-cpu": (faiss, "none"),
    "usearch": (usearch, "none"),
    "datasets": (datasets, "none"),
    "pyspark": (pyspark, "`for_spark`"),
}


def main() -> int:
    """Runs each program and prints the table of scripts/integrations.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the folder with stsb-test.tsv")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)}")
    options = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    from minisbert.checkpoint.hub import locate

    pairs = read_task(options.data, "stsb-test")
    texts = [text for pair in zip(pairs.first, pairs.second, strict=True) for text in pair]
    theirs = SentenceTransformer(str(locate(MODEL).find("modules.json").parent), device="cpu")
    data = (texts, pairs.scores, minisbert.load(MODEL, device="cpu"), theirs)
    rows, failed = [], False
    for name in options.only or PROGRAMS:
        run, adapter = PROGRAMS[name]
        try:
            installed = version(name)
        except PackageNotFoundError:
            rows.append(f"| {name} | - | {adapter} | not installed |")
            continue
        try:
            outcome = "the same" if run(data) else "DIFFERENT"
        except Exception as error:  # any error of a program is its outcome
            outcome = f"FAILED: {type(error).__name__}: {error}".replace("\n", " ")[:200]
        failed |= outcome != "the same"
        rows.append(f"| {name} | {installed} | {adapter} | {run.__doc__.splitlines()[0].rstrip('.')}: {outcome} |")
        print(rows[-1], file=sys.stderr)
    print("| program | version | adapter | outcome |", "|---|---|---|---|", *rows, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
