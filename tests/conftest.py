"""What every test is held to: after it, no child, no descriptor, no shared-memory file, no handler is left."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The tests of the real clients have an environment of their own: see tests/clients/run.py.
collect_ignore = ["clients"]

# What a shell runs in the background, or under nohup, has some signals ignored. Here they count.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _signum in (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(_signum, signal.SIG_DFL)

# A batch system around the tests would have its say on how many cpus and how much memory there are.
for _name in [name for name in os.environ if name.startswith(("SLURM_", "PBS_")) or name == "NCPUS"]:
    del os.environ[_name]
os.environ.pop("TAYLORISM_MAX_THREADS", None)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)
#: seconds that what was just told to end has to be gone
_PATIENCE = 2.0


# How long an example takes says how busy the machine is; that a test comes to its end, pytest-timeout sees to.
settings.register_profile("on any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("on any machine")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what all tests share out of the collections that they ask for, which would look at it each time."""
    gc.collect()
    gc.freeze()


def _children(pid: int | str = "self") -> set[int]:
    """Return all processes below one; `psutil` would read of all there are, twice for each test."""
    found: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found.update(map(int, listed.read_text().split()))
    return found.union(*map(_children, found))


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of the listing itself
            pass
    return found


def _segments() -> set[str]:
    """Return the shared-memory files, but for those of a joblib that may be running elsewhere."""
    found = os.listdir("/dev/shm") if Path("/dev/shm").is_dir() else []
    return {name for name in found if not name.startswith(("joblib_", "sem.loky-", "loky-"))}


def _is_mapped_elsewhere(name: str) -> bool:
    """Whether another process has a shared-memory file in use: that of a test that runs beside this one."""
    try:
        status = (Path("/dev/shm") / name).stat()
    except FileNotFoundError:
        return True  # it was
    # By its number: glibc makes its semaphores under another name.
    mark = f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino} "
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            if maps.parent.name != str(os.getpid()) and mark in maps.read_text():
                return True
    return False


def _settled(look, before):  # type: ignore[no-untyped-def]
    """Return what `look` sees beyond `before`, once it sees nothing or the patience is over."""
    deadline, pause = time.monotonic() + _PATIENCE, 0.001
    while (left := set(look()) - set(before)) and time.monotonic() < deadline:
        # What is told to end needs a moment, nearly always; what is in a circle of references, a collection.
        if pause > 0.004:
            gc.collect()
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    return left


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the test that leaves something behind, and clean up after it for the next."""
    children, descriptors, segments = _children(), _descriptors(), _segments()
    handlers = [signal.getsignal(signum) for signum in _SIGNALS]
    directory, environment = os.getcwd(), dict(os.environ)
    environment.pop("PYTEST_CURRENT_TEST", None)
    yield
    left = _settled(_children, children)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    assert not left, f"processes left behind: {left}"
    left = _settled(_descriptors, descriptors)
    assert not left, f"descriptors left open: { {fd: _descriptors().get(fd) for fd in left} }"
    left = {name for name in _settled(_segments, segments) if not _is_mapped_elsewhere(name)}
    assert not left, f"shared-memory files left behind: {left}"
    assert [signal.getsignal(signum) for signum in _SIGNALS] == handlers, "signal handlers changed"
    after = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    assert (os.getcwd(), after) == (directory, environment), "directory or environment changed"


@pytest.fixture
def through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have big reports and instructions take the pipe, as where the system has no shared memory without a name."""
    monkeypatch.setattr("taylorism._link.Hold.open", lambda hold: False)


@pytest.fixture(params=["hold", "pipe"])
def both_ways(request: pytest.FixtureRequest) -> None:
    """Have a test run with big reports on either way."""
    if request.param == "pipe":
        request.getfixturevalue("through_the_pipe")
