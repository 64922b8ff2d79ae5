"""Worker threads that compute on one core each, and what keeps a computation apart from the state of its caller.

Whatever a caller has set, minisbert computes in the state in which PyTorch starts. In a thread, the caller may have set inference
mode, autocast, a default device, a mode that sees every operation, or the processor's flush-to-zero. A worker does not see any of
that, so a text would get other bits here than there, or an error. `in_default_state` calls a function directly if nothing of it is
set, and in a new thread, which has PyTorch's own state, if something is.

A new thread also helps in a forked process. PyTorch computes with a pool of OpenMP threads (GNU's libgomp) that belongs to the
thread that called it. A fork copies that thread, whose memory says that it has a pool, but not the pool's threads: the next large
product waits for threads that are not there. A new thread remembers no pool and makes one.

A fork copies the locks of all libraries as they are at that moment. What another thread had locked (oneDNN and the matrix library
lock their caches for moments) stays locked in the new process, where that thread does not exist. So a fork waits until the batches
that are being computed are done, and lets none begin meanwhile. A fork of which Python is not told is found by the process id.

Workers live as long as the process and serve all encoders and all callers. Python's own pool,
`concurrent.futures.ThreadPoolExecutor`, takes nothing more from the moment the main thread ends, though other threads may go on.
These threads, their locks and queues are those of the operating system, also after gevent or eventlet has replaced Python's by its
own, which all run in one thread: a worker would never get its turn while its caller waits.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.machinery
import importlib.util
import os
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from minisbert.errors import MinisbertError

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

LONGEST_WAIT = 30.0
"""Seconds that a fork waits at most: a batch that takes longer must not keep a program from forking."""


def _original_thread_module() -> Any:
    """Python's module `_thread` as it is built in, whatever has been replaced in the one that others import."""
    spec = importlib.machinery.BuiltinImporter.find_spec("_thread")
    if spec is None or spec.loader is None:
        raise ImportError("_thread: found no such built-in module, expected that of CPython.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native = _original_thread_module()
_mine = native._local()  # of this thread: `ours`; `waiting`, the threads that wait for it; `computed`; `cut_off`, by a fork


class Task(Generic[Result]):
    """A function to be called by another thread.

    Attributes:
        done: the queue that gets this task when it has been run.
    """

    def __init__(self, function: Callable[[], Result], done: SimpleQueue[Task[Result]] | None = None) -> None:
        self._function: Callable[[], Result] | None = function
        self.done: SimpleQueue[Task[Result]] = SimpleQueue() if done is None else done
        self._dropped = self._begun = self._finished = False
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Calls the function, unless the task was dropped."""
        self._begun = True
        try:
            if not self._dropped and self._function is not None:
                self._value = self._function()
        except BaseException as error:
            self._error = error
        self._function = None  # or what it holds would stay in memory as long as the task
        self._finished = True
        self.done.put(self)

    def result(self) -> Result:
        """What the function returned; what it raised is raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # otherwise a reference cycle would keep both, and the data of the computation, alive
        return self._value

    @staticmethod
    def drop(tasks: Sequence[Task[Result]]) -> None:
        """Drops the tasks that have not begun, and waits for the others."""
        for task in tasks:
            task._dropped = True
        # An interrupt may have come just after a task was taken from the queue, so the queue is no count of what is missing.
        while any(task._begun and not task._finished for task in tasks):
            with contextlib.suppress(Empty):
                tasks[0].done.get(timeout=0.05)


# The state of the caller


def in_default_state(function: Callable[[], Result]) -> Result:
    """Calls a function that uses PyTorch as if the caller had set nothing: in a new thread if it has, or if the process was forked.

    Whether gradients are recorded is taken over from the caller. An interrupt is raised when the function has returned: let it be
    no more than one batch.
    """
    _check_process()
    if _is_default():
        return function()
    gradients, waiting = torch.is_grad_enabled(), _waiting_here()

    def work() -> None:
        _become_ours(waiting)
        with torch.set_grad_enabled(gradients):
            task.run()

    task = Task(function)
    native.start_new_thread(work, ())
    try:
        task.done.get()
    except BaseException:
        Task.drop([task])
        raise
    return task.result()


def _is_default() -> bool:
    """Whether this thread computes as a new one of this process does."""
    return (not _forked or getattr(_mine, "ours", False)) and not (
        torch.is_inference_mode_enabled()
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_function_stack()  # a default device is a mode among these
        or torch._C._len_torch_dispatch_stack()
        or _SMALLEST / 2 == 0  # the processor rounds the numbers below to zero
    )


_SMALLEST = sys.float_info.min


def apart(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorates a function that is called in the default state; see `in_default_state`."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return in_default_state(lambda: function(*args, **kwargs))

    return wrapped


def computes(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorates a function that takes no longer than a batch: it is called in the default state, and a fork waits for it."""

    @functools.wraps(function)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with computing():
            return function(*args, **kwargs)

    return apart(guarded)


def _become_ours(waiting: frozenset[int] = frozenset()) -> None:
    """For a thread that was just started."""
    _mine.ours, _mine.waiting = True, waiting
    torch.set_flush_denormal(False)  # a thread inherits it from the one that starts it
    sys.settrace(threading.gettrace())  # as `threading` does, for debuggers and coverage


def _waiting_here() -> frozenset[int]:
    """The threads that do nothing until this one is done, and this one."""
    return getattr(_mine, "waiting", frozenset()) | {native.get_ident()}


# Forks

_process = os.getpid()
_forked = False
_cut_off = False  # other threads were computing at the moment of the fork
_entry = native.RLock()  # held by a fork; reentrant, because a signal handler may encode
_inside: set[int] = set()  # the threads that are inside of a library now
_resets: list[Callable[[], None]] = []


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Around any use of a library that has locks. Any number of threads may be in it at once; a fork waits until none is.

    Nothing inside may wait for a worker, which a fork keeps from beginning.
    """
    _check_process()
    _mine.computed = True
    if _cut_off:
        raise MinisbertError(
            f"this process (id {_process}) was forked while other threads computed, and what they had locked stays locked. Fork "
            "when nothing is being encoded, tell Python of it (os.fork does), or start processes by spawn."
        )
    if _inside & _waiting_here():
        yield
        return
    thread = native.get_ident()
    try:
        with _entry:
            _inside.add(thread)
        yield
    finally:
        _inside.discard(thread)


def forked() -> bool:
    """Whether this process is a fork of one that had loaded minisbert."""
    _check_process()
    return _forked


def lost_its_threads() -> bool:
    """Whether this thread was forked after it had computed: PyTorch would wait here for threads that did not come along."""
    _check_process()
    return getattr(_mine, "cut_off", False) and torch.get_num_threads() > 1


def when_forked(reset: Callable[[], None]) -> Callable[[], None]:
    """Registers a function that a forked process calls before it uses anything else of minisbert."""
    _resets.append(reset)
    return reset


def _check_process() -> None:
    if os.getpid() != _process:  # forked by a library, such as a web server's, that does not tell Python
        _after_in_child()


def _before() -> None:
    _entry.acquire()
    end = time.monotonic() + LONGEST_WAIT
    pause = native.allocate_lock()
    pause.acquire()
    while _inside - _waiting_here() and time.monotonic() < end:
        pause.acquire(True, 0.001)


def _after_in_parent() -> None:
    _entry.release()


def _after_in_child() -> None:
    global _process, _forked, _cut_off, _entry, _inside  # noqa: PLW0603 (it is about the process as a whole)
    _process, _forked = os.getpid(), True
    _cut_off = bool(_inside - _waiting_here())
    _mine.cut_off = getattr(_mine, "computed", False)
    _entry = native.RLock()
    _inside = _inside & _waiting_here()
    for reset in _resets:
        reset()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

# Workers

_workers: dict[int, Workers] = {}
_starting = native.RLock()


class Workers:
    """A fixed number of threads, each of which computes on one core."""

    def __init__(self, threads: int) -> None:
        self._waiting: SimpleQueue[Task[Any]] = SimpleQueue()
        self._threads = threads
        self._ending = False
        self._alive: set[int] = set()
        started: SimpleQueue[None] = SimpleQueue()
        try:
            for _ in range(threads):
                native.start_new_thread(self._work, (started,))
            for _ in range(threads):
                started.get()
        finally:
            # What a worker sets for itself is also the default of threads that others start later: it is put back at once.
            torch.set_num_threads(threads)

    def submit(self, task: Task[Any]) -> None:
        """Has a task run by the next worker that is free.

        Raises:
            TypeError: if it is no `Task`. It would end the worker, and the next caller would wait for ever.
        """
        if not isinstance(task, Task):
            raise TypeError(f"task: found {type(task).__name__}, expected a Task. Take Workers.call for a function.")
        if not self._ending or threading.current_thread() is threading.main_thread():
            self._waiting.put(task)

    def call(self, function: Callable[[], Result]) -> Result:
        """Has a worker call a function, and waits for it."""
        task = Task(function)
        self.submit(task)
        return task.done.get().result()

    def end(self) -> None:
        """Waits until all workers are idle and keeps them idle, except for tasks of the main thread.

        Python ends next, and a thread that is in PyTorch then brings the program down with an error. By now only daemons can have
        asked for something. They will not get it, and end while they wait.
        """
        self._ending = True
        with contextlib.suppress(Empty):
            while True:
                self._waiting.get_nowait()
        idle: SimpleQueue[None] = SimpleQueue()
        leave: SimpleQueue[None] = SimpleQueue()

        def stay() -> None:  # so that each worker takes one of these
            idle.put(None)
            leave.get()

        for _ in range(self._threads):
            self._waiting.put(Task(stay))
        for _ in range(self._threads):
            idle.get()
        for _ in range(self._threads):
            leave.put(None)

    def _work(self, started: SimpleQueue[None]) -> None:
        # A thread takes PyTorch's default at the first question that it asks, and would forget then what was set before.
        torch.get_num_threads()
        torch.set_num_threads(1)
        _become_ours()
        self._alive.add(native.get_ident())
        started.put(None)
        try:
            while True:
                task = self._waiting.get()
                task.run()
                del task  # or the last batch would stay in memory until the next one comes
        finally:
            self._alive.discard(native.get_ident())

    @property
    def alive(self) -> bool:
        """Whether all threads are there: something may have ended one, and a caller must not wait for it for ever."""
        return len(self._alive) == self._threads


def workers(threads: int) -> Workers:
    """That many workers; made at the first call."""
    _check_process()
    with _starting:
        if threads not in _workers or not _workers[threads].alive:
            _workers[threads] = Workers(threads)
        return _workers[threads]


def on_one_core(function: Callable[[], Result]) -> Result:
    """Calls a function as a worker does: here where there is one thread, else in a worker."""
    threads = torch.get_num_threads()
    return function() if threads == 1 else workers(threads).call(function)


@when_forked
def _forget() -> None:
    """The workers did not come along."""
    global _starting  # noqa: PLW0603 (it may have been held at the moment of the fork)
    _starting = native.RLock()
    _workers.clear()


def _end() -> None:
    _check_process()
    for some in _workers.values():
        some.end()


atexit.register(_end)
