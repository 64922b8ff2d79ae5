"""Programs that need a process of their own, run by forks of one process that has imported torch and computed nothing.

Importing takes most of the time of such a program. minisbert is imported by each program itself, as in a process that was just
started: nothing of it exists before the fork, so it does not count as forked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = """
import importlib, json, os, signal, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith("minisbert")]
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    raise SystemExit
signal.alarm(order["seconds"])
os.environ.clear()
os.environ.update(order["environment"])
for stream, path in enumerate((os.devnull, order["out"], order["err"])):
    file = os.open(path, os.O_RDWR)
    os.dup2(file, stream)
    os.close(file)
code = compile(order["code"], "<string>", "exec")
del child, file, importlib, json, line, name, order, os, path, signal, stream, sys
exec(code)
"""


class Programs:
    """The process that forks, which the first program starts.

    Args:
        modules: what it imports.
        environment: variables that are set before it starts, where some libraries read them only then.
    """

    def __init__(self, *modules: str, **environment: str) -> None:
        self._command = [sys.executable, "-c", SERVER, *modules]
        self._environment = environment
        self._server: subprocess.Popen[str] | None = None

    def run(self, code: str, *, seconds: int = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """What `python -c CODE` gives with these variables; a program that hangs is ended after so many seconds."""
        if self._server is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._server = subprocess.Popen(self._command, env=os.environ | self._environment, text=True, **pipes)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            out.touch()
            err.touch()
            order = {"code": code, "out": str(out), "err": str(err), "seconds": seconds}
            order["environment"] = os.environ | self._environment | environment
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(code, status, out.read_text("utf-8"), err.read_text("utf-8"))

    def close(self) -> None:
        """Ends the process."""
        if self._server is not None:
            self._server.communicate()
