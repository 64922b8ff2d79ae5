"""`encode_corpus`: plans, locks, resumes, lets an engine make each shard, and writes the manifest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch

from minisbert.checkpoint.cache import absolute, local_folder
from minisbert.corpus import ray_engine
from minisbert.corpus.folder import FORMAT, Folder
from minisbert.corpus.inputs import arrow, find_sources
from minisbert.corpus.plan import Plan, Shard, find_layout, make_plan
from minisbert.corpus.progress import Progress
from minisbert.corpus.rows import Reader
from minisbert.corpus.shards import FORMULAS, Advance, Job, model_facts, output_schema, write_shard
from minisbert.encoder import SentenceEncoder
from minisbert.errors import warn
from minisbert.files.lines import long_fields
from minisbert.inference.inputs import choice, choose_prompt, count
from minisbert.inference.stream import too_long

ROWS_PER_SHARD = 65_536
"""Rows in a shard: 100 MB at 384 dimensions in float32, and half a minute of work for two cores and a small model."""

Engine = Literal["local", "ray"]
Entries = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        out: the folder.
        model: the model's name.
        dimension: of a vector.
        dtype: how they are stored.
        rows: of the corpus, and so in the folder.
        shards: of the corpus.
        new_rows: rows that this run encoded; the others existed before.
        new_shards: shards that this run made.
        failed: rows with a null vector, in the whole corpus.
        tokens: tokens that were computed, for the whole corpus; those of equal texts that stand close together once.
        cut: texts that were longer than `limit` tokens and were cut, in the whole corpus.
        longest: tokens of the longest of them; 0 if there is none.
        limit: the model's limit in tokens.
        engine: "local" or "ray".
        seconds: the duration of this run.
        startup_seconds: the part of it before the first shard began: planning, checksums, loading, Ray's start.
        rows_per_second: `new_rows` over the time after the start-up.
        tokens_per_second: the same for tokens.
    """

    out: str
    model: str
    dimension: int
    dtype: str
    rows: int
    shards: int
    new_rows: int
    new_shards: int
    failed: int
    tokens: int
    cut: int
    longest: int
    limit: int
    engine: str
    seconds: float
    startup_seconds: float
    rows_per_second: float
    tokens_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """For json."""
        return asdict(self)


def encode_corpus(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | SentenceEncoder | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    columns: Sequence[str] = (),
    rows_per_shard: int = ROWS_PER_SHARD,
    engine: Engine = "local",
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    dtype: str = "float32",
    normalize_embeddings: bool = False,
    prompt_name: str | None = None,
    prompt: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    on_truncate: Literal["warn", "error", "ignore"] = "warn",
    format: str | None = None,  # noqa: A002 (what the command calls it)
    device: str | torch.device | None = None,
    quantize: Literal["int8"] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    show_progress_bar: bool | None = None,
) -> Summary:
    """Encodes files of texts into a folder of parquet shards. The same call again resumes an interrupted run.

    Shards with the right checksum are kept. On processors of one kind, the files are the same, byte for byte, with and without an
    interruption, on either engine.

    Args:
        inputs: files, folders and globs, also as URIs (s3://…): parquet; .jsonl, .csv, .tsv, .txt, also with .gz or .zst.
        out: a folder: new, empty, or of the same corpus. On Ray all machines must see it under the same path.
        model: as in `minisbert.load`; or an encoder. Default: `minisbert.DEFAULT_MODEL`.
        text_column: the column, or the field of a jsonl object, with the text. A txt file has one text per line.
        id_column: the column that identifies a row in the output. Default: the output has `file` and `row` (counted from 0).
        columns: further columns to copy.
        rows_per_shard: rows in each shard but the last.
        engine: "local": this process, all its cores. "ray": a pool of Ray actors.
        address: of a Ray cluster, such as "auto". Default: the one that is connected, else a new one on this machine.
        workers: Ray actors. Default: as many as fit the cluster.
        threads: cores for each Ray actor. Default: at most 4, and at most what the smallest machine has.
        dtype: how vectors are stored: "float32", "float16", "int8", "binary", see `shards.FORMULAS`.
        normalize_embeddings: scale each vector to length 1.
        prompt_name: as in `SentenceEncoder.encode`.
        prompt: as there.
        on_error: what to do if a row has no text. "raise": an error with the file, the row and the reason. "skip": the row gets a
            null vector and a line in `_minisbert/errors.jsonl`.
        on_truncate: what to do about texts above the model's limit: "warn" once, "error", "ignore".
        format: of all inputs, whatever their names: "parquet", "jsonl", "csv", "tsv", "txt".
        device: as in `minisbert.load`, like the next four, which are used only if `model` is a name.
        quantize: as in `minisbert.load`: the weights. (`dtype` is the type of the stored vectors.)
        revision: as in `minisbert.load`.
        cache_dir: as in `minisbert.load`.
        local_files_only: as in `minisbert.load`.
        show_progress_bar: on stderr. Default: on a terminal.

    Returns:
        A summary of the run.

    Raises:
        CorpusError: if `out` belongs to another corpus (the message says what differs), or another run works in it.
        ValueError: for a failing row, a broken input file, or a wrong option.
        OSError: if something cannot be read or written. Finished shards are kept, as after any error.
        MissingExtraError: if pyarrow, or Ray for that engine, is not installed.
    """
    began = time.time()
    arrow()
    sources = find_sources(inputs, format)
    count("rows_per_shard", rows_per_shard, optional=False)
    choice("engine", engine, ("local", "ray"))
    choice("dtype", dtype, tuple(FORMULAS))
    choice("on_error", on_error, ("raise", "skip"))
    choice("on_truncate", on_truncate, ("warn", "error", "ignore"))
    for name, number in ("workers", workers), ("threads", threads):
        if number is not None:
            count(name, number)
            if engine == "local":
                raise ValueError(f"{name}: found {number}, expected None with engine='local', which uses all cores.")
    find_layout(sources, text_column, id_column, columns)  # refuses a wrong name before anything is written
    folder = Folder(out)
    with folder.locked(), long_fields():
        where = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        load = _loader(model, device=device, quantize=quantize, **where)
        encoder = load()
        plan = make_plan(sources, text_column=text_column, id_column=id_column, columns=columns, rows_per_shard=rows_per_shard)
        ray_options: ray_engine.RayOptions | None = None
        if engine == "ray":
            ray_options = ray_engine.start(address, workers, threads)
        job = Job(
            sources=plan.sources,
            layout=plan.layout,
            final=folder.path,
            writing=folder.writing,
            dimension=encoder.dimension,
            dtype=dtype,
            prompt=resolved_prompt(encoder, prompt, prompt_name),
            normalize=bool(normalize_embeddings),
            skip_errors=on_error == "skip",
            refuse_cut=on_truncate == "error",
            threads=torch.get_num_threads() if ray_options is None else ray_options.workers * ray_options.threads,
        )
        settings = {"text_column": text_column, "id_column": id_column, "columns": list(columns), "format": format}
        header = _header(job, plan, encoder, {**settings, "rows_per_shard": rows_per_shard})
        entries = folder.open(header)
        todo = [shard for shard in plan.shards if shard.index not in entries]
        done = sum(entry["rows"] for entry in entries.values())
        first = time.time()
        with Progress(show_progress_bar, plan.rows, done) as progress:
            if ray_options is None:
                made = _local(job, todo, encoder, progress.advance)
            else:
                made = ray_engine.run(job, todo, load, header["model"], ray_options)
            for entry in made:
                if "began" in entry:  # by a worker elsewhere
                    first = min(entry.pop("began"), first) if progress.new else entry.pop("began")
                    progress.advance(entry["rows"], entry["tokens"])
                folder.record(entry)
                entries[entry["shard"]] = entry
        ended = time.time()
        new = [entries[shard.index] for shard in todo]
        manifest = folder.finish(header, entries.values())
    working = max(ended - first, 1e-9)
    shards = manifest["shards"]
    summary = Summary(
        out=str(folder.path),
        model=encoder.model,
        dimension=encoder.dimension,
        dtype=dtype,
        rows=plan.rows,
        shards=len(shards),
        new_rows=sum(entry["rows"] for entry in new),
        new_shards=len(new),
        failed=sum(shard["failed"] for shard in shards),
        tokens=sum(shard["tokens"] for shard in shards),
        cut=sum(shard["cut"] for shard in shards),
        longest=max(shard["longest"] for shard in shards),
        limit=encoder.max_seq_length,
        engine=engine,
        seconds=time.time() - began,
        startup_seconds=first - began,
        rows_per_second=sum(entry["rows"] for entry in new) / working,
        tokens_per_second=sum(entry["tokens"] for entry in new) / working,
    )
    if summary.cut and on_truncate == "warn":
        warn(
            f"{too_long(summary.cut, summary.rows, summary.limit)}: the longest has {summary.longest} tokens. Split long texts, "
            "or pass on_truncate='ignore' if this is meant."
        )
    return summary


