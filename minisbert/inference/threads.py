"""Worker threads that compute on one core each, isolation from the caller's PyTorch state, and safety at forks.

**State.** minisbert always computes in PyTorch's initial state. A caller may have set inference mode, autocast, a default device, a
dispatch mode, or flush-to-zero, which hold for its thread only. Worker threads do not have these settings, so bits would differ, or
an error would occur. `in_default_state` calls a function directly if nothing is set, and otherwise in a new thread.

**Forks and OpenMP.** PyTorch computes with a pool of OpenMP threads (GNU's libgomp), which belongs to the calling thread. A fork
copies the calling thread, but not the pool's threads, so its next large product would wait for them forever. A new thread has no
pool yet, and starts one.

**Forks and locks.** A fork copies the locks of all libraries in their current state. A lock that another thread holds at that
moment stays locked in the new process, where that thread does not exist. oneDNN and the matrix library lock their caches briefly.
So a fork waits until the current batches are done, and no batch starts meanwhile. If Python is not notified of a fork, the process
id reveals it.

**Workers.** They live as long as the process, and serve all encoders and callers. `concurrent.futures.ThreadPoolExecutor` is not
used, because it accepts no tasks after the main thread has ended, when other threads may still run. Threads, locks and queues are
the operating system's, even if gevent or eventlet has replaced Python's. The replacements all run in one thread, so a worker could
not run while its caller waits.
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
"""The most seconds that a fork waits for batches to end."""


def _original_thread_module() -> Any:
    """A fresh copy of the built-in module `_thread`, without the replacements of gevent or eventlet."""
    spec = importlib.machinery.BuiltinImporter.find_spec("_thread")
    if spec is None or spec.loader is None:
        raise ImportError("_thread: found no such built-in module, expected that of CPython.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native = _original_thread_module()
_mine = native._local()  # of this thread: `ours`; `waiting`, the threads that wait for it; `computed`; `cut_off`, by a fork


class Task(Generic[Result]):
    """A function that another thread calls.

    Attributes:
        done: the queue that this task is put into after it has run.
    """

    def __init__(self, function: Callable[[], Result], done: SimpleQueue[Task[Result]] | None = None) -> None:
        self._function: Callable[[], Result] | None = function
        self.done: SimpleQueue[Task[Result]] = SimpleQueue() if done is None else done
        self._dropped = self._begun = self._finished = False
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Calls the function, unless the task was dropped, and stores its result or error."""
        self._begun = True
        try:
            if not self._dropped and self._function is not None:
                self._value = self._function()
        except BaseException as error:
            self._error = error
        self._function = None  # otherwise the task would keep the function's data in memory
        self._finished = True
        self.done.put(self)

    def result(self) -> Result:
        """Returns what the function returned, or raises what it raised."""
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
        # The tasks are asked, and not counted by the queue, because an interrupt may have come just after one was taken from it.
        while any(task._begun and not task._finished for task in tasks):
            with contextlib.suppress(Empty):
                tasks[0].done.get(timeout=0.05)


# The state of the caller


def in_default_state(function: Callable[[], Result]) -> Result:
    """Calls a function in PyTorch's default state: in a new thread if the caller has changed it, or if the process was forked.

    Only the caller's setting for gradients is kept. An interrupt is raised after the function has returned, so it should take no
    longer than one batch.
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
    """Whether this thread's PyTorch state is the same as that of a new thread."""
    return (not _forked or getattr(_mine, "ours", False)) and not (
        torch.is_inference_mode_enabled()
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_function_stack()  # a default device is a mode among these
        or torch._C._len_torch_dispatch_stack()
        or _SMALLEST / 2 == 0  # flush-to-zero
    )


_SMALLEST = sys.float_info.min


