"""Runs `minisbert encode` and `minisbert search`, checks that stored vectors fit the model, and has what all commands need."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minisbert.files import VectorFile, is_vector_file, open_texts, read_notes, read_vectors
from minisbert.files.writing import written_whole
from minisbert.inference.inputs import choose_prompt, document_prompt

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder


def given_text(argument: str | None) -> Any:
    """A text of the command line, decoded as UTF-8 even if the locale has another encoding."""
    try:
        return argument and os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def printable(text: str) -> str:
    """A text with escapes for characters that the terminal's encoding lacks, as stderr does by default."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def search(options: argparse.Namespace) -> None:
    """`minisbert search`."""
    import minisbert

    if options.top_k < 1:
        raise ValueError(f"--top-k: found {options.top_k}, expected at least 1.")
    with open_texts(options.file, options.format, given_text(options.column), options.delimiter) as opened:
        texts = list(opened)
    blank = sum(not text.strip() for text in texts)
    if len(texts) == blank:
        raise ValueError(f"--in: {'stdin' if options.file == '-' else options.file} holds no sentences, expected at least one.")
    vectors = None if options.vectors is None else read_vectors(options.vectors, len(texts))
    encoder = load_model(options)
    if vectors is None:
        vectors = encoder.encode_document(texts, on_truncate=options.on_truncate)
    elif vectors.shape[1] != encoder.dimension:
        raise ValueError(
            f"--vectors: {options.vectors} holds vectors of {vectors.shape[1]} dimensions, "
            f"but this model's have {encoder.dimension}. Name the --model that made them."
        )
    if options.vectors is not None:
        _check_notes(options.vectors, encoder)
    query = given_text(options.query)
    (hits,) = minisbert.semantic_search(
        encoder.encode_query(query, on_truncate=options.on_truncate), vectors, top_k=options.top_k + blank
    )
    found = [(hit["corpus_id"] + 1, hit["score"], texts[hit["corpus_id"]]) for hit in hits]
    found = [hit for hit in found if hit[2].strip()][: options.top_k]
    if options.json:
        rows = [{"number": number, "cosine": cosine, "text": text} for number, cosine, text in found]
        print(json.dumps({"query": query, "hits": rows}))
        return
    width = max(len(str(number)) for number, _, _ in found)
    for number, cosine, text in found:
        print(f"{cosine:9.6f}  {number:{width}}  {printable(' '.join(text.split()))}")


def _document_prompt(encoder: SentenceEncoder) -> str:
    """The prompt that `encode` and `search` put before each text, as `encode_document` does."""
    name = document_prompt(encoder.model, encoder.prompts)
    return choose_prompt(encoder.prompts, encoder.default_prompt_name, None, name)


def _notes(encoder: SentenceEncoder) -> dict[str, str]:
    """The notes on the origin of vectors: equal notes mean equal vectors."""
    from minisbert.checkpoint.weights import checksum

    parts = encoder.checkpoint
    source = parts.source
    return {
        "model": encoder.model,
        "revision": (source and source.commit) or "",
        "prompt": _document_prompt(encoder),
        "max_seq_length": str(encoder.max_seq_length),
        "pooling": "+".join(encoder.pooling.modes),
        "quantize": parts.quantize or "none",
        "weights": str(checksum(parts.bert, parts.modules)),
    }


def _check_notes(path: Path, encoder: SentenceEncoder) -> None:
    """Refuses vectors of another model or prompt. Weights identify a model, because its folder may have been moved."""
    found, expected = read_notes(path), _notes(encoder)
    if not found:
        return
    known = ["revision"] if found.get("revision") and expected["revision"] else []
    for name in ("quantize", "weights", "prompt", "max_seq_length", "pooling", *known):
        what = "model" if name == "weights" else name
        if found.get(name) != expected[name]:
            raise ValueError(
                f"--vectors: {path} was made with the {what} {found.get(what, '')!r}, but the {what} here is {expected[what]!r}"
                f"{' with other weights' if found.get(what) == expected[what] else ''}. "
                "Name the --model and --revision that made it, or make it again with minisbert encode."
            )


def encode(options: argparse.Namespace) -> None:
    """`minisbert encode`."""
    kind = options.out.suffix.lower()
    if kind not in (".safetensors", ".npy"):
        raise ValueError(f"--out: found {str(options.out)!r}, expected a name that ends in .safetensors or .npy.")
    # The file is created first, so that hours of work do not end with a folder that cannot be written.
    with (
        written_whole(options.out, is_vector_file, "--out") as path,
        open_texts(options.file, options.format, given_text(options.column), options.delimiter) as texts,
    ):
        encoder = load_model(options)
        stream = encoder.encode_stream(
            texts,
            prompt=_document_prompt(encoder),
            batch_tokens=options.batch_tokens,
            normalize_embeddings=options.normalize,
            on_truncate=options.on_truncate,
        )
        notes = _notes(encoder) | {"normalize": str(options.normalize).lower()}
        with VectorFile(path, kind, encoder.dimension, notes) as vectors:
            for rows in stream:
                with _writing(options.out):
                    vectors.write(rows)
            with _writing(options.out):
                vectors.finish()
    number = vectors.rows
    say(f"wrote {number} {'vector' if number == 1 else 'vectors'} of {encoder.dimension} dimensions to {options.out}")
    if options.json:
        done = {"out": str(options.out), "model": encoder.model, "vectors": number, "dimension": encoder.dimension}
        done |= {"tokens": stream.tokens, "cut": stream.cut, "longest": stream.longest, "limit": encoder.max_seq_length}
        print(json.dumps(done))


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"--out: the vectors cannot be written to {str(out)!r} ({error.strerror or error})") from error


def say(text: str) -> None:
    """Prints a line about what was done on stderr; results go to stdout."""
    print(f"minisbert: {text}", file=sys.stderr)


def load_model(options: argparse.Namespace) -> SentenceEncoder:
    """Loads the model that the command line names."""
    import minisbert

    return minisbert.load(options.model or minisbert.DEFAULT_MODEL, **load_options(options))


def load_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the command line that belong to `minisbert.load`."""
    return named(options, "device", "quantize", "revision", "cache_dir", "local_files_only")


def named(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options with these names, as keyword arguments."""
    return {name: getattr(options, name) for name in names}
