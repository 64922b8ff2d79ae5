"""Runs `encode_corpus` in forked processes that are killed at a given moment: importing everything once makes 20 kills cheap.

Started as a program; each line on stdin is a json object, each answer a line on stdout.

    {"arguments": {…}}                       an uninterrupted run → {"status": 0, "seconds": …, "events": …}
    {"arguments": {…}, "after": seconds}     SIGKILL so long after its start
    {"arguments": {…}, "event": n}           SIGKILL at the nth time that it opens, renames, makes or removes a file of the folder
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pyarrow.parquet  # noqa: F401 (before the forks)

from minisbert.corpus import encode_corpus

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def child(order: dict, report: int) -> None:
    arguments = order["arguments"]
    count = 0

    def watch(event: str, values: tuple) -> None:
        nonlocal count
        if event in EVENTS and isinstance(values[0], (str, os.PathLike)) and os.fspath(values[0]).startswith(arguments["out"]):
            count += 1
            if count == order.get("event"):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    os.write(report, b"begun ")
    encode_corpus(**arguments)
    os.write(report, str(count).encode())


def run(order: dict) -> dict:
    read, report = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(read)
            child(order, report)
            status = 0
        finally:
            os._exit(status)
    os.close(report)
    os.read(read, 6)
    start = time.perf_counter()
    if "after" in order:
        time.sleep(order["after"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    said = os.read(read, 100).decode()
    os.close(read)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.perf_counter() - start,
        "events": int(said) if said else None,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()
