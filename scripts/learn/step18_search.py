"""Step 18: search. What to do is in step18_search.md."""

from __future__ import annotations

from torch import Tensor


def search(query: Tensor, corpus: Tensor, top_k: int) -> list[int]:
    """The rows of the corpus that are closest to the query, best first.

    Args:
        query: [dim].
        corpus: [n, dim].
        top_k: how many rows to return; all, if there are fewer.

    Returns:
        Their indices.
    """
    raise NotImplementedError
