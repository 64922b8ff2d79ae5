"""The state of a training run in one file, from which a killed run resumes.

The folder `<save_to>.training` holds `state.safetensors`: the weights, AdamW's moments, and, in the file's metadata, the step, the
history, and the settings of the run. It holds no state of random numbers, because every step and every epoch has its own seed. A
new state is written to a temporary file, which then replaces the old one in one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minisbert.checkpoint.save import write_safetensors
from minisbert.errors import CheckpointError
from minisbert.files.writing import written_whole
from minisbert.train.history import Evaluation, History, Step

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What `torch.optim.AdamW` keeps of each parameter."""


def state_file(save_to: Path) -> Path:
    """The state of the run whose model goes to this folder."""
    return save_to.with_name(save_to.name + ".training") / "state.safetensors"


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Makes the folder of a state, and locks it for this run. The lock ends with the process.

    Removes unfinished files of killed runs. Without file locks, as on Windows, no run is refused.

    Raises:
        CheckpointError: if another run works there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if os.name == "posix":
            import fcntl

            folder = os.open(file.parent, os.O_RDONLY)
            stack.callback(os.close, folder)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(
                    f"save_to: another run writes to {str(file.parent)!r} now. Wait until it is done, or name another folder."
                ) from error
            except OSError:  # a file system without locks
                pass
        for unfinished in file.parent.glob(".minisbert-*"):
            unfinished.unlink()
        yield


def write_state(
    file: Path,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
    step: int,
    history: History,
    settings: Mapping[str, Any],
) -> None:
    """Writes the state after `step` steps. If the machine stops at any time, either the old state or the new one is complete.

    At the end of a run, `optimizer` is None, because the weights are in the model's own folder, and only the history is kept.

    Raises:
        CheckpointError: if a weight is not finite; the old state stays.
        FileExistsError: if the file there is not a state.
    """
    about = {"step": step, "finished": optimizer is None, "settings": dict(settings), "history": asdict(history)}
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise CheckpointError(f"{name}: found NaN or infinity after step {step}, expected finite weights. Nothing is written.")
        tensors[f"weight.{name}"] = weight
        if optimizer is not None:
            moments = optimizer.state.get(weight, {}).items()
            tensors |= {f"{moment}.{name}": value for moment, value in moments if moment in MOMENTS}
    with written_whole(file, _is_state) as new:
        write_safetensors(tensors, new, {"about": json.dumps(about)})
        with new.open("rb") as written:
            os.fsync(written.fileno())


def _is_state(head: bytes) -> bool:
    return head[8:].startswith(b'{"__metadata__":{"format":"pt","about":')


class SavedState:
    """A state that an earlier call left.

    Attributes:
        step: the number of steps taken.
        finished: whether these are all steps.
        settings: the settings of the run.
        history: the history of these steps.
    """

    def __init__(self, file: Path) -> None:
        """
        Raises:
            CheckpointError: if the file is broken.
        """
        self.file = file
        with self._opened() as opened:
            about = json.loads((opened.metadata() or {})["about"])
        self.step: int = about["step"]
        self.finished: bool = about["finished"]
        self.settings: dict[str, Any] = about["settings"]
        kept = about["history"]
        evaluations = [Evaluation(**each) for each in kept["evaluations"]]
        self.history = History([Step(**each) for each in kept["steps"]], evaluations)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compares the settings of the run with those of this call.

        Raises:
            CheckpointError: if a setting differs; names it with both values.
        """
        differing = [
            f"{name} {self.settings.get(name)!r:.40}, now {settings.get(name)!r:.40}"
            for name in settings | self.settings.keys()
            if self.settings.get(name) != settings.get(name)
        ]
        if differing:
            raise CheckpointError(
                f"{self.file.parent}: found the state of a run with {'; '.join(differing)}. To resume it, use the same settings; "
                "to start a new run, delete that folder or choose another save_to."
            )

    def restore(self, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Restores weights and moments."""
        with torch.no_grad(), self._opened() as opened:
            there = set(opened.keys())
            for name, weight in weights.items():
                weight.copy_(opened.get_tensor(f"weight.{name}"))
                moments = [moment for moment in MOMENTS if f"{moment}.{name}" in there]
                values = {moment: opened.get_tensor(f"{moment}.{name}").to(weight.device) for moment in moments}
                # AdamW's fused loop ignores strides, so moments need the memory layout of their weight, which may be transposed.
                optimizer.state[weight] = {
                    moment: torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
                    for moment, value in values.items()
                }

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with safe_open(self.file, "pt") as opened:
                yield opened
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.file}: cannot be read ({error}). Delete its folder to start a new run.") from error


def named_weights(**parts: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter of several modules, once, with the part's name before its own."""
    seen: set[int] = set()
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{part}.{name}", parameter
