"""The training loop: batches, AdamW with a warm-up, evaluation, and states from which a run resumes bit for bit."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from minisbert.checkpoint.cache import absolute
from minisbert.checkpoint.replace import check_replaceable
from minisbert.encoder import SentenceEncoder
from minisbert.errors import MinisbertWarning, NotFiniteError, warn
from minisbert.inference.engine import count_prompt_tokens
from minisbert.inference.inputs import choose_prompt, count, flag
from minisbert.inference.stream import on_terminal, progress_bar, too_long
from minisbert.inference.threads import computes, in_default_state
from minisbert.train.data import Examples, ExamplesLike, as_examples, batches
from minisbert.train.embedding import recomputing, trainable, vectors
from minisbert.train.history import Evaluation, History, Step
from minisbert.train.losses import Loss
from minisbert.train.state import SavedState, alone, named_weights, state_file, write_state

Evaluate: TypeAlias = Callable[[SentenceEncoder], float | Mapping[str, float]]
"""The encoder → a number, or numbers by name whose first one decides; larger is better."""


def fit(
    encoder: SentenceEncoder,
    examples: ExamplesLike,
    *,
    loss: nn.Module,
    epochs: int = 1,
    batch_size: int = 16,
    learning_rate: float = 2e-5,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    max_grad_norm: float | None = 1.0,
    seed: int = 0,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    save_to: str | os.PathLike[str] | None = None,
    save_every: int | None = None,
    gradient_accumulation: int = 1,
    precision: torch.dtype | None = None,
    no_duplicates: bool = False,
    gradient_checkpointing: bool = False,
    show_progress_bar: bool | None = None,
) -> History:
    """Trains the encoder, in place.

    All columns of a batch go through the model together, packed without padding. The optimizer is AdamW (Loshchilov & Hutter 2019)
    with a linear warm-up and a linear decay to 0; biases and norms have no weight decay. Each step has its own random seed. So on
    one machine, the same call gives the same weights, bit for bit, even if it was interrupted and started again.

    Args:
        encoder: the model, in float32 or float64. Afterwards it has the best weights if `evaluate` is given, else the last ones.
        examples: rows such as ("a text", "another", 0.8), columns by name, or what `read_examples` gives.
        loss: one of `minisbert.train.losses`, or any module with the same interface. Its own parameters are trained too.
        epochs: the number of passes over the data.
        batch_size: the number of rows in a batch.
        learning_rate: the largest learning rate, at the end of the warm-up.
        warmup: the fraction of the steps in which the learning rate rises from 0.
        weight_decay: that of AdamW.
        max_grad_norm: the gradient of all parameters together is clipped to this norm; None: no clipping.
        seed: the seed for the order of the rows and for dropout.
        evaluate: called with the encoder, such as an evaluator of `minisbert.train.evaluate`; larger is better.
        evaluate_every: the number of steps between evaluations. Default: one after each epoch.
        save_to: the folder that the model is saved to: after each evaluation that is better than all before; without `evaluate`, at
            the end. The folder `<save_to>.training` keeps the state of the run, from which the same call resumes.
        save_every: the number of steps after which this state is written. Default: after each epoch, and on Ctrl-C.
        gradient_accumulation: the number of batches in one step. In-batch negatives come from one batch only.
        precision: torch.bfloat16 computes products in this dtype, with unchanged weights. Default: the encoder's own dtype.
        no_duplicates: no text occurs twice in a batch; for losses with in-batch negatives.
        gradient_checkpointing: compute each layer again in the backward pass, instead of keeping its activations.
        show_progress_bar: whether to show a progress bar on stderr. Default: on a terminal.

    Returns:
        The history of all steps and evaluations. Its `save_svg` draws it.

    Raises:
        TypeError, ValueError: for a wrong option or wrong data; a row is named by its index.
        NotFiniteError: if a loss or a gradient is NaN or infinite. The last state and the best model stay on the disk.
        CheckpointError: if `<save_to>.training` holds the state of another run, or a run is writing there now.
        FileExistsError: if `save_to` holds anything but a checkpoint.

    Source: Reimers & Gurevych 2019, section 3.1, for the defaults.
    """
    data = in_default_state(lambda: as_examples(examples))
    options = _Options(
        epochs=count("epochs", epochs, optional=False),
        batch_size=count("batch_size", batch_size, optional=False),
        learning_rate=_number("learning_rate", learning_rate),
        warmup=_number("warmup", warmup, most=1),
        weight_decay=_number("weight_decay", weight_decay),
        max_grad_norm=math.inf if max_grad_norm is None else _number("max_grad_norm", max_grad_norm),
        seed=seed if isinstance(seed, int) else count("seed", seed, optional=False),
        gradient_accumulation=count("gradient_accumulation", gradient_accumulation, optional=False),
        precision=precision,
        no_duplicates=flag("no_duplicates", no_duplicates),
        gradient_checkpointing=flag("gradient_checkpointing", gradient_checkpointing),
    )
    if encoder.checkpoint.quantize:
        raise ValueError(f"encoder: found {encoder.checkpoint.quantize} weights, expected float ones. Load without quantize.")
    if encoder.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"encoder: found weights of {encoder.dtype}, expected torch.float32. Load with dtype=torch.float32.")
    if precision not in (None, torch.bfloat16):
        raise ValueError(f"precision: found {precision!r}, expected torch.bfloat16 or None.")
    if isinstance(loss, Loss):
        loss.check(len(data.columns), data.labels)
    for name, value in ("evaluate_every", evaluate_every), ("save_every", save_every):
        if value is not None:
            count(name, value)
    folder = None if save_to is None else absolute(save_to)
    if folder is not None:
        check_replaceable(folder)
    arguments = encoder, loss, data, options, evaluate, evaluate_every, folder, save_every, show_progress_bar
    with nullcontext() if folder is None else alone(state_file(folder)):
        return in_default_state(lambda: _Run(*arguments)).run()


@dataclass(frozen=True)
class _Options:
    """The options that determine the weights, besides the data and the model."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    gradient_accumulation: int
    precision: torch.dtype | None
    no_duplicates: bool
    gradient_checkpointing: bool


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        loss: nn.Module,
        data: Examples,
        options: _Options,
        evaluate: Evaluate | None,
        evaluate_every: int | None,
        folder: Path | None,
        save_every: int | None,
        show_progress_bar: bool | None,  # noqa: FBT001 (an option handed on)
    ) -> None:
        self.encoder, self.options, self.evaluate, self.folder = encoder, options, evaluate, folder
        self.show_progress_bar = show_progress_bar
        self.state = None if folder is None else state_file(folder)
        self.loss = loss.to(encoder.device, encoder.vector_dtype).train()
        self.weights: dict[str, nn.Parameter] = {}
        self.best_weights: dict[str, Tensor] | None = None
        self.labels = data.labels
        prompt = choose_prompt(encoder.prompts, encoder.default_prompt_name, None, None)
        self.prompt_tokens = count_prompt_tokens(encoder.tokenizer, encoder.pooling, prompt)
        self.ids = [_tokenized(encoder, column, prompt) for column in data.columns]
        self.history = History()
        lengths = [sum(len(column[row]) for column in self.ids) for row in range(len(data))]
        keys = list(zip(*data.columns, strict=True)) if options.no_duplicates else None
        self.steps: list[tuple[int, list[list[int]]]] = []  # of each step, its epoch and its batches of rows
        ends = set()
        for epoch in range(options.epochs):
            some = batches(lengths, options.batch_size, options.seed, epoch, keys)
            self.steps += [(epoch, step) for step in _chunks(some, options.gradient_accumulation)]
            ends.add(len(self.steps))
        last = len(self.steps)
        self.evaluate_at = ends if evaluate_every is None else {*range(evaluate_every, last, evaluate_every), last}
        self.save_at = ends if save_every is None else set(range(save_every, last, save_every))
        self.settings = {
            "data": data.digest(),
            "loss": f"{type(loss).__name__} {[value for value in vars(loss).values() if isinstance(value, (int, float, dict))]}",
            "model": encoder.model,
            **{name: str(value) for name, value in vars(options).items()},
            "evaluate_at": sorted(self.evaluate_at) if evaluate is not None else [],
        }

    def run(self) -> History:
        """Takes all steps that are left."""
        last = len(self.steps)
        with ExitStack() as stack:
            stack.enter_context(trainable(self.encoder))
            devices = [self.encoder.device] if self.encoder.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stop = stack.enter_context(_interruptible())
            self.weights = dict(named_weights(bert=self.encoder.bert, modules=self.encoder.modules, loss=self.loss))
            optimizer = optimizer_for(self.weights, self.options.weight_decay)
            done = self._resume(optimizer)
            bar = stack.enter_context(_Bar(self.show_progress_bar, done, last))
            for number in range(done + 1, last + 1):
                self.history.steps.append(self._step(number, optimizer))
                bar.update(self.history)
                if self.evaluate is not None and number in self.evaluate_at:
                    self._evaluate(self.evaluate, number)
                if self.state is not None and number < last and (number in self.save_at or stop.is_set()):
                    write_state(self.state, self.weights, optimizer, number, self.history, self.settings)
                if stop.is_set() and number < last:
                    raise KeyboardInterrupt(f"stopped after step {number} of {last}")
            if self.folder is not None and self.evaluate is None and done < last:
                self.encoder.save(self.folder)
            if self.best_weights is not None or (self.folder is not None and (self.evaluate is not None or done == last)):
                self._take_best()
        if self.state is not None:
            write_state(self.state, {}, None, last, self.history, self.settings)
        return self.history

    @computes
    @torch.enable_grad()
    def _step(self, number: int, optimizer: torch.optim.Optimizer) -> Step:
        """Takes one step: the forward and the backward pass of each batch, then AdamW."""
        start = time.perf_counter()
        options = self.options
        epoch, some = self.steps[number - 1]
        rate = options.learning_rate * learning_rate_factor(
            number - 1, len(self.steps), math.ceil(options.warmup * len(self.steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(1_000_003 * options.seed + number)  # for dropout
        self.encoder.bert.train()
        total, tokens = 0.0, 0
        for rows in some:
            with recomputing(self.encoder) if options.gradient_checkpointing else nullcontext():
                value = self._loss(rows) / len(some)
                if not value.isfinite():
                    raise NotFiniteError(self._where(number, epoch, rows, f"found a loss of {value.item()}"))
                value.backward()
            total += value.item()
            tokens += sum(len(column[row]) for column in self.ids for row in rows)
        norm = float(nn.utils.clip_grad_norm_(self.weights.values(), options.max_grad_norm))
        if not math.isfinite(norm):
            raise NotFiniteError(
                self._where(number, epoch, [row for rows in some for row in rows], f"found a gradient of norm {norm}")
            )
        optimizer.step()
        optimizer.zero_grad()
        return Step(number, total, rate, norm, tokens, time.perf_counter() - start)

    def _loss(self, rows: list[int]) -> Tensor:
        """The loss of one batch: all columns in one packed pass, then each column's own vectors."""
        ids = [column[row] for column in self.ids for row in rows]
        device = self.encoder.device
        with torch.autocast(device.type, self.options.precision) if self.options.precision else nullcontext():
            embeddings = vectors(self.encoder, ids, self.prompt_tokens)  # [columns × rows, dim]
        labels = None if self.labels is None else self.labels[rows].to(device)
        return self.loss(list(embeddings.split(len(rows))), labels)

    def _where(self, number: int, epoch: int, rows: list[int], found: str) -> str:
        some = ", ".join(map(str, rows[:8])) + (" …" if len(rows) > 8 else "")
        return (
            f"step {number} (epoch {epoch + 1}, rows {some}): {found}, expected a finite number. The weights are those of step "
            f"{number - 1}. Look at these rows, or take a lower learning_rate."
        )

    def _evaluate(self, evaluate: Evaluate, number: int) -> None:
        """Calls `evaluate`, and keeps the weights if they are the best so far."""
        self.encoder.bert.eval()
        found = evaluate(self.encoder)
        measures = dict(found) if isinstance(found, Mapping) else {"evaluate": found}
        evaluation = Evaluation(number, {name: float(value) for name, value in measures.items()})
        self.history.evaluations.append(evaluation)
        if self.history.best is evaluation:
            if self.folder is not None:
                self.encoder.save(self.folder)
            else:
                self.best_weights = in_default_state(
                    lambda: {name: weight.detach().clone() for name, weight in self.weights.items()}
                )

    def _take_best(self) -> None:
        """Loads the best weights into the encoder: those kept in memory, or those of the saved model."""
        kept = self.best_weights
        if kept is None:
            import minisbert

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MinisbertWarning)  # they were given when this encoder was loaded
                best = minisbert.load(self.folder or "", device=self.encoder.device, dtype=self.encoder.dtype)
            kept = dict(named_weights(bert=best.bert, modules=best.modules))
        with torch.no_grad():
            for name, weight in kept.items():
                self.weights[name].copy_(weight)

    @computes
    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Restores the state of an earlier call, and returns the number of steps that it took."""
        if self.state is None or not self.state.exists():
            return 0
        saved = SavedState(self.state)
        saved.check(self.settings)
        self.history = saved.history
        if not saved.finished:
            saved.restore(self.weights, optimizer)
        return saved.step


def optimizer_for(weights: Mapping[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW without weight decay for biases and the weights of norms, as usual."""
    decayed = [weight for name, weight in weights.items() if weight.dim() > 1 and "bias" not in name]
    others = [weight for name, weight in weights.items() if weight.dim() <= 1 or "bias" in name]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights.values())
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=fused)


