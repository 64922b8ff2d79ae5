"""The references: a checkpoint as transformers and sentence-transformers load and run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from parity.capture import Batch, transformers_states


class Reference:
    """One checkpoint, by AutoTokenizer, AutoModel and SentenceTransformer; all three read the files themselves."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="eager", add_pooling_layer=False)
        self.sentence_transformer = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})

    def ids(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        return self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]

    def batch(self, texts: Sequence[str], limit: int) -> Batch:
        return Batch(**self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"))

    def states(self, batch: Batch) -> list[Tensor]:
        return transformers_states(self.model, batch)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        return self.sentence_transformer.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
