"""The models that are on this machine: in installed packages, and in the hub's caches."""

from __future__ import annotations

import os
from typing import NamedTuple

from minisbert.checkpoint.bundled import installed_models
from minisbert.checkpoint.cache import cached_commit, caches, missing_from


class KnownModel(NamedTuple):
    """A model on this machine.

    Attributes:
        model: the name under which `load` finds it.
        place: where it is, in words.
        problem: why it does not load, as far as the list of its files shows; "" if it does.
    """

    model: str
    place: str
    problem: str


def known_models(cache_dir: str | os.PathLike[str] | None = None) -> list[KnownModel]:
    """Every model on this machine that a name finds, the packages' first, then the caches' by name.

    Nothing is loaded: only the names of the files are looked at.

    Args:
        cache_dir: the hub's cache, as in `load`.
    """
    found = [KnownModel(bundled.model, f"the installed package {bundled.package}", "") for bundled in installed_models()]
    for cache in caches(cache_dir):
        for folder in sorted(cache.glob("models--*--*")):
            name = folder.name.removeprefix("models--").replace("--", "/")
            try:
                commit = cached_commit(folder, "main")
                missing = "its main branch" if commit is None else missing_from(folder, commit)
                problem = f"{missing} is missing" if missing else ""
            except OSError as error:
                problem = f"it cannot be read ({error.strerror})"
            found.append(KnownModel(name, f"the hub's cache {cache}", problem))
    return found
