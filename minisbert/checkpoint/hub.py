"""A model's name → its files on this machine.

Places are asked in this order: a local folder; the hub's cache; an installed package that carries that very model; the hub. Files
are fetched one by one as the reader of the checkpoint asks for them, so exactly the needed ones are, and a checkpoint that
cannot be run is refused before its weights are downloaded.

The hub's cache is looked up here, by its documented layout, and `huggingface_hub` is imported only when the hub is really asked:
it would add a tenth of a second to every start.

    <cache>/models--<organisation>--<name>/
        refs/<revision>               a text file: the commit that a branch or tag stood at
        snapshots/<commit>/<file>     a link to the content
        blobs/<hash>                  the content; or in newer versions a link to the cache's common store,
        .no_exist/<commit>/<file>     an empty file: the repository is known to have no such file
    <cache>/blobs/<xx>/<hash>         which holds what several repositories have alike
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minisbert.checkpoint.bundled import bundled_model
from minisbert.errors import CheckpointError, MinisbertWarning, ModelNotFoundError

DEFAULT_ORGANISATION = "sentence-transformers"
"""A bare name without a slash means this organisation's model, as in its model cards."""

REPOSITORY_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
"""organisation/name, by the hub's own rules for letters and lengths."""

REVISION = re.compile(r"(?!.*\.\.)[^\s/~^:?*\[\\\x00-\x20\x7f][^\s~^:?*\[\\\x00-\x20\x7f]{0,249}")
"""A branch, tag or commit: what git allows as a name, so that it is a path below `refs/` too."""

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of the weights in a module's folder; each may be split into parts that `<name>.index.json` lists."""

TOKENIZERS = ("tokenizer.json", "vocab.txt")

OBSOLETE = ("special_tokens_map.json", "added_tokens.json", "sparse_linear.pt", "colbert_linear.pt")
"""What newer versions of transformers write into tokenizer_config.json instead, and what is not used: a copy without is as good."""


@dataclass(frozen=True)
class Source:
    """Where a model's files come from.

    Attributes:
        model: the name or path that was asked for, in full.
        origin: the kind of place, in words.
        place: what finds the files there.
    """

    model: str
    origin: str
    place: _LocalFolder | _Repository

    @property
    def find(self) -> Callable[[str], Path | None]:
        """A file's path inside the checkpoint → where it lies on this machine, or None if the checkpoint has no such file."""
        return self.place.find

    @property
    def load_warnings(self) -> Sequence[str]:
        """What has been said in warnings up to now."""
        return self.place.load_warnings

    @property
    def commit(self) -> str | None:
        """The commit that the files are of; None for a folder outside the hub's cache, and as long as the hub was not asked."""
        return self.place.commit


def locate(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Source:
    """Finds the place that has a model. Only the last place, the hub, needs a network, and is asked at the first file.

    Args:
        model: a folder, `organisation/name`, or a bare name of the organisation sentence-transformers. Which folders of a
            repository hold its parts is written in its modules.json; a folder of it cannot be asked for by name, as
            sentence-transformers has no way to either.
        revision: a branch, tag or commit on the hub; by default the main branch. A local folder has none.
        token: for private repositories; by default what huggingface_hub knows (its login, or `HF_TOKEN`).
        cache_dir: the hub's cache; by default where huggingface_hub has it (`HF_HUB_CACHE`, `HF_HOME`).
        local_files_only: never ask the hub.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if `revision`, `token` or `cache_dir` is empty, or a revision is given for a local folder.
        ModelNotFoundError: if it is not a folder and cannot be a name on the hub. That no place has it shows when the first file is
            asked for.
    """
    _check_arguments(model, revision, token, cache_dir, local_files_only)
    folder = _expand(model)
    if os.fspath(model) and os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises on a text that is too long for a path)
        if revision is not None:
            raise ValueError(f"revision: found {revision!r}, expected none, since {folder} is a local folder. Leave it out.")
        return Source(str(folder), "a local folder", _LocalFolder(folder))
    name = os.fspath(model)
    if "/" not in name:
        name = f"{DEFAULT_ORGANISATION}/{name}"
    if os.path.isfile(folder):  # noqa: PTH113 (likewise)
        raise ModelNotFoundError(f"{folder}: found a file, expected the folder that holds a checkpoint, or a name on the hub.")
    if isinstance(model, os.PathLike) or not REPOSITORY_NAME.fullmatch(name):
        raise ModelNotFoundError(
            f"{_brief(os.fspath(model))}: there is no such folder, and this is no name on the hub either. "
            "Give the path of a folder that holds a checkpoint, or a name such as organisation/name. "
            "(To use a folder inside a repository, download the repository and give the path of that folder.)"
        )

    cache = hub_cache() if cache_dir is None else _expand(cache_dir)
    repository = _Repository(name, revision or "main", token, cache, closed="local_files_only is set" if local_files_only else "")
    missing = repository.take_cached()
    if not missing:
        return Source(name, "the hub's cache", repository)
    carried, why_not = bundled_model(name, revision, repository.load_warnings)
    if carried is not None:
        return Source(name, carried[1], _LocalFolder(*carried))
    repository.tried.extend(["a local folder: none of that name", f"the hub's cache {cache}: {missing}", *why_not])
    return Source(name, "the hub", repository)


