"""Worker: the life of a process that runs several Workers, one after the other, or that waits for its only one.

The first of several comes with the fork. What the others are made of comes in frames from the listener, and for
each set a *permit*, one byte in a pipe: a set is begun by taking its permit. So the listener can take back what was
not begun (it reads the permits that are left), and, when a process dies, knows which set it was at. A permit is the
number of its frame, modulo 256: one that is of a later frame says that what is left of this one was taken back.

A Worker that fails ends its process, as one that has a process of its own does; another takes its place. Between
two, the working directory and the environment become what they were at the start, and so do the cpus of the
process, its standard streams and its handlers of signals; an alarm is called off. Where that cannot be done, the
process ends; and so it does where the lock of a shared array was left held, which nobody else would ever get. All
else that a task leaves behind, modules, variables, threads, is there for the next one.
"""

from __future__ import annotations

import operator
import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from taylorism import _channel, _child, _compat, _cpus, _freight, _handles, _hiring, _instructions, _signals
from taylorism._channel import Frame, Inflow
from taylorism._choice import CONSTANT
from taylorism._descriptors import above_stdio
from taylorism._hold import Hold
from taylorism._messages import Done
from taylorism._worker import Worker

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


class _Part:
    """Instructions that several sets have in common.

    They are loaded for each, who answers for that: one Worker must not see what another has made of them. But not
    again where nobody can change them, where all are meant to see that, or (`kept`) where they are our own.
    """

    def __init__(self, packed: Any, load: Callable[[Any], Any], kept: bool = False) -> None:
        self._packed = packed
        self._load = load
        self._kept = kept
        self._loaded: dict[str, Any] | None = None

    def load(self) -> dict[str, Any]:
        """Return them; nobody is to add to the dict."""
        if self._loaded is not None:
            return self._loaded
        loaded = _instructions.unpack_common(self._packed, self._load)
        if self._kept or all(kind in CONSTANT or kind in _handles.shared for kind in map(type, loaded.values())):
            self._loaded = loaded
        return loaded


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _copies_of_outputs() -> list[tuple[int, int]]:
    """Return the descriptors 1 and 2, as far as they are open, each with a copy."""
    return [(fd, above_stdio(os.dup(fd))) for fd in (1, 2) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.get_inheritable(fd)  # the cheapest question that there is
    except OSError:
        return False
    return True


def _poller_of(fds: Iterable[int]) -> select.poll:
    """Return what tells of all of these together whether they are open: one call rather than one for each."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, 0)
    return poller


def _open_ones() -> list[Any]:
    """Return those of the standard streams that can be closed, and are not."""
    return [each for each in (sys.stdin, sys.stdout, sys.stderr) if getattr(each, "closed", True) is False]


_CLOSED = operator.attrgetter("closed")
#: signals whose handlers are restored; numbers, for the system takes twice as long to make one of an enum
_HANDLED = tuple(map(int, (*_signals.INTERRUPTING, signal.SIGALRM, signal.SIGPIPE)))


@dataclass
class _Surroundings:
    """What a process had at its start, and has again for each Worker.

    Attributes
    ----------
    standing : select.poll
        Tells which of the standard descriptors that were open are so no more.
    usable : list of file
        The standard streams that were open.
    outputs : list of tuple of two int
        Descriptors that are led elsewhere for each Worker, with copies of what they were.
    """

    outputs: list[tuple[int, int]]
    directory: str | None = field(default_factory=_directory)
    environ: Any = field(default_factory=lambda: os.environ)
    environment: dict[Any, Any] = field(default_factory=lambda: dict(_compat.environment()))
    streams: tuple[Any, ...] = field(default_factory=lambda: (sys.stdin, sys.stdout, sys.stderr))
    handlers: list[Any] = field(default_factory=lambda: _compat.handlers(_HANDLED))
    cpus: Any = field(default_factory=_cpus.read_mask)
    standing: select.poll = field(default_factory=lambda: _poller_of(filter(_is_open, (0, 1, 2))))
    usable: list[Any] = field(default_factory=_open_ones)

    def restore(self) -> bool:
        """Go back to them; return whether that could be done."""
        try:
            signal.alarm(0)
            if _compat.handlers(_HANDLED) != self.handlers:
                self._restore_handlers()
            self._restore_place()
            for fd, copy in self.outputs:
                os.dup2(copy, fd)
        except OSError:
            return False
        sys.stdin, sys.stdout, sys.stderr = self.streams
        events = self.standing.poll(0)  # none, nearly always
        lost = events and any(event & select.POLLNVAL for _, event in events)
        return not (lost or any(map(_CLOSED, self.usable)))

    def _restore_place(self) -> None:
        if _directory() != self.directory:
            os.chdir(self.directory or "")  # which raises, where there was none to go back to
        os.environ = self.environ  # noqa: B003 - the environment itself is seen to below
        if _compat.environment() != self.environment:
            _compat.set_environment(self.environment)
        if self.cpus is not None and _cpus.read_mask() != self.cpus:
            _cpus.bind(self.cpus)

    def _restore_handlers(self) -> None:
        for signum, handler in zip(_HANDLED, self.handlers, strict=True):
            _compat.set_handler(signum, handler)


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
        self._sent: list[_Part] = []  # the common part that came last
        self._again: _freight.Again | None = None  # what loads that, if it is big
        self._interruption = _signals.Interruption()
        self._parent_pid = os.getppid()  # for good: we die with the listener
        self._number: int | None = None  # of a set that came with others

    def live(self, worker: Any) -> NoReturn:
        """Run `worker`, then what is ordered; leave when no more will come, or one has failed."""
        self._until_the_end(partial(self._run_all, worker))

    def live_once(self, like: Mapping[str, Any]) -> NoReturn:
        """Wait for one Worker, and be its process as any other is; leave when none will come.

        One is built meanwhile and forgotten, of instructions `like` those that will come: so the pages that this
        writes to are copied before they are wanted.
        """
        _hiring.hire(like, self._shared)
        self._until_the_end(self._run_one)

    def _until_the_end(self, run: Callable[[], object]) -> NoReturn:
        try:
            run()
        except BaseException as error:
            if error is self._interruption.raised and self._interruption.signum:
                _child.leave_by(self._interruption.signum)
            raise
        _child.leave(0)

    def _run_all(self, worker: Any) -> None:
        self._surroundings = _Surroundings([] if self._log_dir is None else _copies_of_outputs())
        meter = _Meter()
        while worker is not None:
            meter.begin()
            result = _child.attempt(worker, self._interruption, self._log_dir)
            if result.error is not None:
                _child.finish(worker, result)
            self._hand_in(result, meter)
            worker = self._next()

    def _run_one(self) -> None:
        worker = self._next()
        for fd in (self._desk.orders, self._desk.permits):
            os.close(fd)
        if worker is not None:
            _child.finish(worker, _child.attempt(worker, self._interruption, self._log_dir))

    def _hand_in(self, result: _child.Result, meter: _Meter) -> None:
        """Send a report, and say whether this process goes on."""
        stays = self._surroundings.restore() and not _handles.holds_a_lock()
        together = stays and self._number is not None
        if together and (report := self._messenger.brief(result)) is not None:
            self._tell_briefly(result.name, report, meter)
            return
        head, segments = self._messenger.packed(result)
        if together and self._is_plain(head, segments):
            self._tell_briefly(result.name, segments[0], meter)
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

    def _tell_briefly(self, name: str, report: bytes, meter: _Meter) -> None:
        # What it used is not asked for: where others wait for a processor, that takes longer than all the rest.
        assert self._number is not None
        record = _channel.pack_record(self._number, name, report, meter.began, time.time())
        if len(record) <= select.PIPE_BUF:
            os.write(self._desk.notices, record)  # all of it, or it waits
        else:
            _channel.write_all(self._desk.notices, [record])

    @staticmethod
    def _is_plain(head: Any, segments: list[Any]) -> bool:
        """Whether the listener need not look at a report."""
        return isinstance(head, bytes) and len(segments) == 1 and not _freight.is_bill(segments[0])

    def _next(self) -> Any:
        """Wait for a set, and build its Worker; None when no more will come."""
        self._interruption.begin()
        if self._interruption.signum:  # that came too late for the one before, or was caught by it
            _child.leave_by(self._interruption.signum)
        return next(self._sets, None)

    def _permitted(self) -> Iterator[Any]:
        """Yield a Worker for each set that comes with its permit, as long as any may come."""
        for frame in self._frames():
            sequence, calls, *marks = frame.head
            segments = frame.segments
            if len(segments) > len(calls):
                self._take_common(segments[0])
                segments = segments[1:]
            parts = [*self._sent, *(_Part(each, self._load, kept=True) for each in marks)] if marks else []
            for call, packed in zip(calls, segments, strict=True):
                if not self._permits.take(sequence):
                    break
                self._number = call if isinstance(call, int) else None
                worker = self._hired(call, packed, parts)
                if self._number is not None and type(worker).work is not Worker.work:
                    self._decline(self._number)
                else:
                    yield worker

    def _take_common(self, packed: Any) -> None:
        """Take the part that the sets to come have in common, instead of that of the last ones."""
        if self._again is not None:
            self._again.close()
        self._again = _freight.Again(self._hold) if _freight.is_bill(packed) else None
        self._sent = [_Part(packed, self._again or self._load)]

    def _decline(self, number: int) -> None:
        """Have the listener set a Worker to work that says itself how that is done."""
        _channel.write_all(self._desk.notices, _channel.encode(number))

    def _hired(self, call: str | int, packed: Any, parts: Sequence[_Part]) -> Any:
        """Build a Worker; where that fails, the process ends with it."""
        instructions: dict[str, Any] = {}
        try:
            common, marks = (parts[0].load(), parts[1].load()) if parts else ({}, {})
            instructions = {**common, **self._load(packed), **marks}
            worker = _hiring.hire(instructions, self._shared)
        except BaseException as error:
            if error is self._interruption.raised:
                raise
            hopeless = isinstance(error, _hiring.HOPELESS)
            given = instructions.get("name")
            name = call if isinstance(call, str) else given if type(given) is str and given else f"#{call}"
            self._messenger.put(_child.Result(name, error=error, hopeless=hopeless))
            _child.leave(1)
        worker.messenger = self._messenger
        worker._parent_pid = self._parent_pid
        return worker

    def _load(self, packed: Any) -> Any:
        """Load instructions; what is big in them is copied, for the listener gives it back when they are done."""
        return _freight.load_copy([packed], self._hold) if _freight.is_bill(packed) else pickle.loads(packed)

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
