"""Worker: the life of a process that runs several Workers, one after the other.

The first Worker comes with the fork. What the others are made of comes in frames from the listener, and for each
set a *permit*, one byte in a pipe: a set is begun by taking its permit. So the listener can take back what was not
begun (it reads the permits that are left), and, when a process dies, knows which set it was at. A permit is the
number of its frame, modulo 256: one that is of a later frame says that what is left of this one was taken back.

A Worker that fails ends its process, as one that has a process of its own does; another takes its place. Between
two, the working directory and the environment become what they were at the start, and so do the cpus of the
process, its standard streams and its handlers of signals. All else that a task leaves behind, modules, variables,
threads, is there for the next one.
"""

from __future__ import annotations

import os
import resource
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from taylorism import _channel, _child, _compat, _cpus, _hiring, _instructions, _signals
from taylorism._channel import Frame, Inflow
from taylorism._messages import Done

__all__ = ["Desk", "Series"]


@dataclass
class Desk:
    """Where a process finds its orders, and leaves its notices.

    Attributes
    ----------
    orders : int
        Descriptor of the frames.
    permits : int
        Descriptor of the permits, non-blocking.
    notices : int
        Descriptor of what it writes.
    """

    orders: int
    permits: int
    notices: int


class _Permits:
    """The right to begin what was sent."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ahead: int | None = None

    def take(self, frame: int) -> bool:
        """Take the permit for the next set of a frame; return whether there is one."""
        if self._ahead is None:
            try:
                self._ahead = os.read(self._fd, 1)[0]
            except (BlockingIOError, IndexError):  # taken back; or the listener is gone
                return False
        if self._ahead != frame % 256:
            return False
        self._ahead = None
        return True


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


@dataclass
class _Surroundings:
    """What a process had at its start, and has again for each Worker."""

    directory: str | None = field(default_factory=_directory)
    environment: dict[Any, Any] = field(default_factory=lambda: dict(_compat.environment()))
    streams: tuple[Any, ...] = field(default_factory=lambda: (sys.stdin, sys.stdout, sys.stderr))
    handlers: list[Any] = field(default_factory=lambda: _compat.handlers(_signals.INTERRUPTING))
    cpus: Any = field(default_factory=_cpus.read_mask)

    def restore(self, bound: bool) -> bool:
        """Go back to them; return whether that could be done.

        Parameters
        ----------
        bound : bool
            Whether the cpus may have been changed by us.
        """
        try:
            if self.directory is not None and _directory() != self.directory:
                os.chdir(self.directory)
            if _compat.environment() != self.environment:
                _compat.set_environment(self.environment)
            if bound and self.cpus is not None:
                _cpus.bind(self.cpus)
        except OSError:
            return False
        sys.stdin, sys.stdout, sys.stderr = self.streams
        if _compat.handlers(_signals.INTERRUPTING) != self.handlers:
            for signum, handler in zip(_signals.INTERRUPTING, self.handlers, strict=True):
                _compat.set_handler(signum, handler)
        return True


class Series:
    """One Worker after the other.

    Parameters
    ----------
    desk : Desk
        The process's own.
    shared : mapping
        Instructions that are not copied.
    shown : int
        Characters of each report that go with it as text.
    log_dir : str or None
        Where each Worker's output goes.
    """

    def __init__(self, desk: Desk, shared: Mapping[str, Any], shown: int, log_dir: str | None) -> None:
        self._desk = desk
        self._shared = shared
        self._log_dir = log_dir
        self._messenger = _child.NoticePipe(desk.notices, shown)
        self._inflow = Inflow(desk.orders)
        self._permits = _Permits(desk.permits)
        self._sets = self._permitted()
        self._surroundings = _Surroundings()
        self._common: tuple[int, dict[str, Any]] = (-1, {})

    def live(self, worker: Any) -> NoReturn:
        """Run `worker`, then what is ordered; leave when no more will come, or one has failed."""
        interruption = _signals.Interruption()
        while worker is not None:
            meter = _Meter()
            result = _child.attempt(worker, interruption, self._log_dir)
            if result.error is not None:
                _child.finish(worker, result)
            self._hand_in(worker, result, meter)
            after = _signals.Interruption()
            worker = self._next(after, interruption)
            interruption = after
        _child.leave(0)

    def _hand_in(self, worker: Any, result: _child.Result, meter: _Meter) -> None:
        """Send a report, and say whether this process goes on."""
        stays = self._surroundings.restore(bool(worker.scheduler_hooks))
        head, segments = self._messenger.packed(result)
        if isinstance(head, bytes) or head.failure is None:
            head = Done(stays, result.name, *meter.read(), "" if isinstance(head, bytes) else head.text)
            _channel.write_all(self._desk.notices, _channel.encode(tuple(head), segments))
        else:
            _channel.write_all(self._desk.notices, _channel.encode(head, segments))
            _child.leave(1)
        if not stays:
            _child.leave(0)

    def _next(self, interruption: _signals.Interruption, before: _signals.Interruption) -> Any:
        """Wait for a set, and build its Worker; None when no more will come."""
        try:
            interruption.begin()
            if before.signum:
                _child.leave_by(before.signum)
            return next(self._sets, None)
        except BaseException:
            interruption.disarm()
            if interruption.signum:
                _child.leave_by(interruption.signum)
            raise

    def _permitted(self) -> Iterator[Any]:
        """Yield a Worker for each set that comes with its permit, as long as any may come."""
        for frame in self._frames():
            sequence, common, names = frame.head
            sets = self._with_common(common, frame.segments)
            for name, packed in zip(names, sets, strict=True):
                if not self._permits.take(sequence):
                    break
                yield self._hired(name, packed)

    def _with_common(self, common: int, segments: Sequence[Any]) -> Sequence[Any]:
        """Keep the common part, if it is there; return the sets."""
        if common < 0:
            self._common = (-1, {})
            return segments
        if common != self._common[0]:
            self._common = common, _instructions.unpack_common(segments[0])
        return segments[1:]

    def _hired(self, name: str, packed: Any) -> Any:
        """Build a Worker; where that fails, the process ends with it."""
        try:
            instructions = _instructions.unpack(self._common[1], packed)
            worker = _hiring.hire(instructions, self._shared)
        except Exception as error:
            hopeless = isinstance(error, _hiring.HOPELESS)
            self._messenger.put(_child.Result(name, error=error, hopeless=hopeless))
            _child.leave(1)
        worker.messenger = self._messenger
        return worker

    def _frames(self) -> Iterator[Frame]:
        poller = select.poll()
        poller.register(self._desk.orders, select.POLLIN)
        while True:
            while self._inflow.ready:
                yield self._inflow.ready.pop(min(self._inflow.ready))
            if self._inflow.ended:
                return
            poller.poll()
            self._inflow.pull()


class _Meter:
    """What one Worker takes of the processor, in a process that others have used."""

    def __init__(self) -> None:
        self._began = time.time()
        self._start = _spent()

    def read(self) -> tuple[float, float, float, float, int]:
        """Return when it began and ended, seconds in user and system mode, and the process's peak of memory."""
        user, system, peak = _spent()
        return self._began, time.time(), user - self._start[0], system - self._start[1], peak


def _spent() -> tuple[float, float, int]:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    user, system = own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime
    return user, system, max(own.ru_maxrss, children.ru_maxrss)
