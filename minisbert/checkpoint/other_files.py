"""Files in other formats that a checkpoint may have, and how to get weights that load from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from minisbert.errors import CheckpointError

_MADE_FROM = "Load the model that it was made from; the model card names it."

OTHER_FORMS = (
    (r"adapter_(config\.json|model\.(safetensors|bin))", "an adapter", "Merge it with its base model: peft's merge_and_unload."),
    (
        r"(model|pytorch_model)\.(?!index\.)[\w-]+\.(safetensors|bin)",
        "weights of a variant",
        "Rename the file to {plain} in a folder of your own, and load that folder.",
    ),
    (r"tf_model.*\.h5", "weights of TensorFlow", "Convert them with transformers 4: AutoModel.from_pretrained(…, from_tf=True)."),
    (
        r"flax_model.*\.msgpack",
        "weights of Flax",
        "Convert them with transformers 4: AutoModel.from_pretrained(…, from_flax=True).",
    ),
    (r".*\.onnx", "ONNX", _MADE_FROM),
    (r"openvino_.*\.(xml|bin)", "OpenVINO", _MADE_FROM),
    (r".*\.gguf", "GGUF", _MADE_FROM),
)
"""A file's name, what it is, and what to do. The message names the first one that is found."""


def advice(names: Iterable[str], folder: str = "") -> str:
    """A sentence on the files that are there instead, and what to do with them; "" if there are none that are known.

    Args:
        names: the files of a checkpoint, by their paths in it.
        folder: that of the module whose files are missing.
    """
    paths = [path for path in map(PurePosixPath, sorted(names)) if path.is_relative_to(folder)]
    for pattern, what, remedy in OTHER_FORMS:
        found = [path for path in paths if re.fullmatch(pattern, path.name)]
        if found:
            plain = re.sub(r"\.[\w-]+\.", ".", found[0].name)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return f"Found {what} instead ({found[0]}{more}). {remedy.format(plain=plain)}"
    return ""


def refuse_pointer(path: Path, file: str) -> None:
    """Refuses a file that holds a note of Git LFS in place of its content, as a clone without Git LFS has it."""
    try:
        with path.open("rb") as opened:
            head = opened.read(64)
    except OSError:
        return  # its reader says so
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{file}: found a pointer of Git LFS, expected the content that it points to. Run `git lfs pull` in the clone, or "
            "download the model with huggingface_hub."
        )
