"""Threads that compute on one core each; they live as long as the process and serve all encoders and all callers.

Python's own pool, `concurrent.futures.ThreadPoolExecutor`, takes nothing more from the moment the main thread ends, though other
threads go on for as long as they like: a server that its main program started, say. These workers go on until nobody is left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import torch

from minisbert.forks import settle

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
            settle(*task)
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
