"""What `minisbert corpus` runs; its parser is in parsers.py."""

from __future__ import annotations

import argparse
import json

from minisbert.cli.commands import load_options, named, say


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
    same = ("model", "text_column", "id_column", "columns", "engine", "address", "workers", "threads", "dtype", "prompt_name")
    summary = encode_corpus(
        options.inputs,
        options.out,
        rows_per_shard=ROWS_PER_SHARD if options.rows_per_shard is None else options.rows_per_shard,
        normalize_embeddings=options.normalize,
        **named(options, *same, "on_error", "on_truncate", "format"),
        **load_options(options),
    )
    kept = summary.rows - summary.new_rows
    say(
        f"{summary.rows:,} vectors of {summary.dimension} dimensions in {_shards(summary.shards)} of {summary.out} "
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
        f"{verified.out}: the checksums of {_shards(verified.shards)} with {verified.rows:,} rows are right; "
        f"{verified.sample} rows computed again, {bits}"
    )
    if options.json:
        print(json.dumps(verified.to_dict()))


def _shards(number: int) -> str:
    return f"{number:,} shard{'s' * (number != 1)}"
