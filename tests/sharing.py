"""Tools of the tests of shared memory: forked children that use it, and comparisons."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import multiprocessing.context
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import numpy as np
import pytest

from taylorism import _robust
from taylorism._handles import by_handle

FORK = multiprocessing.get_context("fork")

needs_robust = pytest.mark.skipif(_robust._pthread is None, reason="no robust locks here")


def _report(function, send):
    try:
        answer = True, function()
    except BaseException:
        answer = False, traceback.format_exc()
    send.send(answer)


def forked(function):
    """Run a function in a forked child, and return what it returned there; fail if it failed."""
    receive, send = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_report, args=(function, send))
    child.start()
    send.close()
    try:
        well, value = receive.recv() if receive.poll(30) else (False, "no answer")
    except EOFError:
        well, value = False, "died"
    finally:
        receive.close()
        child.join(10)
        child.close()
    assert well, value
    return value


class Holder:
    """A forked child that holds the lock of an array until it is told to let go, or is killed."""

    def __init__(self, array):
        self.ours, theirs = FORK.Pipe()
        self.process = FORK.Process(target=self._hold, args=(array, theirs))
        self.process.start()
        theirs.close()
        assert self.ours.poll(10)
        assert self.ours.recv() == "held"

    def _hold(self, array, theirs):
        self.ours.close()
        array.acquire()
        theirs.send("held")
        theirs.recv()
        array.release()

    def let_go(self):
        self.ours.send("go")

    def kill(self):
        self.process.kill()
        self.process.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join(10)
        self.process.close()
        self.ours.close()


class Early:
    """A child forked before the arrays that it is sent, as a listener or a process that serves again is."""

    def __init__(self, prepare=lambda: None):
        self.ours, theirs = FORK.Pipe()
        self.process = FORK.Process(target=self._serve, args=(theirs, prepare))
        self.process.start()
        theirs.close()

    def _serve(self, theirs, prepare):
        self.ours.close()
        prepare()
        while True:
            try:
                function, *arguments = pickle.loads(theirs.recv_bytes())
                theirs.send((None, function(*arguments)))
            except EOFError:
                return
            except Exception as error:
                theirs.send((error, None))

    def does(self, function, *arguments):
        """Return what an importable function returns there; arrays are sent as handles."""
        with by_handle():
            return self.does_packed(pickle.dumps((function, *arguments)))

    def does_packed(self, packed):
        """The same, for what was pickled before."""
        self.ours.send_bytes(packed)
        assert self.ours.poll(20)
        error, value = self.ours.recv()
        if error is not None:
            raise error
        return value

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ours.close()
        self.process.join(10)
        self.process.close()


def run_script(tmp_path: Path, text: str, *arguments: str) -> str:
    """Run a script, warnings being errors, and return what it printed."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    command = [sys.executable, "-W", "error", str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def descriptors() -> set[str]:
    """Return the numbers of the open descriptors, but that of this look."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def same(left, right) -> None:
    """Check that two results are equal: type, dtype, values, masks."""
    assert type(left) is type(right)
    if isinstance(left, tuple):
        for one, other in zip(left, right, strict=True):
            same(one, other)
    elif isinstance(left, np.ma.MaskedArray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(np.ma.getmaskarray(left), np.ma.getmaskarray(right))
        np.testing.assert_array_equal(left.filled(), right.filled())
    else:
        np.testing.assert_array_equal(left, right)
        assert np.asarray(left).dtype == np.asarray(right).dtype


def poke(array):
    """Write the first byte of an array behind the back of numpy."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.memset(array.ctypes.data, 1, 1)


def dies_poking(array) -> bool:
    """Say whether a child is killed that writes through a pointer."""
    child = FORK.Process(target=poke, args=(array,))
    child.start()
    child.join(10)
    code = child.exitcode
    child.close()
    return code == -signal.SIGSEGV


def look_and_take(array):
    """Return a function that takes and releases the lock."""

    def look():
        with array.get_lock() as taken:
            return taken

    return look


def pickle_as_spawning(array):
    """Pickle as multiprocessing does while it spawns a process."""
    multiprocessing.context.set_spawning_popen(object())
    try:
        return pickle.dumps(array)
    finally:
        multiprocessing.context.set_spawning_popen(None)
