"""Evaluators: agreement with human scores, accuracy on triplets, and the measures of retrieval.

An evaluator gets its data once, and can then be called with an encoder any number of times. It returns a dict of measures from 0 to
1 (correlations from -1); larger is better. The first measure decides which step of a training run is the best. Names and values are
those of `sentence_transformers.evaluation`. Vectors are compared by the model's `similarity_fn_name`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from minisbert.encoder import SentenceEncoder
from minisbert.inference.threads import apart

RETRIEVAL_DEPTH = 100
"""The number of results of each query. MAP@100 needs the most."""


def ranks(values: Tensor) -> Tensor:
    """The rank of each value, 1 for the smallest; equal values share the mean of their ranks: [n] → [n].

    >>> ranks(torch.tensor([3.0, 1.0, 3.0, 2.0]))
    tensor([3.5000, 1.0000, 3.5000, 2.0000], dtype=torch.float64)
    """
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[place]


def pearson(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation coefficient of two [n], computed in float64; NaN if one of them is constant."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    return float((x / x.norm()) @ (y / y.norm()))


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's correlation coefficient of two [n]: Pearson's of their ranks.

    >>> round(spearman(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([1.0, 2.0, 5.0])), 6)
    1.0
    """
    return pearson(ranks(x), ranks(y))


class EmbeddingSimilarityEvaluator:
    """How well the closeness of two sentence vectors agrees with a score that people gave: `spearman_cosine`, `pearson_cosine`.

    The measure of Reimers & Gurevych 2019, section 4.
    """

    @apart
    def __init__(self, sentences1: Sequence[str], sentences2: Sequence[str], scores: Sequence[float] | Tensor) -> None:
        """
        Args:
            sentences1: the first sentence of each pair.
            sentences2: the second.
            scores: the human scores, in any scale.

        Raises:
            ValueError: if there is no pair, or not the same number of each.
        """
        _same_length(sentences1=sentences1, sentences2=sentences2, scores=scores)
        self.sentences1, self.sentences2 = list(sentences1), list(sentences2)
        self.scores = torch.as_tensor(scores, dtype=torch.float64)

    @apart
    def __call__(self, encoder: SentenceEncoder) -> dict[str, float]:
        """
        Args:
            encoder: the model to evaluate.
        """
        # In one call, so that a text that occurs on both sides is encoded once.
        first, second = encoder.encode([*self.sentences1, *self.sentences2], convert_to_tensor=True).chunk(2)
        closeness = encoder.similarity_pairwise(first, second)  # [pairs]
        name = encoder.similarity_fn_name
        return {f"spearman_{name}": spearman(closeness, self.scores), f"pearson_{name}": pearson(closeness, self.scores)}


class TripletEvaluator:
    """The fraction of triplets whose positive is closer to the anchor than the negative is: `cosine_accuracy`."""

    @apart
    def __init__(self, anchors: Sequence[str], positives: Sequence[str], negatives: Sequence[str]) -> None:
        """
        Args:
            anchors: one text of each triplet.
            positives: texts that should be close to the anchor.
            negatives: texts that should be further away.

        Raises:
            ValueError: if there is no triplet, or not the same number of each.
        """
        _same_length(anchors=anchors, positives=positives, negatives=negatives)
        self.anchors, self.positives, self.negatives = list(anchors), list(positives), list(negatives)

    @apart
    def __call__(self, encoder: SentenceEncoder) -> dict[str, float]:
        """
        Args:
            encoder: the model to evaluate. Anchors get its prompt for queries, the others that for documents.
        """
        anchors = encoder.encode_query(self.anchors, convert_to_tensor=True)
        positives = encoder.encode_document(self.positives, convert_to_tensor=True)
        negatives = encoder.encode_document(self.negatives, convert_to_tensor=True)
        right = encoder.similarity_pairwise(anchors, positives) > encoder.similarity_pairwise(anchors, negatives)
        return {f"{encoder.similarity_fn_name}_accuracy": float(right.double().mean())}


