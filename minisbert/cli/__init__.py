"""The `minisbert` command: it parses, calls the public API, and prints. torch is not imported before the command line is parsed.

    parsers.py             the options of `trace`, `train` and `corpus`; this file has the others
    commands.py            `encode` and `search`, and what all commands need
    train.py, corpus.py    what `minisbert train` and `minisbert corpus` run

It imports files, encoder, checkpoint, inference, tracing, train and corpus. It is imported by __main__ alone.

Results go to stdout, everything else to stderr. Exit codes: 0 success; 2 an error, in one line on stderr; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from minisbert.checkpoint.listing import known_models
from minisbert.cli.commands import encode, given_text, load_model, printable, say, search
from minisbert.cli.parsers import add_corpus, add_on_truncate, add_trace, add_train
from minisbert.errors import MinisbertError
from minisbert.files import FORMATS, open_texts
from minisbert.files.writing import written_whole

DESCRIPTION = """\
Turns sentences into vectors whose cosine says how close their meanings are.

  minisbert similarity "A man is eating food." "Someone is having a meal." --model all-MiniLM-L6-v2
  minisbert encode sentences.txt --out vectors.safetensors --model all-MiniLM-L6-v2
  minisbert search "What do people eat?" --in sentences.txt --vectors vectors.safetensors --model all-MiniLM-L6-v2
  minisbert trace "A man is eating food." "Someone is having a meal." --out page.html --model all-MiniLM-L6-v2
  minisbert info all-MiniLM-L6-v2
  minisbert train --data pairs.tsv --columns sentence1 sentence2 score --loss cosine --model all-MiniLM-L6-v2 --out tuned
  minisbert corpus passages/*.parquet --text-column text --id-column id --out vectors --model all-MiniLM-L6-v2
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Never breaks a line at a hyphen, so that a model's name can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
    """Prints an error of the command line in one line, as all other errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {_one_line(message)}. See {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="minisbert", description=DESCRIPTION, formatter_class=_Help)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    common = _Parser(add_help=False)
    group = common.add_argument_group("the model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="a folder, organisation/name on the hub, or a bare name of sentence-transformers "
        "(default: sentence-transformers/bert-base-nli-mean-tokens)",
    )
    group.add_argument("--revision", help="a branch, tag or commit on the hub (default: the main branch)")
    group.add_argument("--cache-dir", metavar="DIR", help="the hub's cache (default: huggingface_hub's own)")
    group.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    group.add_argument("--device", help="such as cpu or cuda (default: the GPU if there is one)")
    group.add_argument(
        "--quantize",
        choices=("int8",),
        help="int8 weights: a quarter of the memory, faster, other vectors (default: float)",
    )

    add_parser = partial(commands.add_parser, parents=[common], formatter_class=_Help)
    similarity = add_parser(
        "similarity",
        help="the cosine of two sentences",
        description="Prints the cosine of two sentences' vectors, or for more than two\nthe matrix of all cosines.",
    )
    similarity.add_argument("sentences", nargs="+", metavar="SENTENCE", help="two sentences or more")
    add_on_truncate(similarity)
    similarity.add_argument("--json", action="store_true", help="print {sentences, cosines}, the full matrix, as JSON")

    search = add_parser(
        "search",
        help="search a file of sentences",
        description="Prints the sentences of a file that are closest to the query, best first:\n"
        "the cosine, the number of the sentence in the file, and the sentence.\n"
        "The query gets the model's prompt for queries, the sentences its prompt for documents,\n"
        "as in `minisbert encode`. Empty lines are not searched.",
    )
    search.add_argument("query", metavar="QUERY", help="what to search for, in quotes")
    _add_file(search, "--in", dest="file")
    search.add_argument(
        "--vectors",
        type=Path,
        metavar="PATH",
        help="the result of `minisbert encode FILE --out PATH`, so that only the query is computed; "
        "vectors of another model or prompt are refused if PATH is .safetensors",
    )
    search.add_argument("--top-k", type=int, default=5, metavar="N", help="how many sentences to print (default: 5)")
    add_on_truncate(search)
    search.add_argument("--json", action="store_true", help="print {query, hits: [{number, cosine, text}]} as JSON")

    encode = add_parser(
        "encode",
        help="write a vector for each text of a file",
        description="Writes one vector for each text of the input, in its order (an empty line is an\n"
        "empty text and has one too). It reads and writes as it goes, with a few\n"
        "thousand texts in memory, and gives the result its name when it is complete.\n"
        "If the model has a prompt for documents, each text gets it, as in `search`.",
    )
    _add_file(encode, "file", nargs="?")
    encode.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="PATH",
        help="what to write: .safetensors (tensor 'embeddings', with the model and settings in its metadata) or .npy (without)",
    )
    encode.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    encode.add_argument(
        "--batch-tokens", type=int, metavar="N", help="the largest number of tokens in a batch (default: what suits the machine)"
    )
    add_on_truncate(encode)
    encode.add_argument("--json", action="store_true", help="print a summary as JSON on stdout")

    add_trace(add_parser)

    info = add_parser(
        "info",
        help="the settings of a model, and where they come from",
        description="Prints every setting that decides what the vectors are, with the file that it\n"
        "comes from, the files' sha256, the revision, the number of parameters\nand every warning.",
    )
    info.add_argument("name", nargs="?", metavar="MODEL", help="the same as --model")
    info.add_argument("--json", action="store_true", help="print the same as JSON")
    models = commands.add_parser(
        "models",
        formatter_class=_Help,
        help="the models that are on this machine",
        description="Prints the models in installed packages and in the hub's cache, and which of them load.",
    )
    models.add_argument("--cache-dir", metavar="DIR", help="the hub's cache (default: huggingface_hub's own)")
    models.add_argument("--json", action="store_true", help="print [{model, place, problem}] as JSON")
    add_train(add_parser)
    add_corpus(add_parser)
    return parser


def _add_file(parser: argparse.ArgumentParser, name: str, **more: Any) -> None:
    """Adds the options for a file of texts."""
    formats = "UTF-8: .jsonl, .csv, .tsv, or else one sentence per line, also .gz and .zst; - is stdin (default)"
    parser.add_argument(name, default="-", metavar="FILE", help=formats, **more)
    parser.add_argument("--format", choices=FORMATS, help="the format of FILE (default: by its name; stdin is txt)")
    parser.add_argument("--column", metavar="NAME", help="the column of a .csv or .tsv, or the field of a .jsonl, with the text")
    parser.add_argument("--delimiter", metavar="C", help="the field separator (default: a comma for .csv, a tab for .tsv)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        arguments: the words after `minisbert`. Default: those the program was called with.
    """
    try:
        with _everything_printed(), _warnings_in_one_line():
            parser = build_parser()
            options = parser.parse_args(arguments)
            if options.version:
                from minisbert import __version__

                print(f"minisbert {__version__}")
            elif options.command is None:
                parser.print_help()
            else:
                run = {
                    "similarity": _similarity,
                    "encode": encode,
                    "search": search,
                    "trace": _trace,
                    "info": _info,
                    "models": _models,
                    "train": _train,
                    "corpus": _corpus,
                }
                run[options.command](options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0  # the reader of the output has closed the pipe
    except (MinisbertError, ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
        say(f"error: {_one_line(error)}")
        return 2
    return 0


def _similarity(options: argparse.Namespace) -> None:
    options.sentences = [given_text(sentence) for sentence in options.sentences]
    if len(options.sentences) < 2:
        raise ValueError("similarity: found one sentence, expected two or more. Put each sentence in quotes.")
    vectors = load_model(options).encode(
        options.sentences, normalize_embeddings=True, show_progress_bar=False, on_truncate=options.on_truncate
    )
    cosines = vectors @ vectors.T  # [sentences, sentences]
    if options.json:
        print(json.dumps({"sentences": options.sentences, "cosines": cosines.tolist()}))
        return
    if len(options.sentences) == 2:
        print(f"{cosines[0, 1]:.6f}")
        return
    labels = [str(number) for number in range(1, len(cosines) + 1)]
    print(" " * 4 + "".join(label.rjust(10) for label in labels))
    for label, row in zip(labels, cosines, strict=True):
        print(label.rjust(4) + "".join(f"{cosine:10.6f}" for cosine in row))
    print()
    for label, sentence in zip(labels, options.sentences, strict=True):
        print(f"{label.rjust(4)}  {printable(' '.join(sentence.split()))}")


def _trace(options: argparse.Namespace) -> None:
    if options.serve:
        _serve(options)
        return
    if options.sentence is None or options.out is None or options.port is not None:
        raise ValueError("expected a SENTENCE and --out PATH; or --serve, to which --port belongs. See minisbert trace --help.")
    import minisbert
    from minisbert.tracing import is_page

    with written_whole(options.out, is_page, "--out") as path:
        corpus = None
        if options.corpus is not None:
            with open_texts(options.corpus, "txt") as texts:
                corpus = list(texts)
        trace = minisbert.trace(given_text(options.sentence), given_text(options.other), model=load_model(options), corpus=corpus)
        trace.save_html(path)
    pair = options.other is not None
    if options.json:
        tokens = [each.tokens for each in (trace.a, trace.b) if each is not None]
        done = {"page": str(options.out), "tokens": tokens, "cosine": trace.cosine if pair else None}
        print(json.dumps(done, ensure_ascii=False))
    elif pair:
        print(f"{trace.cosine:.6f}")
    say(f"wrote the page {options.out}")
    if options.open:
        _open(options.out.resolve().as_uri(), str(options.out))


def _open(address: str, name: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        raise OSError(f"--open: no browser was found here. Open {name!r} by hand.")


def _serve(options: argparse.Namespace) -> None:
    """`minisbert trace --serve`: the page for sentences that are typed in, until Ctrl-C."""
    for name in ("out", "corpus", "json"):
        if getattr(options, name):
            raise ValueError(f"--serve: found --{name} too, which it does not take. Leave one of the two out.")
    if not 0 <= (options.port or 0) <= 65535:
        raise ValueError(f"--port: found {options.port}, expected 0 to 65535.")
    import minisbert
    from minisbert.tracing.serve import TraceServer

    here = dict.fromkeys(known.model for known in known_models(options.cache_dir) if not known.problem)
    first = options.model or (minisbert.DEFAULT_MODEL if minisbert.DEFAULT_MODEL in here else next(iter(here), None))
    if first is None:
        raise ValueError("--serve: no models are on this machine. Pass --model NAME, which downloads one from the hub.")

    def load(model: str) -> minisbert.SentenceEncoder:
        own = {} if model == first else {"revision": None, "local_files_only": True}  # the others are on this machine
        return load_model(argparse.Namespace(**vars(options) | {"model": model} | own))

    start = given_text(options.sentence) or "", given_text(options.other) or ""
    models = [first, *(model for model in here if model not in (first, f"sentence-transformers/{first}"))]
    with TraceServer(models, load, start, options.port or 0) as server:
        server.encoder(first)  # loaded now: an error in it ends the command, and the first answer is quick
        print(server.address, flush=True)
        say("the page is at this address until Ctrl-C")
        if options.open:
            _open(server.address, server.address)
        server.serve_forever()


def _info(options: argparse.Namespace) -> None:
    if options.name is not None:
        if options.model not in (None, options.name):
            raise ValueError(f"info: found the models {options.name!r} and {options.model!r}, expected one. Leave out --model.")
        options.model = options.name
    info = load_model(options).info()
    print(json.dumps(info.to_dict(), ensure_ascii=False, indent=2) if options.json else info)


def _models(options: argparse.Namespace) -> None:
    found = known_models(options.cache_dir)
    if options.json:
        print(json.dumps([model._asdict() for model in found]))
    for model in () if options.json else found:
        print(f"{model.model}  ({model.place}){'' if not model.problem else f': does not load, {model.problem}'}")
    if not found:
        say("no models are on this machine. --model NAME downloads one from the hub.")


def _train(options: argparse.Namespace) -> None:
    from minisbert.cli.train import run

    run(options)


def _corpus(options: argparse.Namespace) -> None:
    from minisbert.cli.corpus import run

    run(options)


@contextlib.contextmanager
def _everything_printed() -> Iterator[None]:
    """Flushes stdout at the end, so that an error of writing is reported here, and not while Python exits."""
    try:
        yield
    finally:
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python's last flush would fail again
                raise


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: object) -> None:
        say(f"warning: {_one_line(message)}")

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _one_line(message: object) -> str:
    if isinstance(message, OSError) and message.filename is not None:
        return f"{message.filename}: {message.strerror}"
    text = str(message).replace("pass on_truncate='ignore'", "pass --on-truncate ignore")
    text = re.sub(r"[Pp]ass model='([^']*)'", r"Pass --model \1", text)  # the command's options in place of the function's
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub("([.:;]); ", r"\1 ", "; ".join(lines)) or type(message).__name__
