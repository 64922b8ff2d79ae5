"""Worker threads that compute on one core each, and what lets a process fork while they do.

Workers live as long as the process and serve all encoders and all callers. Python's own pool,
`concurrent.futures.ThreadPoolExecutor`, takes nothing more from the moment the main thread ends, though other threads go on for as
long as they like: a server that its main program started, say. These workers go on until nobody is left.

Two things hang a process that forks, or one that was forked.

PyTorch computes with a pool of OpenMP threads (GNU's libgomp) that belongs to the thread that called it. A fork copies that thread,
whose memory says that it has a pool, but not the pool's threads: the next large product waits for threads that are not there. A
*new* thread of the forked process remembers no pool, makes one, and computes as ever, with as many threads and so the same bits.

A fork copies the locks of all libraries as they are at that moment. What another thread had locked (oneDNN and the matrix library
lock their caches for moments) stays locked in the new process, where that thread does not exist. So a fork waits until the batches
that are being computed are done, and lets none begin meanwhile.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

LONGEST_WAIT = 30.0
"""Seconds that a fork waits at most: a batch that takes longer must not keep a program from forking."""

_forked = False
_change = threading.Condition()
_computing = 0  # threads that are inside of a library now
_forks = 0  # forks that wait for them
_mine = threading.local()


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Around any use of a library that has locks. Any number of threads may be in it at once; a fork waits until none is."""
    global _computing  # noqa: PLW0603 (it is about the process as a whole, and so are the others here)
    depth = getattr(_mine, "depth", 0)
    if depth == 0:
        with _change:
            while _forks:
                _change.wait()
            _computing += 1
    _mine.depth = depth + 1
    try:
        yield
    finally:
        _mine.depth = depth
        if depth == 0:
            with _change:
                _computing -= 1
                _change.notify_all()


def forked() -> bool:
    """Whether this process is a fork of one that had loaded minisbert."""
    return _forked


def fork_safe(function: Callable[[], Result]) -> Result:
    """Calls a function that uses PyTorch: in a thread of its own if this process was forked, else directly.

    An interrupt is raised when the function has returned: let it be no more than one batch.
    """
    if not _forked:
        return function()
    future: Future[Result] = Future()
    thread = threading.Thread(target=run_into_future, args=(future, function))
    thread.start()
    try:
        return future.result()
    finally:
        thread.join()


def run_into_future(future: Future[Result], function: Callable[[], Result]) -> None:
    """Calls a function, unless its future was cancelled, and has the future give what it returns or raises."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
            del future  # or the two would keep each other, and all that was being computed, alive in a circle


def _before() -> None:
    global _forks  # noqa: PLW0603
    _change.acquire()
    _forks += 1
    own = int(getattr(_mine, "depth", 0) > 0)
    end = time.monotonic() + LONGEST_WAIT
    while _computing > own and time.monotonic() < end:
        _change.wait(end - time.monotonic())


def _after_in_parent() -> None:
    global _forks  # noqa: PLW0603
    _forks -= 1
    _change.notify_all()
    _change.release()


def _after_in_child() -> None:
    global _forked, _change, _computing, _forks  # noqa: PLW0603
    _forked = True
    _change = threading.Condition()
    _computing = int(getattr(_mine, "depth", 0) > 0)
    _forks = 0


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

_workers: dict[int, Workers] = {}
_starting = threading.Lock()


class Workers:
    """So many threads, each of which computes on one core."""

    def __init__(self, threads: int) -> None:
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._threads = threads
        self._ending = False
        all_started = threading.Barrier(threads + 1)
        for number in range(threads):
            # Daemons, since Python waits for all other threads before it ends.
            threading.Thread(target=self._work, args=(all_started,), name=f"minisbert_{number}", daemon=True).start()
        all_started.wait()
        # What a worker sets for itself is also the default of threads that others start later: it is put back at once.
        torch.set_num_threads(threads)

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Has a function called by the next worker that is free."""
        future: Future[Any] = Future()
        if not self._ending or threading.current_thread() is threading.main_thread():
            self._waiting.put((future, function))
        return future

    def end(self) -> None:
        """Has all workers idle, and idle they stay, but for what the main thread may still ask for.

        Python ends next, and a thread that is in PyTorch then brings the program down with an error. By now only daemons can have
        asked for something. They will not get it, and end while they wait.
        """
        self._ending = True
        with contextlib.suppress(Empty):
            while True:
                self._waiting.get_nowait()
        all_idle = threading.Barrier(self._threads + 1)
        for _ in range(self._threads):
            self._waiting.put((Future(), all_idle.wait))
        all_idle.wait()

    def _work(self, all_started: threading.Barrier) -> None:
        # A thread takes PyTorch's default at the first question that it asks, and would forget then what was set before.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_started.wait()
        while True:
            task = self._waiting.get()
            run_into_future(*task)
            del task  # or the last batch would stay in memory until the next one comes


def workers(threads: int) -> Workers:
    """That many workers; made at the first call."""
    with _starting:
        if threads not in _workers:
            _workers[threads] = Workers(threads)
        return _workers[threads]


def _end() -> None:
    for some in _workers.values():
        some.end()


def _forget() -> None:
    """In a forked process: the workers did not come along."""
    global _starting  # noqa: PLW0603 (it may have been held at the moment of the fork)
    _starting = threading.Lock()
    _workers.clear()


atexit.register(_end)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget)
