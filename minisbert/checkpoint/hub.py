"""A model's name → its files on this machine.

Places are asked in this order: a local folder; the hub's cache; an installed package that bundles that very model; the hub. Files
are fetched one by one as the reader of the checkpoint asks for them, so exactly the needed ones are, and a checkpoint that
cannot be run is refused before its weights are downloaded.

The hub's cache is read by `cache.py`; `huggingface_hub` is imported only when the hub is really asked.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from minisbert.checkpoint.bundled import bundled_weights
from minisbert.checkpoint.cache import (
    cached_commit,
    caches,
    checked_link,
    checked_path,
    homes_in_cache,
    is_dispensable,
    local_folder,
    missing_from,
    moves_with_the_working_directory,
)
from minisbert.checkpoint.names import advice, check_arguments, full_name
from minisbert.errors import ModelNotFoundError, warn

REFUSALS = {
    "GatedRepoError": "only for those who accepted its terms; do so on its page there, then pass token= or set HF_TOKEN",
    "RepositoryNotFoundError": "no such model, or a private one; check the name, or pass token= or set HF_TOKEN",
    "RevisionNotFoundError": "the model is there, but has no revision {revision!r}",
}
"""Our wording of the hub's refusals, by the name of huggingface_hub's error class."""


@dataclass
class Source(ABC):
    """Where a model's files come from.

    Attributes:
        model: the name or path that was asked for, in full.
        origin: the kind of place, in words.
        cache_dir: the `cache_dir` with which `locate` finds the model again from any working directory.
        commit: the commit that all files are of; None for a folder outside the hub's cache, and before the hub is asked.
        load_warnings: the warnings that were given so far.
    """

    model: str
    origin: str
    cache_dir: str | os.PathLike[str] | None
    commit: str | None = field(default=None, kw_only=True)
    load_warnings: list[str] = field(default_factory=list, kw_only=True)

    @abstractmethod
    def find(self, file: str) -> Path | None:
        """A file's path inside the checkpoint → where it lies on this machine, or None if the checkpoint has no such file."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files that the checkpoint has, as far as that can be said; for messages about those that it lacks."""