def _local(job: Job, todo: Sequence[Shard], encoder: SentenceEncoder, advance: Advance) -> Entries:
    """The local engine: one shard after the other, each on all cores."""
    reader = Reader(job.sources, job.layout)
    for shard in todo:
        yield write_shard(job, shard, encoder, reader, advance)


def _loader(model: str | os.PathLike[str] | SentenceEncoder | None, **options: Any) -> Callable[[], SentenceEncoder]:
    """A function that loads the model, here and in other processes; an encoder is sent there by pickling its source."""
    import minisbert

    if isinstance(model, SentenceEncoder):
        return partial(_given, model)
    name = minisbert.DEFAULT_MODEL if model is None else os.fspath(model)
    if local_folder(name) is not None:
        name = str(absolute(name))  # workers have working directories of their own
    return partial(minisbert.load, name, **options)


def _given(encoder: SentenceEncoder) -> SentenceEncoder:
    return encoder


def resolved_prompt(encoder: SentenceEncoder, prompt: str | None, prompt_name: str | None) -> str:
    """The text that is put before each sentence.

    Raises:
        ValueError: if the model has no prompt of that name, or both are given.
    """
    if prompt is not None and prompt_name is not None:
        raise ValueError(f"prompt_name: found {prompt_name!r} and a prompt as well, expected one of the two.")
    return choose_prompt(encoder.prompts, encoder.default_prompt_name, prompt, prompt_name)


def _header(job: Job, plan: Plan, encoder: SentenceEncoder, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that must be equal for all runs in a folder. Machines and threads may differ; each shard's entry states them."""
    return {
        "format": FORMAT,
        "model": model_facts(encoder),
        "settings": {
            **settings,
            "dtype": job.dtype,
            "formula": FORMULAS[job.dtype],
            "normalize_embeddings": job.normalize,
            "prompt": job.prompt,
            "on_error": "skip" if job.skip_errors else "raise",
        },
        "schema": {field.name: str(field.type) for field in output_schema(job.layout, job.dtype, job.dimension)},
        "versions": {name: _version(name) for name in ("minisbert", "torch", "tokenizers", "pyarrow")},
        "rows": plan.rows,
        "inputs": list(plan.inputs),
    }


def _version(package: str) -> str:
    if package == "minisbert":
        from minisbert import __version__

        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
