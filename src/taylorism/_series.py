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

from taylorism import _channel, _child, _compat, _cpus, _freight, _hiring, _instructions, _signals
from taylorism._channel import Frame, Inflow
from taylorism._hold import Hold
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
    messenger : NoticePipe
        Where all of them leave their notices.
    log_dir : str or None
        Where each Worker's output goes.
    hold : Hold
        Where big instructions are.
    """

    def __init__(
        self, desk: Desk, shared: Mapping[str, Any], messenger: _child.NoticePipe, log_dir: str | None, hold: Hold
    ) -> None:
        self._desk = desk
        self._shared = shared
        self._log_dir = log_dir
        self._messenger = messenger
        self._hold = hold
        self._inflow = Inflow(desk.orders)
        self._permits = _Permits(desk.permits)
        self._sets = self._permitted()
        self._surroundings = _Surroundings()
        self._sent: dict[str, Any] = {}  # the common part that came last
        self._common: dict[str, Any] = {}
        self._marks: dict[str, Any] = {}
        self._bound = True  # whether a hook of the scheduler may have changed the cpus of the process
        self._number: int | None = None  # of a set that came with others

    def live(self, worker: Any) -> NoReturn:
        """Run `worker`, then what is ordered; leave when no more will come, or one has failed."""
        interruption, meter = _signals.Interruption(), _Meter()
        while worker is not None:
            meter.begin()
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
        stays = self._surroundings.restore(self._bound)
        head, segments = self._messenger.packed(result)
        if self._number is not None and stays and len(segments) == 1 and self._is_plain(head, segments):
            # What it used is not asked for: where others wait for a processor, that takes longer than all the rest.
            record = _channel.pack_record(self._number, result.name, segments[0], meter.began, time.time())
            _channel.write_all(self._desk.notices, [record])
            return
        if isinstance(head, bytes) or head.failure is None:
            told = ("", "") if isinstance(head, bytes) else (head.text, head.remark)
            head = Done(stays, result.name, *meter.read(), *told)
            _channel.write_all(self._desk.notices, _channel.encode(tuple(head), segments))
        else:
            _channel.write_all(self._desk.notices, _channel.encode(head, segments))
            _child.leave(1)
        if not stays:
            _child.leave(0)

    @staticmethod
    def _is_plain(head: Any, segments: list[Any]) -> bool:
        """Whether the listener need not look at a report."""
        return isinstance(head, bytes) and not _freight.is_bill(segments[0])

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
            sequence, common, calls, *marks = frame.head
            segments = self._with_common(common, calls, frame.segments)
            self._marks = _instructions.unpack_common(marks[0]) if marks else {}
            self._bound = bool(self._marks.get("scheduler_hooks", True))
            for call, packed in zip(calls, segments, strict=True):
                if not self._permits.take(sequence):
                    break
                self._number = call if isinstance(call, int) else None
                yield self._hired(call, packed)

    def _with_common(self, common: int, calls: Sequence[Any], segments: Sequence[Any]) -> Sequence[Any]:
        """Keep the common part, if it is there; return the sets."""
        if common < 0:
            self._common = {}
            return segments
        if len(segments) > len(calls):
            self._sent = _instructions.unpack_common(segments[0], self._load)
            segments = segments[1:]
        self._common = self._sent
        return segments

    def _hired(self, call: str | int, packed: Any) -> Any:
        """Build a Worker; where that fails, the process ends with it."""
        instructions: dict[str, Any] = {}
        try:
            instructions = _instructions.unpack(self._common, packed, self._load) | self._marks
            worker = _hiring.hire(instructions, self._shared)
        except Exception as error:
            hopeless = isinstance(error, _hiring.HOPELESS)
            name = call if isinstance(call, str) else instructions.get("name") or f"#{call}"
            self._messenger.put(_child.Result(str(name), error=error, hopeless=hopeless))
            _child.leave(1)
        worker.messenger = self._messenger
        return worker

    def _load(self, packed: Any) -> Any:
        """Load instructions; what is big in them is copied, for the listener gives it back when they are done."""
        return _freight.load_copy([packed], self._hold)

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
    """What one Worker takes of the processor, in a process that others have used; its hire included."""

    def __init__(self) -> None:
        self._before = _spent()
        self.began = 0.0

    def begin(self) -> None:
        """Note the time."""
        self.began = time.time()

    def read(self) -> tuple[float, float, float, float, int]:
        """Return when it began and ended, seconds in user and system mode, and the process's peak of memory."""
        before, self._before = self._before, _spent()
        user, system, peak = self._before
        return self.began, time.time(), user - before[0], system - before[1], peak


def _spent() -> tuple[float, float, int]:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    user, system = own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime
    return user, system, max(own.ru_maxrss, children.ru_maxrss)