def locate(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Source:
    """Finds the place that has a model. Only the last place, the hub, needs a network, and is asked at the first file.

    The arguments are those of `minisbert.load`. A folder inside a repository has no name of its own, as in
    sentence-transformers. Downloads go to the first of the caches.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if `revision`, `token` or `cache_dir` is empty, or a revision is given for a local folder.
        ModelNotFoundError: if it is not a folder and cannot be a name on the hub. That no place has it shows when the first file is
            asked for.
    """
    check_arguments(model, revision, token, cache_dir, local_files_only)
    if (folder := local_folder(model)) is not None:
        if revision is not None:
            raise ValueError(f"revision: found {revision!r}, expected none, because {folder} is a local folder. Leave it out.")
        return _local(folder)
    name = full_name(model)
    moves = moves_with_the_working_directory(cache_dir)
    asked = revision or "main", token, "local_files_only is set" if local_files_only else ""
    repositories = [_Repository(name, "the hub", str(cache) if moves else cache_dir, cache, *asked) for cache in caches(cache_dir)]
    tried = ["a local folder: none of that name"]
    for repository in repositories:
        missing = repository.take_cached()
        if not missing:
            return repository
        tried.append(f"the hub's cache {repository.cache}: {missing}")
    repository = repositories[0]
    weights, words = bundled_weights(name, revision, repository.load_warnings)
    if weights is not None:
        # Some installers put links to a store in place of files. They may lead to the folder of the verified weights.
        homes = (weights.parent.resolve(), weights.resolve().parent)
        return _Folder(name, words, repository.cache_dir, weights.parent, homes)
    repository.tried = [*tried, words] if words else tried
    return repository


def _local(folder: Path) -> _Folder:
    """A folder that the user names. It may be a snapshot in the hub's cache, whose links lead to that cache only."""
    found, snapshot = _Folder(str(folder), "a local folder", None, folder), folder.resolve()
    repository = snapshot.parent.parent
    if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
        found.commit, found.homes = snapshot.name, homes_in_cache(repository)
    return found


@dataclass
class _Folder(Source):
    """A folder on this machine.

    Attributes:
        root: the folder.
        homes: the folders to which its links may lead; None for a folder that the user names, whose links may lead anywhere: DVC,
            Bazel, Nix and the hub's own `local_dir` make such.
    """

    root: Path
    homes: tuple[Path, ...] | None = None

    def find(self, file: str) -> Path | None:
        path = self.root / checked_path(file)
        if not path.is_file():
            return None
        return path if self.homes is None else checked_link(path, self.homes, file)

    def names(self) -> list[str]:
        return _files_below(self.root)


def _files_below(folder: Path) -> list[str]:
    """The files of a folder and of the folders in it, by their paths inside it."""
    return [path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file()]


@dataclass
class _Repository(Source):
    """A repository on the hub, through its cache. Its commit is kept once it is known, whatever happens to the branch meanwhile.

    Attributes:
        cache: the folder of the cache, which holds the repository's own.
        revision: the branch, tag or commit to ask the hub for.
        closed: why the hub is not asked, or not any more; "" as long as it may be.
        reached: whether the hub has answered before.
        cached: whether the cache alone holds a whole model.
        tried: the places that do not have the model, for the error.
    """

    cache: Path
    revision: str
    token: str | bool | None = field(repr=False)
    closed: str
    reached: bool = False
    cached: bool = False
    tried: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.cache / ("models--" + self.model.replace("/", "--"))

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / str(self.commit)

    def take_cached(self) -> str:
        """Takes the cache's copy if it is whole, by the files that every model needs; an unfinished download is not a model.

        Smaller files that the cache does not know are asked for later.

        Returns:
            "" if it is taken, else what is missing, in words.
        """
        try:
            commit = cached_commit(self.folder, self.revision)
            if commit is None:
                return "no copy of it" if self.revision == "main" else f"no copy of its revision {self.revision}"
            missing = missing_from(self.folder, commit)
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        if missing:
            return f"an unfinished copy of it, without {missing}"
        self.commit, self.cached, self.origin = commit, True, "the hub's cache"
        return ""

    def find(self, file: str) -> Path | None:
        file = checked_path(file).as_posix()
        if self.commit is not None:
            if (self.snapshot / file).is_file():
                return checked_link(self.snapshot / file, homes_in_cache(self.folder), file)
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
            places = ";\n  ".join([*self.tried, f"the hub: {self.closed}"])
            said = f"{self.model}: this model was not found, and no other one is taken instead. Tried:\n  {places}."
            raise ModelNotFoundError(f"{said}\n{advice(self.model)}") from cause
        if not is_dispensable(self.snapshot / file):
            load_warning = (
                f"the hub's cache does not say whether this model has a {file}, and the hub cannot be asked ({self.closed}); "
                "it is taken to have none"
            )
            self.load_warnings.append(load_warning)
            warn(f"{self.model}: {load_warning}")
        return None

    def names(self) -> list[str]:
        if not self.closed:
            from huggingface_hub import HfApi

            with suppress(Exception):  # the listing is for a message only, and whatever it raises must not replace that message
                return HfApi(_endpoint(), self.token).list_repo_files(self.model, revision=self.commit or self.revision)
        return _files_below(self.snapshot)

    def _fetch(self, file: str) -> Path | None:
        """Asks the hub for one file; None if the repository has no such file."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        revision, hub = self.commit or self.revision, _endpoint()
        if not self.reached:
            try:
                get_hf_file_metadata(hf_hub_url(self.model, file, revision=revision, endpoint=hub), token=self.token)
            except Exception as error:
                # hf_hub_download repeats a failed question for half a minute, which is right for a busy hub, and only a wait where
                # there is no network. An answer of whatever kind, or none in time, is left to it.
                if getattr(error, "response", None) is None and is_network_error(error):
                    raise
            self.reached = True
        try:
            found = hf_hub_download(
                self.model, file, revision=revision, token=self.token, cache_dir=self.cache, endpoint=hub, library_name="minisbert"
            )
        except EntryNotFoundError as error:
            response = getattr(error, "response", None)
            if response is None:  # a LocalEntryNotFoundError, which says only that the hub could not be asked
                raise
            self.commit = self.commit or response.headers.get("X-Repo-Commit")
            return None
        # <cache>/models--…/snapshots/<commit>/<file>
        self.commit = Path(found).parts[-1 - len(Path(file).parts)]
        return Path(found)

    def _what_the_hub_says(self, file: str, error: Exception) -> str:
        for kind in type(error).__mro__:
            if kind.__name__ in REFUSALS:
                return REFUSALS[kind.__name__].format(revision=self.commit or self.revision)
        cause = _root_cause(error)
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        if getattr(getattr(cause, "response", None), "status_code", None) == 401:
            reason += "; check the token that was sent: token=, HF_TOKEN, or huggingface_hub's login"
        return f"{file} could not be fetched from {_endpoint()} ({reason})"


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def is_network_error(error: BaseException | None) -> bool:
    """Whether an error was caused by one of the operating system (refused, unreachable, no such host), except a timeout."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error is not None and not isinstance(error, TimeoutError)


def _endpoint() -> str:
    """The hub's address. huggingface_hub alone would see only what the environment named before its import."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _offline() -> str:
    """Which environment variable keeps huggingface_hub off the network, if one does; the first that is set decides."""
    variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return f"{variable} is set" if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"} else ""
