"""Checks the name, revision, token and cache that a user gives to `load`, and words the errors."""

from __future__ import annotations

import os
import re

from minisbert.checkpoint.bundled import installed_models
from minisbert.checkpoint.cache import expand, quoted
from minisbert.errors import ModelNotFoundError

DEFAULT_ORGANISATION = "sentence-transformers"
"""A bare name without a slash means this organisation's model, as in its model cards."""

REPOSITORY_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
"""organisation/name, by the hub's own rules for letters and lengths."""

REVISION = re.compile(r"(?!.*\.\.)[^\s/~^:?*\[\\\x00-\x20\x7f][^\s~^:?*\[\\\x00-\x20\x7f]{0,249}")
"""A branch, tag or commit: what git allows as a name, so that it is a path below `refs/` too."""

ORIGINALS = {
    "google-bert": (
        *("bert-base-uncased", "bert-large-uncased", "bert-base-cased", "bert-large-cased", "bert-base-chinese"),
        *("bert-base-multilingual-cased", "bert-base-multilingual-uncased", "bert-base-german-cased"),
    ),
    "FacebookAI": ("roberta-base", "roberta-large", "xlm-roberta-base", "xlm-roberta-large"),
    "distilbert": (
        *("distilbert-base-uncased", "distilbert-base-cased", "distilbert-base-multilingual-cased"),
        *("distilroberta-base",),
    ),
    "microsoft": ("mpnet-base", "minilm-l12-h384-uncased"),
    "almanach": ("camembert-base",),
    "google": ("electra-small-discriminator", "electra-base-discriminator"),
    "BAAI": ("bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5", "bge-m3"),
    "intfloat": (
        *("e5-small-v2", "e5-base-v2", "e5-large-v2"),
        *("multilingual-e5-small", "multilingual-e5-base", "multilingual-e5-large"),
    ),
    "thenlper": ("gte-small", "gte-base", "gte-large"),
    "mixedbread-ai": ("mxbai-embed-large-v1",),
}
"""Well-known models that are often given without their organisation."""


ARGUMENTS: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str, os.PathLike), "a name on the hub, or the path of a folder"),
    "revision": ((str, type(None)), "a branch, a tag or a commit"),
    "token": ((str, bool, type(None)), "the text of a token, True, False or None"),
    "cache_dir": ((str, os.PathLike, type(None)), "the path of a folder"),
    "local_files_only": ((bool,), "True or False"),
}
"""The types of `locate`'s arguments, and what is expected of each, in words."""


def check_arguments(*given: object) -> None:
    """Raises TypeError or ValueError if one of `ARGUMENTS`, in their order, has a wrong type or value."""
    for (name, (types, expected)), value in zip(ARGUMENTS.items(), given, strict=True):
        if not isinstance(value, types):
            raise TypeError(f"{name}: found {type(value).__name__}, expected {expected}.")
    _, revision, token, cache_dir, _ = given
    if isinstance(revision, str) and not REVISION.fullmatch(revision):
        raise ValueError(
            f"revision: found {quoted(revision)}, expected a branch, a tag or a commit. Leave it out for the main branch."
        )
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
        # The token itself stays out of the message, which may end up in a log.
        raise ValueError(
            f"token: found a text of {len(token)} characters that is empty or holds spaces, line ends or other characters that "
            "no token has. Copy it again; leave it out to use huggingface_hub's login or HF_TOKEN."
        )
    if isinstance(cache_dir, (str, os.PathLike)) and not os.fspath(cache_dir):
        raise ValueError("cache_dir: found an empty text, expected the path of a folder. Leave it out for huggingface_hub's own.")


def full_name(model: str | os.PathLike[str]) -> str:
    """organisation/name of a model that is not a local folder.

    Raises:
        ModelNotFoundError: if it cannot be a name on the hub. A path object is never a name.
    """
    name = os.fspath(model)
    path, name = expand(name), name if "/" in name else f"{DEFAULT_ORGANISATION}/{name}"
    if os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises on a text that is too long for a path)
        raise ModelNotFoundError(f"{path}: found a file, expected the folder that holds a checkpoint, or a name on the hub.")
    if isinstance(model, os.PathLike) or not REPOSITORY_NAME.fullmatch(name):
        raise ModelNotFoundError(
            f"{quoted(os.fspath(model))}: found neither such a folder nor a valid name on the hub. "
            "Give the path of a folder that holds a checkpoint, or a name such as organisation/name. "
            "(To use a folder inside a repository, download the repository and give the path of that folder.)"
        )
    return name


def advice(name: str) -> str:
    """What to do if no place has the model of this full name."""
    organisation, _, bare = name.partition("/")
    known = [f"{owner}/{bare}" for owner, names in ORIGINALS.items() if bare.lower() in names]
    hint = f" If you mean {known[0]}, give this full name." if known and organisation == DEFAULT_ORGANISATION else ""
    others = [bundled.model for bundled in installed_models() if bundled.model.lower() != name.lower()]
    here = [other.removeprefix(f"{DEFAULT_ORGANISATION}/") for other in others]
    installed = f"\nInstalled here: {', '.join(here)}. Pass model={here[0]!r} to use it." if here else ""
    return f"Give the path of a folder that holds it, or a name that the hub has.{hint}{installed}"
