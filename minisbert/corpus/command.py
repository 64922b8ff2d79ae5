"""`minisbert corpus`: the parser and what it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from minisbert.commands import say

DESCRIPTION = """\
Writes one vector for each row of the input files to a folder of parquet shards.
After Ctrl-C, a crash or a full disk, the same command continues where it was.

  minisbert corpus passages/*.parquet --text-column text --id-column id --out vectors/ --model all-MiniLM-L6-v2
  minisbert corpus passages/*.parquet --text-column text --id-column id --out vectors/ --model all-MiniLM-L6-v2 --engine ray
  minisbert corpus --verify vectors/
"""


def add_parser(commands: Any, common: argparse.ArgumentParser, formatter: type[argparse.HelpFormatter]) -> None:
    """Adds the command to the parsers of `minisbert`.

    Args:
        commands: what `add_subparsers` gave.
        common: the options that say which model.
        formatter: of the help.
    """
    parser = commands.add_parser(
        "corpus",
        parents=[common],
        formatter_class=formatter,
        help="files of any size to a folder of parquet shards, resumable",
        description=DESCRIPTION,
    )
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
    parser.add_argument(
        "--on-truncate",
        choices=("warn", "error", "ignore"),
        default="warn",
        help="what to do when texts are longer than the model's limit and are cut (default: warn)",
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this process (default), or Ray Data")
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, such as auto (default: a new one on this machine)")
    parser.add_argument("--workers", type=int, metavar="N", help="Ray actors (default: as many as fit)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores for each Ray actor (default: at most 4)")
    parser.add_argument(
        "--verify", type=Path, metavar="DIR", help="compare checksums and compute a sample of rows again; takes no inputs"
    )
    parser.add_argument("--sample", type=int, default=256, metavar="N", help="rows to compute again with --verify (default: 256)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON, on stdout")


def run(options: argparse.Namespace) -> None:
    """Runs the command with its parsed options."""
    if options.verify is not None:
        _verify(options)
        return
    from minisbert.corpus.run import ROWS_PER_SHARD, encode_corpus

    if not options.inputs:
        raise ValueError("corpus: found no INPUT, expected files, folders or globs.")
    if options.out is None:
        raise ValueError("corpus: --out is missing, expected the folder of the shards.")
    summary = encode_corpus(
        options.inputs,
        options.out,
        model=options.model,
        text_column=options.text_column,
        id_column=options.id_column,
        columns=options.columns,
        rows_per_shard=ROWS_PER_SHARD if options.rows_per_shard is None else options.rows_per_shard,
        engine=options.engine,
        address=options.address,
        workers=options.workers,
        threads=options.threads,
        dtype=options.dtype,
        normalize_embeddings=options.normalize,
        prompt_name=options.prompt_name,
        on_error=options.on_error,
        on_truncate=options.on_truncate,
        format=options.format,
        device=options.device,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
    )
    kept = summary.rows - summary.new_rows
    say(
        f"{summary.rows:,} vectors of {summary.dimension} dimensions in {summary.shards} shards of {summary.out} "
        f"({kept:,} were there); {summary.rows_per_second:,.0f} rows/s, {summary.tokens_per_second:,.0f} tokens/s"
    )
    if summary.failed:
        say(f"{summary.failed:,} rows failed and have null vectors, see {summary.out}/_minisbert/errors.jsonl")
    if options.json:
        print(json.dumps(summary.to_dict()))


def _verify(options: argparse.Namespace) -> None:
    from minisbert.corpus.verify import verify_corpus

    if options.inputs or options.out is not None:
        raise ValueError("corpus: --verify takes neither INPUT nor --out. The manifest names the inputs.")
    verified = verify_corpus(options.verify, sample=options.sample, model=options.model, device=options.device)
    bits = f"{verified.exact} of them with equal bits, the largest difference is {verified.largest_difference:.1e}"
    say(
        f"{verified.out}: {verified.shards} shards with {verified.rows:,} rows have the right checksums; "
        f"{verified.sample} rows computed anew, {bits}"
    )
    if options.json:
        print(json.dumps(verified.to_dict()))