def apart(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorates a function, so that it is called by `in_default_state`."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return in_default_state(lambda: function(*args, **kwargs))

    return wrapped


def computes(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorates a function that takes no longer than a batch: `in_default_state` calls it, and a fork waits for its end."""

    @functools.wraps(function)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with computing():
            return function(*args, **kwargs)

    return apart(guarded)


def _become_ours(waiting: frozenset[int] = frozenset()) -> None:
    """Sets up a thread that was just started."""
    _mine.ours, _mine.waiting = True, waiting
    torch.set_flush_denormal(False)  # a thread inherits it from the one that starts it
    sys.settrace(threading.gettrace())  # as `threading` does, for debuggers and coverage


def _waiting_here() -> frozenset[int]:
    """The ids of this thread and of the threads that wait for it."""
    return getattr(_mine, "waiting", frozenset()) | {native.get_ident()}


# Forks

_process = os.getpid()
_forked = False
_cut_off = False  # other threads were computing at the moment of the fork
_entry = native.RLock()  # held by a fork; reentrant, because a signal handler may encode
_inside: set[int] = set()  # the threads that are inside `computing` now
_resets: list[Callable[[], None]] = []


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Wraps every use of a library that has locks. Any number of threads may be inside; a fork waits until none is.

    Code inside must not wait for a worker, because a waiting fork lets no worker begin.
    """
    _check_process()
    _mine.computed = True
    if _cut_off:
        raise MinisbertError(
            f"this process (id {_process}) was forked while other threads computed, so their locks stay locked here. Fork when "
            "nothing is being encoded, fork with os.fork, which Python notices, or start processes by spawn."
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
    """Whether this process was forked after minisbert was imported."""
    _check_process()
    return _forked


def lost_its_threads() -> bool:
    """Whether this thread was forked after it had computed, so that PyTorch would wait forever for the OpenMP threads it had."""
    _check_process()
    return getattr(_mine, "cut_off", False) and torch.get_num_threads() > 1


def when_forked(reset: Callable[[], None]) -> Callable[[], None]:
    """Registers a function that a forked process calls before it uses minisbert."""
    _resets.append(reset)
    return reset


def _check_process() -> None:
    if os.getpid() != _process:  # forked by a library that does not notify Python, such as that of a web server
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
            # A worker's setting also becomes the default of threads that start later, so the default is restored at once.
            torch.set_num_threads(threads)

    def submit(self, task: Task[Any]) -> None:
        """Queues a task for the next free worker.

        Raises:
            TypeError: if it is not a `Task`, which would end the worker, so that the next caller would wait forever.
        """
        if not isinstance(task, Task):
            raise TypeError(f"task: found {type(task).__name__}, expected a Task. Take Workers.call for a function.")
        if not self._ending or threading.current_thread() is threading.main_thread():
            self._waiting.put(task)

    def call(self, function: Callable[[], Result]) -> Result:
        """Lets a worker call a function, and waits for the result."""
        task = Task(function)
        self.submit(task)
        return task.done.get().result()

    def end(self) -> None:
        """Waits until all workers are idle. From then on, only tasks of the main thread are run.

        It is called before Python ends, because a thread that is still in PyTorch then would crash the program. Tasks of daemon
        threads, which are the only other ones left, are dropped.
        """
        self._ending = True
        with contextlib.suppress(Empty):
            while True:
                self._waiting.get_nowait()
        idle: SimpleQueue[None] = SimpleQueue()
        leave: SimpleQueue[None] = SimpleQueue()

        def stay() -> None:  # keeps a worker busy, so that each worker takes one of these tasks
            idle.put(None)
            leave.get()

        for _ in range(self._threads):
            self._waiting.put(Task(stay))
        for _ in range(self._threads):
            idle.get()
        for _ in range(self._threads):
            leave.put(None)

    def _work(self, started: SimpleQueue[None]) -> None:
        # The first call in a thread sets PyTorch's default number of threads, and would overwrite an earlier setting.
        torch.get_num_threads()
        torch.set_num_threads(1)
        _become_ours()
        self._alive.add(native.get_ident())
        started.put(None)
        try:
            while True:
                task = self._waiting.get()
                task.run()
                del task  # otherwise the last batch would stay in memory until the next task
        finally:
            self._alive.discard(native.get_ident())

    @property
    def alive(self) -> bool:
        """Whether all threads still run; a caller would wait forever for one that has ended."""
        return len(self._alive) == self._threads


def workers(threads: int) -> Workers:
    """The `Workers` with this number of threads, started at the first call."""
    _check_process()
    with _starting:
        if threads not in _workers or not _workers[threads].alive:
            _workers[threads] = Workers(threads)
        return _workers[threads]


def on_one_core(function: Callable[[], Result]) -> Result:
    """Calls a function on one core: in a worker, or directly if PyTorch uses one thread anyway."""
    threads = torch.get_num_threads()
    return function() if threads == 1 else workers(threads).call(function)


@when_forked
def _forget() -> None:
    """Forgets the workers after a fork, which does not copy threads."""
    global _starting  # noqa: PLW0603 (it may have been held at the moment of the fork)
    _starting = native.RLock()
    _workers.clear()


def _end() -> None:
    _check_process()
    for some in _workers.values():
        some.end()


atexit.register(_end)