def _check_arguments(model: object, revision: object, token: object, cache_dir: object, local_files_only: object) -> None:
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model: found {type(model).__name__}, expected a name on the hub, or the path of a folder.")
    if revision is not None and not isinstance(revision, str):
        raise TypeError(f"revision: found {type(revision).__name__}, expected a branch, a tag or a commit.")
    if token is not None and not isinstance(token, (str, bool)):
        raise TypeError(f"token: found {type(token).__name__}, expected the text of a token, True, False or None.")
    if cache_dir is not None and not isinstance(cache_dir, (str, os.PathLike)):
        raise TypeError(f"cache_dir: found {type(cache_dir).__name__}, expected the path of a folder.")
    if not isinstance(local_files_only, bool):
        raise TypeError(f"local_files_only: found {type(local_files_only).__name__}, expected True or False.")
    if revision is not None and not REVISION.fullmatch(revision):
        raise ValueError(
            f"revision: found {_brief(revision)}, expected a branch, a tag or a commit. Leave it out for the main branch."
        )
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
        # The token itself stays out of the message, which may end up in a log.
        raise ValueError(
            f"token: found a text of {len(token)} characters that is empty or holds spaces, line ends or other characters that "
            "no token has. Copy it anew; leave it out to use huggingface_hub's login or HF_TOKEN."
        )
    if cache_dir is not None and not os.fspath(cache_dir):
        raise ValueError("cache_dir: found an empty text, expected the path of a folder. Leave it out for huggingface_hub's own.")


def hub_cache() -> Path:
    """Where huggingface_hub keeps its files, by its own rules, but that an empty variable counts as not set."""
    value = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return _expand(os.path.expandvars(value or f"{home}/hub"))


def checked_path(file: str) -> Path:
    """A path that a checkpoint gives for one of its files, which must stay inside the checkpoint."""
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file or not file.isprintable() or len(file) > 250:
        raise CheckpointError(
            f"{_brief(file)}: found a path that leaves the checkpoint, or is none at all; expected one inside the checkpoint. "
            "Do not use it."
        )
    return path


def _brief(text: str, most: int = 100) -> str:
    return repr(text if len(text) <= most else text[:most] + "…")


@dataclass(frozen=True)
class _LocalFolder:
    root: Path
    origin: str = "a local folder"
    load_warnings: tuple[str, ...] = ()

    @property
    def commit(self) -> str | None:
        repository = self._cached_repository()
        return self.root.resolve().name if repository else None

    def _cached_repository(self) -> Path | None:
        """If this folder is a snapshot in the hub's cache, the repository's folder there."""
        repository = self.root.resolve().parent.parent
        is_one = self.root.resolve().parent.name == "snapshots" and repository.name.startswith("models--")
        return repository if is_one else None

    def find(self, file: str) -> Path | None:
        path = self.root / checked_path(file)
        if not path.is_file():
            return None
        repository = self._cached_repository()
        # A snapshot's files are links to ../../blobs, and those may be links to the store beside the repositories.
        homes = (repository, repository.parent / "blobs") if repository else (self.root.resolve(),)
        content = path.resolve()
        if not any(content.is_relative_to(home) for home in homes):
            raise CheckpointError(
                f"{file}: found a link to {content}, expected a file inside {homes[0]}. Nothing outside a checkpoint's folder is "
                "read: if the link is meant, replace it by a copy of the file."
            )
        return path


