"""Work in a process that forks, and in one that was forked, where PyTorch by itself would wait for ever. There are two reasons.

PyTorch computes with a pool of OpenMP threads (GNU's libgomp) that belongs to the thread that called it. A fork copies that thread,
whose memory says that it has a pool, but not the pool's threads: the next large product waits for threads that are not there. A
*new* thread of the forked process remembers no pool, makes one, and computes as ever, with as many threads and so the same bits.

A fork copies the locks of all libraries as they are at that moment. What another thread had locked (oneDNN and the matrix library
lock their caches for moments) stays locked in the new process, where that thread does not exist. So a fork waits until the batches
that are being computed are done, and lets none begin meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

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
    thread = threading.Thread(target=settle, args=(future, function))
    thread.start()
    try:
        return future.result()
    finally:
        thread.join()


def settle(future: Future[Result], function: Callable[[], Result]) -> None:
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
