"""Fixtures of the client tests (world: main); the rule that keeps them out of the main suite."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

HERE = Path(__file__).parent
CLIENTS = ("vortex", "epygram", "ial_expertise", "eccodes")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this directory out unless its own configuration is in use and every client is there."""
    at_home = config.inipath is not None and config.inipath.parent == HERE
    if at_home and all(importlib.util.find_spec(name) for name in CLIENTS):
        return None
    return True


def _descriptors() -> set[str]:
    """Return what this process holds of pipes, sockets and anonymous inodes (pidfd, eventfd, ...).

    Plain files are left out: they belong to the clients, which close some of them late.
    """
    held = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith(("pipe:", "socket:", "anon_inode:")):
            held.add(f"{entry} -> {target}")
    return held


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _shared() -> set[str]:
    return set(os.listdir("/dev/shm"))


def _wait_for_none(left: Callable[[], Any], seconds: float = 3.0) -> Any:
    """Return what *left* still gives when the time is over, if anything."""
    deadline = time.monotonic() + seconds
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process, a pipe or a shared-memory entry behind."""
    gc.collect()
    descriptors, shared = _descriptors(), _shared()
    yield
    gc.collect()
    assert not _wait_for_none(_children)
    assert not _descriptors() - descriptors
    # A semaphore that another process of the machine is just making is seen until it is unlinked.
    assert not _wait_for_none(lambda: _shared() - shared)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory of the test's own, as these clients write beside their inputs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def _pytest_variable() -> Iterator[None]:
    """Keep the variable that pytest wants back: a Vortex session swaps the whole environment."""
    name = "PYTEST_CURRENT_TEST"
    value = os.environ.get(name, "")
    yield
    os.environ[name] = value


@pytest.fixture
def session(here: Path) -> Iterator[Any]:
    """Give a Vortex session of its own, in a directory of its own, and leave it afterwards."""
    import vortex

    before = vortex.sessions.current()
    with _pytest_variable():
        ticket = vortex.sessions.get(tag=f"client{time.monotonic_ns()}", topenv=vortex.rootenv, glove=before.glove)
        ticket.activate()
        ticket.rundir = str(here)
        ticket.context.cocoon()
    yield ticket
    with _pytest_variable():
        before.activate()
        ticket.exit()
