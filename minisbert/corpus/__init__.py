"""Corpora of any size: files of texts in, parquet shards of vectors out, resumable, on one machine or on Ray Data.

A vector depends on its text only. So a run can be killed at any time, resumed, and spread over machines, and its files are equal,
byte for byte, to those of an uninterrupted run.

    from minisbert.corpus import encode_corpus, verify_corpus
    encode_corpus("passages/*.parquet", "vectors", model="all-MiniLM-L6-v2", id_column="id")
    verify_corpus("vectors")

A run has these steps, one file each:

- `inputs.py`: names → files; how each is opened.
- `rows.py`: files → blocks of rows, read as a stream.
- `plan.py`: one pass that counts the rows and says which rows each shard holds.
- `shards.py`: rows → vectors → one parquet file, written beside its place and renamed.
- `folder.py`: the output folder: its lock, its manifest, its journal, what a resume keeps.
- `run.py`: joins these, with the local engine; `ray_engine.py` is the other engine.
- `verify.py`: checks the checksums of all shards, and computes a sample of rows again.

pyarrow is imported only when a corpus is encoded or verified: `pip install pyarrow`.

It imports encoder, checkpoint, inference and files. It is imported by cli, for the command.
"""

from __future__ import annotations

from minisbert.corpus.folder import CorpusError
from minisbert.corpus.run import Summary, encode_corpus
from minisbert.corpus.verify import Verified, verify_corpus

__all__ = ["CorpusError", "Summary", "Verified", "encode_corpus", "verify_corpus"]
