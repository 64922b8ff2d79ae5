"""Work in a forked process, where PyTorch by itself would wait for ever.

PyTorch computes with a pool of OpenMP threads (GNU's libgomp) that belongs to the thread that called it. A fork copies that thread,
whose memory says that it has a pool, but not the pool's threads: the next large product waits for threads that are not there. A
*new* thread of the forked process remembers no pool, makes one, and computes as ever, with as many threads and so the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_forked = False


def _remember() -> None:
    global _forked  # noqa: PLW0603 (it is about the process as a whole)
    _forked = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_remember)


def fork_safe(function: Callable[[], Result]) -> Result:
    """Calls a function that uses PyTorch: in a thread of its own if this process was forked, else directly.

    An interrupt is raised when the function has returned: let it be no more than one batch.
    """
    if not _forked:
        return function()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="minisbert") as pool:
        return pool.submit(function).result()