def learning_rate_factor(done: int, steps: int, warmup_steps: int) -> float:
    """The factor of the learning rate: a linear warm-up from 0, then a linear decay to 0. The first step of a warm-up has 0.

    >>> [learning_rate_factor(done, steps=6, warmup_steps=2) for done in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if done < warmup_steps:
        return done / warmup_steps
    return (steps - done) / max(1, steps - warmup_steps)


def _tokenized(encoder: SentenceEncoder, column: list[str], prompt: str) -> list[Tensor]:
    """The token ids of each text, [length] each, special tokens included, as views of one tensor for each 1,024 texts."""
    ids: list[Tensor] = []
    cut = 0
    for some in _chunks(column, 1024):
        tokenized = encoder.tokenizer([prompt + text for text in some])
        cut += len(tokenized.cut)
        lengths = [len(row) for row in tokenized.ids]
        ids.extend(torch.tensor([piece for row in tokenized.ids for piece in row], dtype=torch.int32).split(lengths))
    if cut:
        warn(f"{too_long(cut, len(column), encoder.max_seq_length)}.")
    return ids


def _chunks(items: Sequence[Any], size: int) -> Iterator[Any]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _number(name: str, value: object, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: found {type(value).__name__}, expected a number.")
    if not 0 <= value <= most or math.isinf(value):
        raise ValueError(f"{name}: found {value}, expected {'0 to 1' if most == 1 else 'a finite number from 0 up'}.")
    return float(value)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the current step is finished. A second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: Any) -> None:
        if stop.is_set() and callable(before):
            before(number, frame)
        stop.set()

    if before is signal.SIG_IGN or before is None:
        yield stop
        return
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class _Bar:
    """A progress bar with loss, learning rate, tokens a second and the last evaluation, on stderr."""

    def __init__(self, shown: bool | None, done: int, steps: int) -> None:  # noqa: FBT001 (an option handed on)
        shown = on_terminal() if shown is None else shown
        self.bar = progress_bar(total=steps, initial=done, unit="step", desc="train") if shown else None

    def update(self, history: History) -> None:
        """Advances the bar by one step."""
        if self.bar is None:
            return
        recent = history.steps[-20:]
        speed = sum(step.tokens for step in recent) / sum(step.seconds for step in recent)
        text = f"loss {recent[-1].loss:.4f}, rate {recent[-1].learning_rate:.1e}, {speed:,.0f} tokens/s"
        if history.evaluations:
            text += f", {next(iter(history.evaluations[-1].measures))} {history.evaluations[-1].value:.4f}"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