class InformationRetrievalEvaluator:
    """How high the relevant documents are ranked: NDCG@10, MRR@10, MAP@100, and accuracy, precision and recall at k.

    Results with equal scores stand in the order of their ids. Relevance is yes or no.
    """

    @apart
    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, Collection[str]],
        *,
        cutoffs: Sequence[int] = (1, 3, 5, 10),
    ) -> None:
        """
        Args:
            queries: id → text. Those without a relevant document are left out.
            corpus: id → text.
            relevant_docs: id of a query → ids of the documents that answer it.
            cutoffs: the k of accuracy@k, precision@k and recall@k.

        Raises:
            ValueError: if no query has a relevant document, a relevant document is not in the corpus, or a k is not 1 to 100.
        """
        if any(not 1 <= k <= RETRIEVAL_DEPTH for k in cutoffs):
            raise ValueError(f"cutoffs: found {list(cutoffs)}, expected integers from 1 to {RETRIEVAL_DEPTH}.")
        self.queries = {query: text for query, text in queries.items() if relevant_docs.get(query)}
        if not self.queries:
            raise ValueError("queries: found none with a relevant document, expected at least one. Do the ids agree?")
        for query in self.queries:
            for document in relevant_docs[query]:
                if document not in corpus:
                    raise ValueError(f"relevant_docs[{query!r}]: found {document!r}, expected an id of the corpus.")
        self.corpus = {document: corpus[document] for document in sorted(corpus)}
        place = {document: row for row, document in enumerate(self.corpus)}
        self.relevant = [torch.tensor([place[document] for document in set(relevant_docs[query])]) for query in self.queries]
        self.cutoffs = tuple(cutoffs)

    @apart
    def __call__(self, encoder: SentenceEncoder) -> dict[str, float]:
        """
        Args:
            encoder: the model to evaluate. Queries and corpus get its prompts for queries and for documents.
        """
        queries = encoder.encode_query(list(self.queries.values()), convert_to_tensor=True)
        corpus = encoder.encode_document(list(self.corpus.values()), convert_to_tensor=True)
        found = torch.zeros(len(queries), RETRIEVAL_DEPTH, dtype=torch.float64)
        # One query at a time, so that memory holds one row of scores and not [queries, corpus].
        for row, (query, relevant) in enumerate(zip(queries, self.relevant, strict=True)):
            scores = encoder.similarity(query, corpus)[0]  # [corpus]
            best = scores.sort(descending=True, stable=True).indices[:RETRIEVAL_DEPTH]
            found[row, : len(best)] = torch.isin(best, relevant).double()
        measures = retrieval_measures(found, torch.tensor([len(relevant) for relevant in self.relevant]), self.cutoffs)
        return {f"{encoder.similarity_fn_name}_{name}": value for name, value in measures.items()}


def retrieval_measures(found: Tensor, relevant: Tensor, cutoffs: Sequence[int]) -> dict[str, float]:
    """The measures of ranked results.

    Args:
        found: [queries, depth], 1 where the result at that rank is relevant, else 0; depth is 10 at least.
        relevant: [queries], how many relevant documents there are.
        cutoffs: the k of accuracy@k, precision@k and recall@k.

    Returns:
        The mean of each measure over the queries.

    >>> found = torch.tensor([[0.0, 1.0, 0.0, 1.0] + [0.0] * 6])
    >>> measures = retrieval_measures(found, torch.tensor([2]), cutoffs=[3])
    >>> measures["mrr@10"], measures["map@10"], measures["recall@3"]
    (0.5, 0.5, 0.5)
    """
    found = found.double()
    depth = found.shape[1]
    rank = torch.arange(1, depth + 1, dtype=torch.float64)  # [depth]
    gain = 1 / (rank + 1).log2()
    ideal = torch.stack([gain[: min(10, int(count))].sum() for count in relevant])  # [queries]
    precision = found.cumsum(dim=1) / rank  # [queries, depth]
    values = {
        "ndcg@10": (found * gain)[:, :10].sum(dim=1) / ideal,
        "mrr@10": (found / rank)[:, :10].amax(dim=1),
        f"map@{depth}": (found * precision).sum(dim=1) / relevant.clamp(max=depth),
    }
    for k in cutoffs:
        hits = found[:, :k].sum(dim=1)  # [queries]
        values |= {f"accuracy@{k}": (hits > 0).double(), f"precision@{k}": hits / k, f"recall@{k}": hits / relevant}
    return {name: float(value.mean()) for name, value in values.items()}


def _same_length(**columns: Sequence[object] | Tensor) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        found = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(f"found {found}, expected the same number of each, and at least one.")
