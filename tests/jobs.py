"""What jobs do in the tests of job folders; light, for it is imported by programs, too."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

from taylorism.compat.jobfolder import JobFolder


def add(a=0, b=0, **others):
    """Return a sum."""
    return a + b


def note(outdir, comm, **params):
    """Write down how it was called."""
    with open("called", "ab") as file:
        pickle.dump({"outdir": outdir, "cwd": os.getcwd(), "comm": comm, **params}, file)


def hold(outdir, comm, **params):
    """Write down how it was called, and wait until the test opens the gate."""
    note(outdir, comm, **params)
    with open("gate", "rb") as gate:
        gate.read()


def fail(outdir, comm, text="bad", **params):
    """Raise."""
    note(outdir, comm)
    raise ValueError(text)


def fail_first(outdir, comm, times):
    """Raise as many times."""
    note(outdir, comm)
    if len(calls(outdir)) <= times:
        raise ValueError("not yet")


def die(outdir, comm):
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def return_what_cannot_be_sent(outdir, comm):
    """Return what cannot be pickled."""
    return lambda: None


def import_late(outdir, comm, module):
    """Import what the program could import."""
    __import__(module)
    note(outdir, comm)


def stubborn(outdir, comm):
    """Ignore SIGTERM, as does a program that it has started, and wait at the gate."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    hold(outdir, comm)


def tidy(outdir, comm):
    """Clean up when it is told to end."""
    note(outdir, comm)
    try:
        time.sleep(100)
    finally:
        note(outdir, comm, cleaned=True)


class Callable:
    """A functional that is an object."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, outdir, comm, value):
        note(outdir, comm, product=self.factor * value)


def calls(directory):
    """Return how a job was called, each time."""
    found = []
    path = Path(directory) / "called"
    if path.exists():
        with path.open("rb") as file:
            while file.peek(1):
                found.append(pickle.load(file))
    return found


def hold_a_pipe(outdir, comm):
    """Say so through a pipe, and keep it open."""
    with open("pipe", "wb", buffering=0) as pipe:
        pipe.write(b"here")
        time.sleep(100)


def folder(**functionals):
    """Return a tree with jobs of those names."""
    root = JobFolder()
    for name, functional in functionals.items():
        (root / name.replace("__", "/")).functional = functional
    return root
