"""The options of `minisbert trace`, `train` and `corpus`, apart from the code that they run, so that help does not import torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

TRACE = """\
Writes a page for the browser that walks a sentence through the whole model. For two sentences,
the page also shows why they are similar, and the command prints the cosine.

With --serve, it prints the address of a page on this machine where sentences are typed in,
and where the models that are on this machine can be chosen. It runs until Ctrl-C.

  minisbert trace "A man is eating food." "Someone is having a meal." --out page.html --model all-MiniLM-L6-v2
  minisbert trace --serve --open --model all-MiniLM-L6-v2
"""

TRAIN = """\
Trains a model on pairs or triplets of texts, and saves it for minisbert, sentence-transformers
and transformers. Ctrl-C keeps what was learned; the same command continues from there.

  minisbert train --data pairs.tsv --columns sentence1 sentence2 score --loss cosine --model all-MiniLM-L6-v2 --out tuned
  minisbert train --data snli_1.0_train.jsonl --columns sentence1 sentence2 gold_label --loss softmax --model bert-base --out nli
  minisbert train --data answers.parquet --columns question answer --loss negatives --model all-MiniLM-L6-v2 --out search

  softmax       pairs with a class: entailment, contradiction, neutral, or an integer from 0
  cosine        pairs with a score from -1 to 1 (see --max-score)
  cosent        pairs with any score; only the order of the scores counts
  contrastive   pairs with 1 (alike) or 0 (not alike)
  triplet       anchor, positive, negative; no label
  negatives     question, answer, and hard negatives if there are any; no label; the answers of other rows count as wrong
