"""The hub's cache on this machine: where it is, and whether a model in it is whole.

It is read by its documented layout; `huggingface_hub` would add a tenth of a second to every start.

    <cache>/models--<organisation>--<name>/
        refs/<revision>               a text file: the commit that a branch or tag stood at
        snapshots/<commit>/<file>     a link to the content
        blobs/<hash>                  the content; or in newer versions a link to the cache's common store,
        .no_exist/<commit>/<file>     an empty file: the repository is known to have no such file
    <cache>/blobs/<xx>/<hash>         which holds what several repositories have alike
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from minisbert.errors import CheckpointError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of the weights in a module's folder; each may be split into parts that `<name>.index.json` lists."""

TOKENIZERS = ("tokenizer.json", "vocab.txt")

OBSOLETE = ("special_tokens_map.json", "added_tokens.json", "sparse_linear.pt", "colbert_linear.pt")
"""Files that a whole copy may lack: transformers now writes the first two into tokenizer_config.json; the others are not used."""


def expand(path: str | os.PathLike[str]) -> Path:
    """Replaces ~ as huggingface_hub does: an unknown user's is left as it is, where Path.expanduser would raise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def local_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder that a model's name or path means on this machine; None if there is none."""
    folder = expand(model)
    # Path.is_dir raises on a text that is too long for a path.
    return folder if os.fspath(model) and os.path.isdir(folder) else None  # noqa: PTH112


def absolute(path: str | os.PathLike[str]) -> Path:
    """The same place after a change of the working directory; links stay."""
    return Path(os.path.abspath(expand(path)))  # noqa: PTH100


def sha256(path: Path) -> str:
    """Of what is in a file.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def caches(cache_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The caches to look in, the first of which takes downloads: `cache_dir` alone; else sentence-transformers' own, if the
    environment names one, and huggingface_hub's, by its own rules, except that an empty variable counts as not set.
    """
    return [absolute(path) for path in _caches_as_named(cache_dir)]


def moves_with_the_working_directory(cache_dir: str | os.PathLike[str] | None) -> bool:
    """Whether the same arguments and environment would mean other caches in another directory."""
    return not all(expand(path).is_absolute() for path in _caches_as_named(cache_dir))


def _caches_as_named(cache_dir: str | os.PathLike[str] | None) -> list[str | os.PathLike[str]]:
    if cache_dir is not None:
        return [cache_dir]
    value = os.environ.get
    home = value("HF_HOME") or f"{value('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    own, hub = value("SENTENCE_TRANSFORMERS_HOME"), value("HF_HUB_CACHE") or value("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return [*([own] if own else []), os.path.expandvars(hub)]


def quoted(text: str) -> str:
    """A text as it stands in an error message."""
    return repr(text if len(text) <= 100 else text[:100] + "…")


def checked_path(file: str) -> Path:
    """A path that a checkpoint gives for one of its files, which must stay inside the checkpoint."""
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file or not file.isprintable() or len(file) > 250:
        raise CheckpointError(
            f"{quoted(file)}: found a path that leaves the checkpoint, or is none at all; expected one inside it. Do not use it."
        )
    return path


def checked_link(path: Path, homes: Sequence[Path], file: str) -> Path:
    """A file of a downloaded checkpoint, whose content must lie in one of the folders `homes`, wherever links lead."""
    content = path.resolve()
    if not any(content.is_relative_to(home) for home in homes):
        raise CheckpointError(
            f"{file}: found a link to {content}, expected a file inside {homes[0]}. A downloaded checkpoint may link to nothing "
            "outside. If the link is meant, copy the checkpoint to a folder of your own, and load that."
        )
    return path


def homes_in_cache(repository: Path) -> tuple[Path, ...]:
    """Where the contents of a repository's files may lie; the folders themselves may be links to another disk."""
    return tuple(place.resolve() for place in (repository, repository / "blobs", repository.parent / "blobs"))


def cached_commit(repository: Path, revision: str) -> str | None:
    """The commit that the cache has for the revision asked for, if it has any file of it."""
    ref = repository / "refs" / revision
    commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else revision
    known = re.fullmatch("[0-9a-f]{40}", commit) and (repository / "snapshots" / commit).is_dir()
    return commit if known else None


def missing_from(repository: Path, commit: str) -> str:
    """The first of a model's large or indispensable files that a snapshot lacks, in words; "" if it has them all.

    modules.json must be there, or be known not to exist: without it, one would guess the pooling.
    """
    snapshot, known_missing = repository / "snapshots" / commit, repository / ".no_exist" / commit
    modules = snapshot / "modules.json"
    if not modules.is_file() and not (known_missing / "modules.json").is_file():
        return "modules.json"
    module = snapshot / _folder_of_the_first_module(modules)
    if not (module / "config.json").is_file():
        return "config.json"
    if not any((module / file).is_file() for file in TOKENIZERS):
        return " or ".join(TOKENIZERS)
    if not any((module / file).is_file() or _all_shards(module / f"{file}.index.json") for file in WEIGHTS):
        return f"whole weights ({' or '.join(WEIGHTS)})"
    return ""


def is_dispensable(file: Path) -> bool:
    """Whether a whole copy may lack a file: it is obsolete, or beside it is another form of the weights or the tokenizer."""
    for forms in (TOKENIZERS, (*WEIGHTS, *(f"{name}.index.json" for name in WEIGHTS))):
        if file.name in forms:
            return any((file.parent / form).is_file() for form in forms)
    return file.name in OBSOLETE


def _folder_of_the_first_module(modules: Path) -> Path:
    """Where modules.json has the model itself: at the root as a rule, in a folder such as 0_Transformer in the oldest ones."""
    try:
        return checked_path(json.loads(modules.read_bytes())[0]["path"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return Path()  # there is none, or a broken one, which its reader reports


def _all_shards(index: Path) -> bool:
    """Whether every file is there that the index of weights in several files names."""
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
        return bool(shards) and all((index.parent / checked_path(shard)).is_file() for shard in shards)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False