@dataclass
class _Repository:
    """A repository on the hub, through its cache.

    Attributes:
        revision: the branch, tag or commit to ask the hub for.
        closed: why the hub is not asked, or not any more; "" as long as it may be.
        reached: whether the hub has answered before.
        commit: the commit that all files are of, from the moment it is known: whatever happens to the branch meanwhile.
        cached: whether the cache alone holds a whole model.
        tried: the places that do not have the model, for the error.
        remarks: what was said in warnings.
    """

    name: str
    revision: str
    token: str | bool | None
    cache: Path
    closed: str
    reached: bool = False
    commit: str | None = None
    cached: bool = False
    tried: list[str] = field(default_factory=list)
    load_warnings: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.cache / ("models--" + self.name.replace("/", "--"))

    def take_cached(self) -> str:
        """Takes the cache's copy if it is whole, by the files that no model can do without; half a download is not a model.

        modules.json must be there, or be known not to exist: without it, one would guess the pooling. Smaller files that the
        cache does not know are asked for later.

        Returns:
            "" if it is taken, else what is missing, in words.
        """
        try:
            commit = self._cached_commit()
            if commit is None:
                return "no copy of it" if self.revision == "main" else f"no copy of its revision {self.revision}"
            missing = self._missing(self.folder / "snapshots" / commit, self.folder / ".no_exist" / commit)
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        if missing:
            return f"an unfinished copy of it, without {missing}"
        self.commit, self.cached = commit, True
        return ""

    def _cached_commit(self) -> str | None:
        """The commit that the cache has for the revision asked for, if it has any file of it."""
        ref = self.folder / "refs" / self.revision
        commit = ref.read_text(encoding="utf-8", errors="replace").strip() if ref.is_file() else self.revision
        known = re.fullmatch("[0-9a-f]{40}", commit) and (self.folder / "snapshots" / commit).is_dir()
        return commit if known else None

    def _missing(self, snapshot: Path, known_missing: Path) -> str:
        """The first of a model's large or indispensable files that a snapshot lacks, in words; "" if it has them all."""
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

    def find(self, file: str) -> Path | None:
        file = checked_path(file).as_posix()
        if self.commit is not None:
            path = self.folder / "snapshots" / self.commit / file
            if path.is_file():
                return path
            if (self.folder / ".no_exist" / self.commit / file).is_file():
                return None
        cause: Exception | None = None
        self.closed = self.closed or _offline()
        if not self.closed:
            try:
                return self._fetch(file)
            except Exception as error:  # the network's own errors differ between the versions of huggingface_hub
                # It is not asked again: each failed try may take huggingface_hub half a minute.
                self.closed, cause = self._what_the_hub_says(file, error), error
        if not self.cached:
            tried = "\n  ".join([*self.tried, f"the hub: {self.closed}"])
            raise ModelNotFoundError(
                f"{self.name}: this model cannot be had, and no other one is taken in its stead.\n  {tried}\n"
                "Give the path of a folder that holds it, or a name that the hub has."
            ) from cause
        if not self._has_other_form(file) and Path(file).name not in OBSOLETE:
            load_warning = (
                f"the hub's cache does not say whether this model has a {file}, and the hub cannot be asked ({self.closed}); "
                "it is taken to have none"
            )
            self.load_warnings.append(load_warning)
            warnings.warn(f"{self.name}: {load_warning}", MinisbertWarning, stacklevel=2)
        return None

    def _has_other_form(self, file: str) -> bool:
        """Whether the cache holds another form of a file: there are several of the weights and of the tokenizer."""
        path = self.folder / "snapshots" / str(self.commit) / file
        for forms in (TOKENIZERS, (*WEIGHTS, *(f"{name}.index.json" for name in WEIGHTS))):
            if path.name in forms:
                return any((path.parent / form).is_file() for form in forms)
        return False

    def _fetch(self, file: str) -> Path | None:
        """Asks the hub for one file; None if the repository has no such file."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        revision, endpoint = self.commit or self.revision, _endpoint()
        if not self.reached:
            try:
                get_hf_file_metadata(hf_hub_url(self.name, file, revision=revision, endpoint=endpoint), token=self.token)
            except Exception as error:
                # hf_hub_download repeats a failed question for half a minute, which is right for a busy hub, and only a wait where
                # there is no network. An answer of whatever kind, or none in time, is left to it.
                if getattr(error, "response", None) is None and is_network_error(error):
                    raise
            self.reached = True
        try:
            path = Path(
                hf_hub_download(
                    self.name,
                    file,
                    revision=revision,
                    token=self.token,
                    cache_dir=self.cache,
                    endpoint=endpoint,
                    library_name="minisbert",
                )
            )
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # says only that the hub could not be asked
                raise
            response = getattr(error, "response", None)
            self.commit = self.commit or (None if response is None else response.headers.get("X-Repo-Commit"))
            return None
        # <cache>/models--…/snapshots/<commit>/<file>
        self.commit = path.parts[-1 - len(Path(file).parts)]
        return path

    def _what_the_hub_says(self, file: str, error: Exception) -> str:
        from huggingface_hub import constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, GatedRepoError):
            return "only for those who accepted its terms; do so on its page there, then pass token= or set HF_TOKEN"
        if isinstance(error, RepositoryNotFoundError):
            return "no such model, or a private one; check the name, or pass token= or set HF_TOKEN"
        if isinstance(error, RevisionNotFoundError):
            return f"the model is there, but has no revision {self.commit or self.revision!r}"
        cause = _root_cause(error)
        lines = str(cause).strip().splitlines()
        reason = lines[0] if lines else type(cause).__name__
        if getattr(getattr(error, "response", None), "status_code", None) == 401:
            reason += "; check the token that was sent: token=, HF_TOKEN, or huggingface_hub's login"
        return f"{file} could not be fetched from {_endpoint() or constants.ENDPOINT} ({reason})"


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


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def is_network_error(error: BaseException | None) -> bool:
    """Whether behind an error is one of the operating system (refused, unreachable, no such host), other than a timeout."""
    while error is not None:
        if isinstance(error, OSError):
            return not isinstance(error, TimeoutError)
        error = error.__cause__ or error.__context__
    return False


def _endpoint() -> str | None:
    """The hub's address if the environment names one. huggingface_hub would only see what was set before its import."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _expand(path: str | os.PathLike[str]) -> Path:
    """Replaces ~ as huggingface_hub does: an unknown user's is left as it is, where Path.expanduser would raise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _offline() -> str:
    """Which environment variable keeps huggingface_hub off the network, if one does; the first that is set decides."""
    variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return f"{variable} is set" if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"} else ""