"""

LOSSES = "softmax", "cosine", "cosent", "contrastive", "triplet", "negatives"

CORPUS = """\
Writes one vector for each row of the input files to a folder of parquet shards.
After Ctrl-C, a crash or a full disk, the same command continues where it was.

  minisbert corpus passages/*.parquet --text-column text --id-column id --out vectors/ --model all-MiniLM-L6-v2
  minisbert corpus passages/*.parquet --text-column text --id-column id --out vectors/ --model all-MiniLM-L6-v2 --engine ray
  minisbert corpus --verify vectors/
"""


AddParser = Callable[..., argparse.ArgumentParser]
"""`add_parser` of what `add_subparsers` gave, with the options that every command takes."""


def add_on_truncate(parser: argparse.ArgumentParser) -> None:
    """Adds the option for texts that are too long."""
    parser.add_argument(
        "--on-truncate",
        choices=("warn", "error", "ignore"),
        default="warn",
        help="what to do when texts are longer than the model's limit and are cut (default: warn)",
    )


def add_trace(add_parser: AddParser) -> None:
    """Adds `minisbert trace` to the parsers of `minisbert`."""
    trace = add_parser("trace", help="write a page that shows how a sentence becomes a vector", description=TRACE)
    trace.add_argument("sentence", nargs="?", metavar="SENTENCE", help="the sentence; with --serve, the first to show")
    trace.add_argument("other", nargs="?", metavar="SENTENCE", help="another, to compare with")
    trace.add_argument("--out", type=Path, metavar="PATH", help="the page to write, such as page.html; needed without --serve")
    trace.add_argument(
        "--serve",
        action="store_true",
        help="show the page at an address of this machine that no other machine can reach "
        "(without --model: the default model if it is on this machine, else the first that `minisbert models` prints)",
    )
    trace.add_argument("--port", type=int, metavar="N", help="the port for --serve (default: one that is free)")
    trace.add_argument("--open", action="store_true", help="open it in the browser")
    trace.add_argument("--json", action="store_true", help="print {page, tokens, cosine} as JSON, the cosine of a pair")
    trace.add_argument(
        "--corpus", metavar="FILE", help="UTF-8, one text per line; the page shows the closest of them after each layer; - is stdin"
    )


def add_train(add_parser: AddParser) -> None:
    """Adds `minisbert train` to the parsers of `minisbert`."""
    parser = add_parser("train", help="train a model on pairs or triplets of texts", description=TRAIN)
    parser.add_argument("--data", required=True, metavar="FILE", help=".tsv, .jsonl or .parquet with named columns")
    parser.add_argument(
        "--columns", required=True, nargs="+", metavar="NAME", help="the columns of the texts, then the column of the label"
    )
    parser.add_argument("--loss", required=True, choices=LOSSES, help="what to train for; see above")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder of the model; DIR.training keeps the state of the run"
    )
    parser.add_argument("--max-score", type=float, default=1.0, metavar="N", help="the largest score in the file, such as 5")
    parser.add_argument("--evaluate", metavar="FILE", help="a file with the same columns; the model that does best on it is kept")
    parser.add_argument("--evaluate-every", type=int, metavar="N", help="steps (default: after each epoch)")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="passes over the data (default: 1)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows in a batch (default: 16)")
    parser.add_argument("--learning-rate", type=float, default=2e-5, metavar="X", help="after the warm-up (default: 2e-5)")
    parser.add_argument(
        "--warmup", type=float, default=0.1, metavar="X", help="fraction of the steps with a rising learning rate (default: 0.1)"
    )
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="of AdamW (default: 0.01)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of the rows and of dropout (default: 0)")
    parser.add_argument("--save-every", type=int, metavar="N", help="steps (default: after each epoch, and with Ctrl-C)")
    parser.add_argument("--gradient-accumulation", type=int, default=1, metavar="N", help="batches of one step (default: 1)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory for a third more time")
    parser.add_argument("--bfloat16", action="store_true", help="compute products in bfloat16")
    parser.add_argument("--no-duplicates", action="store_true", help="never the same text twice in a batch; for --loss negatives")
    parser.add_argument("--matryoshka", type=int, nargs="+", metavar="N", help="train these dimensions too, such as 384 192 96")
    parser.add_argument("--skip-empty", action="store_true", help="skip rows with an empty text")
    parser.add_argument("--plot", metavar="FILE", help="write loss and evaluation as an .svg")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, on stdout")


def add_corpus(add_parser: AddParser) -> None:
    """Adds `minisbert corpus` to the parsers of `minisbert`."""
    parser = add_parser("corpus", help="files of any size to a folder of parquet shards, resumable", description=CORPUS)
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="files, folders, globs, s3://…: .parquet, .jsonl, .csv, .tsv, .txt"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder of shards: new, empty, or of the same corpus")
    parser.add_argument("--text-column", default="text", metavar="NAME", help="the column with the text (default: text)")
    parser.add_argument("--id-column", metavar="NAME", help="the column that names a row (default: the file and the row's number)")
    parser.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="further columns to copy")
    parser.add_argument(
        "--format", choices=("parquet", "jsonl", "csv", "tsv", "txt"), help="of all inputs (default: by their names)"
    )
    parser.add_argument("--rows-per-shard", type=int, metavar="N", help="rows in a shard (default: 65536)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "int8", "binary"),
        default="float32",
        help="how vectors are stored (default: float32); the manifest states the formula",
    )
    parser.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    parser.add_argument("--prompt-name", metavar="NAME", help="one of the model's prompts, put before each text")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="a row without a text ends the run (default), or is skipped: it gets a null vector and a line in errors.jsonl",
    )
    add_on_truncate(parser)
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this process (default), or Ray Data")
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, such as auto (default: a new one on this machine)")
    parser.add_argument("--workers", type=int, metavar="N", help="Ray actors (default: as many as fit)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores for each Ray actor (default: at most 4)")
    parser.add_argument(
        "--verify", type=Path, metavar="DIR", help="compare checksums and compute a sample of rows again; takes no inputs"
    )
    parser.add_argument("--sample", type=int, default=256, metavar="N", help="rows to compute again with --verify (default: 256)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, on stdout")
