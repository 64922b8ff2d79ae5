"""What a user may give to `load` as a name, a revision, a token or a cache, and the error for anything else."""

from __future__ import annotations

import os
import re

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
        "e5-small-v2",
        "e5-base-v2",
        "e5-large-v2",
        "multilingual-e5-small",
        "multilingual-e5-base",
        "multilingual-e5-large",
    ),
    "thenlper": ("gte-small", "gte-base", "gte-large"),
    "mixedbread-ai": ("mxbai-embed-large-v1",),
}
"""Well-known models that are often given without their organisation."""


def check_arguments(model: object, revision: object, token: object, cache_dir: object, local_files_only: object) -> None:
    """Raises TypeError or ValueError if an argument of `locate` cannot be what it should be."""
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
            f"revision: found {brief(revision)}, expected a branch, a tag or a commit. Leave it out for the main branch."
        )
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
        # The token itself stays out of the message, which may end up in a log.
        raise ValueError(
            f"token: found a text of {len(token)} characters that is empty or holds spaces, line ends or other characters that "
            "no token has. Copy it anew; leave it out to use huggingface_hub's login or HF_TOKEN."
        )
    if cache_dir is not None and not os.fspath(cache_dir):
        raise ValueError("cache_dir: found an empty text, expected the path of a folder. Leave it out for huggingface_hub's own.")


def brief(text: str, most: int = 100) -> str:
    """A text as it stands in an error message."""
    return repr(text if len(text) <= most else text[:most] + "…")


def full_name_hint(model: str) -> str:
    """The hint for a bare name that is a well-known model of another organisation."""
    organisation, _, name = model.partition("/")
    if organisation != DEFAULT_ORGANISATION:
        return ""
    full = next((f"{owner}/{name}" for owner, names in ORIGINALS.items() if name.lower() in names), None)
    return f" If you mean {full}, give this full name." if full else ""
