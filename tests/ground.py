"""Programs that are run as from a shell, but on the ground of an interpreter that has imported what they need.

    ground = Ground("statsmodels.datasets")
    done = ground.run(script, directory, timeout=50)

To import statsmodels takes longer than what most of the examples do then. So one process does it, and each script
is run in a fork of that: as `__main__`, with its own directory, streams, exit of the interpreter and status. What a
fresh interpreter alone can show is not to be tested in this way.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any


class Ground:
    """A process that has imported some modules; with `variables` in its environment, and those of its forks."""

    def __init__(self, *modules: str, **variables: str) -> None:
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno()), *modules],
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        self._socket, self._words = ours, ours.makefile("rw")

    def run(self, script: Path, directory: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run `script` in `directory`, as `subprocess.run` would."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            streams = (f"/proc/{os.getpid()}/fd/{each.fileno()}" for each in (out, err))
            self._socket.settimeout(timeout)
            print(json.dumps([str(script), str(directory), *streams]), file=self._words, flush=True)
            pid = int(self._words.readline())
            try:
                status = int(self._words.readline())
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise
            out.seek(0), err.seek(0)
            return subprocess.CompletedProcess([str(script)], status, out.read(), err.read())

    def close(self) -> None:
        """Let the process leave."""
        self._words.close()
        self._socket.close()
        self._process.wait()


def forked_for_a_script(channel: int, modules: list[str]) -> list[str]:
    """Import, and fork for each script; return in the fork, with what `Ground.run` has said."""
    for each in modules:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # what is shared by all forks stays shared
    with socket.socket(fileno=channel) as ours, ours.makefile("rw") as words:
        while line := words.readline():
            if (pid := os.fork()) == 0:
                return list(json.loads(line))
            print(pid, file=words, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=words, flush=True)
    sys.exit()


def fresh_main(script: str, directory: str, *streams: str) -> dict[str, Any]:
    """Make this process look as the interpreter that was just started with `script`; return its namespace."""
    for number, path in enumerate(streams, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(directory)
    sys.argv[:], sys.path[0] = [script], str(Path(script).parent)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = script
    gc.collect()
    return vars(main)


if __name__ == "__main__":
    told = forked_for_a_script(int(sys.argv[1]), sys.argv[2:])
    # Here, at the end of the main module, what is raised is told and leads to a status as in any program.
    exec(compile(Path(told[0]).read_bytes(), told[0], "exec"), fresh_main(*told))
