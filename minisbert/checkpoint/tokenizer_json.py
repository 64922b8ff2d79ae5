"""Reads a tokenizer.json, and checks that minisbert supports its model and all its steps before anything is used."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel

from minisbert.checkpoint.fields import LARGEST_JSON, brief
from minisbert.errors import CheckpointError, rust_errors

MODELS = ("WordPiece", "Unigram", "BPE")
NORMALIZERS = (
    *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Nmt", "Precompiled", "Replace"),
)
PRE_TOKENIZERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Metaspace", "ByteLevel")
PROCESSORS = ("BertProcessing", "RobertaProcessing", "TemplateProcessing")
"""The steps that a tokenizer.json may have, alone or in a Sequence. No configuration of these can take forever, as a regular
expression can, or make a text many times longer."""

PATTERNS = (" {2,}",)
"""The regular expressions that a Replace may have: several spaces, as in XLM-R."""

LONGEST_REPLACEMENT = 100
"""The most bytes that may replace one character. The longest replacement of nmt_nfkc has 33."""


def read_tokenizer_json(path: Path, file: str) -> Tokenizer:
    """Reads the tokenizer of a file.

    Raises:
        CheckpointError: if it is broken, or has a model or step that is not listed above.
    """

    def complaint(reason: str) -> CheckpointError:
        return CheckpointError(f"{file}: not a tokenizer that can be read ({reason}). Take an unchanged copy of it.")

    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise complaint(f"{size:,} bytes, expected at most {LARGEST_JSON:,}")
    with rust_errors(complaint):
        tokenizer = Tokenizer.from_file(str(path))
        kind = type(tokenizer.model).__name__
    if kind not in MODELS:
        raise CheckpointError(
            f"{file}: found a {kind} tokenizer, expected one of {', '.join(MODELS)}. "
            "Load this checkpoint with sentence-transformers."
        )
    if kind == "BPE" and tokenizer.model.dropout:
        raise CheckpointError(
            f"{file}: the model has a dropout of {tokenizer.model.dropout}, expected none: a text has the same tokens each time. "
            "Set it to null."
        )
    for field, step, allowed in (
        ("normalizer", tokenizer.normalizer, NORMALIZERS),
        ("pre_tokenizer", tokenizer.pre_tokenizer, PRE_TOKENIZERS),
        ("post_processor", tokenizer.post_processor, PROCESSORS),
    ):
        for part in parts_of(step_json(step)):
            if part["type"] not in allowed:
                raise CheckpointError(
                    f"{file}: field {field!r}: found {brief(part['type'])}, expected one of {', '.join(allowed)}. "
                    "minisbert does not run this step; load this checkpoint with sentence-transformers."
                )
            if (wrong := _costly(part)) is not None:
                raise CheckpointError(f"{file}: field {field!r}: found {wrong}. Load this checkpoint with sentence-transformers.")
    return tokenizer


def parts_of(state: Any) -> list[dict[str, Any]]:
    """A step as a list of steps: the steps of a Sequence, or the step itself."""
    if not isinstance(state, dict):
        return []
    for name in ("normalizers", "pretokenizers", "processors"):
        if name in state:
            return [part for inner in state[name] for part in parts_of(inner)]
    return [state]


def _costly(part: dict[str, Any]) -> str | None:
    """What is wrong with a step that could take forever or make a text many times longer; None if nothing is."""
    if part["type"] == "Replace":
        pattern, content = part["pattern"], part["content"]
        if "Regex" in pattern and pattern["Regex"] not in PATTERNS:
            return f"a Replace with the regular expression {brief(pattern['Regex'])}, expected a text, or one of {PATTERNS}"
        if len(content.encode()) > LONGEST_REPLACEMENT or not pattern.get("String", " "):
            return f"a Replace of {brief(pattern)} by {len(content):,} characters, expected at most {LONGEST_REPLACEMENT} for some"
    if part["type"] == "Precompiled":
        charsmap = base64.b64decode(part["precompiled_charsmap"])
        longest = max(map(len, charsmap[4 + int.from_bytes(charsmap[:4], "little") :].split(b"\0")))
        if longest > LONGEST_REPLACEMENT:
            return f"a character that becomes {longest:,} bytes, expected at most {LONGEST_REPLACEMENT}"
    return None


def step_json(step: Any) -> object:
    """The JSON value of a tokenizer's step, as in tokenizer.json."""
    return None if step is None else json.loads(step.__getstate__())


def check_unknown(tokenizer: Tokenizer, file: str) -> None:
    """Checks that every text has ids: the model needs an unknown token, or all 256 bytes."""
    unknown = unknown_token(tokenizer)
    if unknown is None and isinstance(tokenizer.model, BPE):
        missing = [byte for byte in ByteLevel.alphabet() if tokenizer.model.token_to_id(byte) is None]
        if missing:
            raise CheckpointError(
                f"{file}: {len(missing)} of the 256 bytes are missing among its {tokenizer.get_vocab_size():,} tokens, such as "
                f"{min(missing)!r}, and there is no unknown token. Take an unchanged copy of it."
            )
    elif unknown is None or tokenizer.model.token_to_id(unknown) is None:
        raise CheckpointError(
            f"{file}: the token {brief(unknown)} for unknown words is missing among its {tokenizer.get_vocab_size():,} tokens. "
            "Take an unchanged copy of it."
        )


def unknown_token(tokenizer: Tokenizer) -> str | None:
    """The unknown token of a model; None if it has none."""
    model = tokenizer.model
    if not isinstance(model, Unigram):
        return model.unk_token or None
    # A Unigram model has no such attribute, so a code point that is no character is tokenized.
    strange = next(chr(point) for point in range(0xFDD0, 0xFDF0) if model.token_to_id(chr(point)) is None)
    try:
        tokens = model.tokenize(strange)
    except Exception as error:  # the library raises bare ones
        if "unk" not in str(error).lower():
            raise
        return None
    return model.id_to_token(tokens[0].id)
