"""The `minisbert` command: it parses, calls the public API, and prints.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 2 something was wrong, said in one line on stderr; 130 stopped
with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from minisbert.errors import MinisbertError, MissingExtraError

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

DESCRIPTION = """\
Sentences to vectors whose cosine says how close their meanings are.

  minisbert similarity "A man is eating food." "Someone is having a meal." --model all-MiniLM-L6-v2
  minisbert encode sentences.txt --out vectors.safetensors --model all-MiniLM-L6-v2
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="minisbert", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
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

    similarity = commands.add_parser(
        "similarity",
        parents=[common],
        help="how close the meanings of sentences are",
        description="Prints the cosine of two sentences' vectors, or for more than two the matrix of all cosines.",
    )
    similarity.add_argument("sentences", nargs="+", metavar="SENTENCE", help="two sentences or more")

    encode = commands.add_parser(
        "encode",
        parents=[common],
        help="a file of sentences to a file of vectors",
        description="Writes one vector for each line of the input, in its order (an empty line is an empty text and has one too).",
    )
    encode.add_argument("file", nargs="?", default="-", metavar="FILE", help="UTF-8 text, a sentence a line; - is stdin (default)")
    encode.add_argument(
        "--out", required=True, type=Path, metavar="PATH", help="what to write: .safetensors (tensor 'embeddings') or .npy"
    )
    encode.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    encode.add_argument("--batch-tokens", type=int, metavar="N", help="the most tokens in one batch (default: 1500)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        arguments: the words after `minisbert`. Default: those the program was called with.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from minisbert import __version__

        print(f"minisbert {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    try:
        with _warnings_in_one_line():
            run = {"similarity": _similarity, "encode": _encode}[options.command]
            run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. stdout is pointed elsewhere so that Python's last flush does not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MinisbertError, ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"minisbert: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _similarity(options: argparse.Namespace) -> None:
    if len(options.sentences) < 2:
        raise ValueError("similarity: found one sentence, expected two or more. Put each sentence in quotes.")
    vectors = _load(options).encode(options.sentences, normalize_embeddings=True, show_progress_bar=False)
    cosines = vectors @ vectors.T  # [sentences, sentences]
    if len(options.sentences) == 2:
        print(f"{cosines[0, 1]:.6f}")
        return
    labels = [str(number) for number in range(1, len(cosines) + 1)]
    print(" " * 4 + "".join(label.rjust(10) for label in labels))
    for label, row in zip(labels, cosines, strict=True):
        print(label.rjust(4) + "".join(f"{cosine:10.6f}" for cosine in row))
    print()
    for label, sentence in zip(labels, options.sentences, strict=True):
        print(f"{label.rjust(4)}  {sentence}")


def _encode(options: argparse.Namespace) -> None:
    kind = options.out.suffix
    if kind not in (".safetensors", ".npy"):
        raise ValueError(f"--out: found {str(options.out)!r}, expected a name that ends in .safetensors or .npy.")
    if kind == ".npy":
        _import_numpy()
    if not options.out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {str(options.out.parent)!r}. Make it first.")
    lines = _read_lines(options.file)
    vectors = _load(options).encode(lines, batch_tokens=options.batch_tokens, normalize_embeddings=options.normalize)
    with _written_whole(options.out) as path:
        if kind == ".npy":
            with path.open("wb") as file:
                _import_numpy().save(file, vectors.numpy())
        else:
            from safetensors.torch import save_file

            save_file({"embeddings": vectors}, path)
    print(f"{options.out}: {len(vectors)} vectors of {vectors.shape[1]} numbers", file=sys.stderr)


def _load(options: argparse.Namespace) -> SentenceEncoder:
    import minisbert

    return minisbert.load(
        options.model or minisbert.DEFAULT_MODEL,
        device=options.device,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
    )


def _import_numpy() -> ModuleType:
    try:
        import numpy
    except ImportError as error:
        raise MissingExtraError(
            "--out: .npy needs numpy, which is not installed. Run pip install 'minisbert[numpy]', or write .safetensors."
        ) from error
    return numpy


def _read_lines(file: str) -> list[str]:
    """The lines of a UTF-8 file, or of stdin; a byte-order mark and the line ends (LF or CRLF) do not belong to them."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    name = "stdin" if file == "-" else file
    lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8.") from error
    if lines[-1] == "":
        lines.pop()  # what follows the last line end is no line
    return lines


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end: a reader never sees half a file, and a crash leaves none."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: object) -> None:
        print(f"minisbert: warning: {_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _one_line(message: object) -> str:
    return "; ".join(line.strip() for line in str(message).splitlines() if line.strip()) or type(message).__name__
