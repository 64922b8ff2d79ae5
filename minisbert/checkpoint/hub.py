"""A model's name → its files on this machine.

Places are asked in this order: a local folder; the hub's cache; an installed package that bundles that very model; the hub. Files
are fetched one by one as the reader of the checkpoint asks for them, so exactly the needed ones are, and a checkpoint that
cannot be run is refused before its weights are downloaded.

The hub's cache is read by `cache.py`; `huggingface_hub` is imported only when the hub is really asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from minisbert.checkpoint.bundled import bundled_model, installed_models
from minisbert.checkpoint.cache import (
    cached_commit,
    caches,
    checked_link,
    checked_path,
    expand,
    has_other_form,
    homes_in_cache,
    local_folder,
    missing_from,
    moves_with_the_working_directory,
)
from minisbert.checkpoint.names import DEFAULT_ORGANISATION, REPOSITORY_NAME, brief, check_arguments, full_name_hint
from minisbert.errors import ModelNotFoundError, warn

OBSOLETE = ("special_tokens_map.json", "added_tokens.json", "sparse_linear.pt", "colbert_linear.pt")
"""Files that a whole copy may lack: transformers now writes the first two into tokenizer_config.json; the others are not used."""


@dataclass(frozen=True)
class Source:
    """Where a model's files come from.

    Attributes:
        model: the name or path that was asked for, in full.
        origin: the kind of place, in words.
        place: what finds the files there.
        cache_dir: with which `locate` finds it again, from whatever working directory.
    """

    model: str
    origin: str
    place: _LocalFolder | _Repository
    cache_dir: str | os.PathLike[str] | None = None

    @property
    def find(self) -> Callable[[str], Path | None]:
        """A file's path inside the checkpoint → where it lies on this machine, or None if the checkpoint has no such file."""
        return self.place.find

    def names(self) -> list[str]:
        """The files that the checkpoint has, as far as that can be said; for messages about those that it lacks."""
        return self.place.names()

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

    The arguments are those of `minisbert.load`. A folder inside a repository cannot be asked for by name; sentence-transformers has
    no way to either. Downloads go to the first of the caches.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if `revision`, `token` or `cache_dir` is empty, or a revision is given for a local folder.
        ModelNotFoundError: if it is not a folder and cannot be a name on the hub. That no place has it shows when the first file is
            asked for.
    """
    check_arguments(model, revision, token, cache_dir, local_files_only)
    if (folder := local_folder(model)) is not None:
        if revision is not None:
            raise ValueError(f"revision: found {revision!r}, expected none, since {folder} is a local folder. Leave it out.")
        return Source(str(folder), "a local folder", _LocalFolder(folder))
    name = os.fspath(model)
    if "/" not in name:
        name = f"{DEFAULT_ORGANISATION}/{name}"
    if os.path.isfile(expand(model)):  # noqa: PTH113 (Path.is_file raises on a text that is too long for a path)
        raise ModelNotFoundError(
            f"{expand(model)}: found a file, expected the folder that holds a checkpoint, or a name on the hub."
        )
    if isinstance(model, os.PathLike) or not REPOSITORY_NAME.fullmatch(name):
        raise ModelNotFoundError(
            f"{brief(os.fspath(model))}: there is no such folder, and this is no name on the hub either. "
            "Give the path of a folder that holds a checkpoint, or a name such as organisation/name. "
            "(To use a folder inside a repository, download the repository and give the path of that folder.)"
        )

    closed = "local_files_only is set" if local_files_only else ""
    tried = ["a local folder: none of that name"]
    repositories = [_Repository(name, revision or "main", token, cache, closed) for cache in caches(cache_dir)]
    moves = moves_with_the_working_directory(cache_dir)
    for repository in repositories:
        missing = repository.take_cached()
        if not missing:
            return Source(name, "the hub's cache", repository, str(repository.cache) if moves else cache_dir)
        tried.append(f"the hub's cache {repository.cache}: {missing}")
    repository = repositories[0]
    bundled, why_not = bundled_model(name, revision, repository.load_warnings)
    cache_dir = str(repository.cache) if moves else cache_dir
    if bundled is not None:
        return Source(name, bundled.origin, _LocalFolder(bundled.folder, bundled.homes), cache_dir)
    repository.tried = [*tried, *why_not]
    return Source(name, "the hub", repository, cache_dir)


@dataclass(frozen=True)
class _LocalFolder:
    """A folder on this machine.

    Attributes:
        root: the folder.
        homes: the folders to which its links may lead; None for a folder that the user names, whose links may lead anywhere: DVC,
            Bazel, Nix and the hub's own `local_dir` make such.
        load_warnings: none.
    """

    root: Path
    homes: tuple[Path, ...] | None = None
    load_warnings: tuple[str, ...] = ()

    @property
    def commit(self) -> str | None:
        return None if self._cached_repository() is None else self.root.resolve().name

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
        homes = self.homes if repository is None else homes_in_cache(repository)
        return path if homes is None else checked_link(path, homes, file)

    def names(self) -> list[str]:
        return _files_below(self.root)


def _files_below(folder: Path) -> list[str]:
    """The files of a folder and of the folders in it, by their paths inside it."""
    return [path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file()]


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
        load_warnings: what was said in warnings.
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
        self.commit, self.cached = commit, True
        return ""

    def find(self, file: str) -> Path | None:
        file = checked_path(file).as_posix()
        if self.commit is not None:
            path = self.folder / "snapshots" / self.commit / file
            if path.is_file():
                return checked_link(path, homes_in_cache(self.folder), file)
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
                f"{self.name}: this model was not found, and no other one is taken instead.\n  {tried}\n"
                f"Give the path of a folder that holds it, or a name that the hub has."
                f"{full_name_hint(self.name)}{_installed(self.name)}"
            ) from cause
        if not has_other_form(self.folder / "snapshots" / str(self.commit) / file) and Path(file).name not in OBSOLETE:
            load_warning = (
                f"the hub's cache does not say whether this model has a {file}, and the hub cannot be asked ({self.closed}); "
                "it is taken to have none"
            )
            self.load_warnings.append(load_warning)
            warn(f"{self.name}: {load_warning}")
        return None

    def names(self) -> list[str]:
        if not self.closed:
            from huggingface_hub import HfApi

            with suppress(Exception):  # the listing is for a message only, and whatever it raises must not replace that message
                return HfApi(_endpoint(), self.token).list_repo_files(self.name, revision=self.commit or self.revision)
        return _files_below(self.folder / "snapshots" / str(self.commit))

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


def _installed(besides: str) -> str:
    """The advice to take what is here."""
    names = [
        bundled.model.removeprefix(f"{DEFAULT_ORGANISATION}/")
        for bundled in installed_models()
        if bundled.model.lower() != besides.lower()
    ]
    return f"\nInstalled here: {', '.join(names)}. Pass model={names[0]!r} to use it." if names else ""


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def is_network_error(error: BaseException | None) -> bool:
    """Whether an error was caused by one of the operating system (refused, unreachable, no such host), except a timeout."""
    while error is not None:
        if isinstance(error, OSError):
            return not isinstance(error, TimeoutError)
        error = error.__cause__ or error.__context__
    return False


def _endpoint() -> str | None:
    """The hub's address if the environment names one. huggingface_hub would only see what was set before its import."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _offline() -> str:
    """Which environment variable keeps huggingface_hub off the network, if one does; the first that is set decides."""
    variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return f"{variable} is set" if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"} else ""
