"""Weight files in every form that is read, and split into parts as transformers writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from checkpoints import write_json
from safetensors.torch import load_file, save_file
from torch import Tensor

State = Mapping[str, Tensor]


def save_zip(state: Any, path: Path) -> None:
    """As PyTorch has done it since 1.6."""
    torch.save(state, path)


def save_stream(state: Any, path: Path) -> None:
    """As PyTorch did it until 1.5."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


CONTAINERS = {"zip": save_zip, "stream": save_stream}


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder with a model.safetensors."""
    return load_file(folder / "model.safetensors")


def replace_weights(folder: Path, state: State) -> None:
    """Other tensors in model.safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"})


def relay(folder: Path, form: str, parts: int = 1, dtype: torch.dtype | None = None) -> None:
    """The weights of a folder in another form: "safetensors", "zip" or "stream", in one file or in several."""
    state = weights_of(folder)
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    (folder / "model.safetensors").unlink()
    name, ending = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    where = {}
    for part in range(parts):
        names = sorted(state)[part::parts]
        file = f"{name}.{ending}" if parts == 1 else f"{name}-{part + 1:05}-of-{parts:05}.{ending}"
        chosen = {tensor: state[tensor] for tensor in names}
        if form == "safetensors":
            save_file(chosen, folder / file, {"format": "pt"})
        else:
            CONTAINERS[form](chosen, folder / file)
        where |= dict.fromkeys(names, file)
    if parts > 1:
        total = sum(tensor.nbytes for tensor in state.values())
        write_json(folder / f"{name}.{ending}.index.json", {"metadata": {"total_size": total}, "weight_map": where})
