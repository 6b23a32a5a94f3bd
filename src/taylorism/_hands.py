"""Listener: the processes that are given workers: what each was given, and how it is sent away.

Most of them run several. Those in reserve (`_reserve`) wait for their only one.

Each has three descriptors here beside the pipe of its notices: the socket of its orders, and both ends of the pipe
of its permits, so that what it has not begun can be taken back (`_series`). A process whose socket is closed leaves
when it has done what it was given.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from taylorism import _channel, _instructions
from taylorism._channel import ChannelClosed, Inflow, Outflow
from taylorism._descriptors import above_stdio
from taylorism._errors import InstructionsNotPicklable
from taylorism._hold import Berth
from taylorism._ledger import Job
from taylorism._messages import Done
from taylorism._process import ForkedProcess
from taylorism._series import Desk

__all__ = ["Hand", "Hands", "Spent"]

#: seconds for which a process may live on that has nothing more to do: threads and children that it waits for
LINGER = 5.0


class Spent(NamedTuple):
    """What a process has used, under the names of the system; None where that was not asked for."""

    ru_utime: Any = 0.0
    ru_stime: Any = 0.0
    ru_maxrss: float = 0.0


_NOTHING = Spent()


@dataclass(eq=False)
class Hand:
    """A process that is given workers.

    Attributes
    ----------
    desk : Desk
        Its own ends, to be closed here once it has started.
    permits : tuple of two int
        Both ends of the pipe of its permits, here.
    left : float
        Workers that it may still be given.
    share : int or None
        The cpus that its workers are given; 0 where nobody says, None for whatever is said for its only one.
    process : ForkedProcess
        The process, once it has started.
    inflow : Inflow
        Its notices, then.
    outflow : Outflow or None
        Its orders, as long as it may be given some.
    frames : int
        How many it was sent.
    common : int
        The number of the common part that it has.
    batch : Batch or None
        The short workers that it was given, if that is what it does.
    unbegun : int
        Workers that it was given and had not begun when it ended.
    berth : Berth or None
        Where it puts what is big.
    forks : int
        By which it is known what it shares with us (`_lease.forks`).
    lost : int
        Permits for what it could not be given, since it had gone.
    spent : Spent
        What its workers have used so far.
    leave_by : float
        When it has to be gone, having nothing more to do.
    """

    desk: Desk
    permits: tuple[int, int]
    orders: socket.socket
    left: float
    share: int | None
    process: Any = None
    inflow: Any = None
    spent: Spent = _NOTHING
    leave_by: float = float("inf")
    frames: int = 0
    common: int = -1
    batch: Any = None
    unbegun: int = 0
    berth: Berth | None = None
    forks: int = 0
    lost: int = 0
    outflow: Any = None

    @property
    def leaving(self) -> bool:
        """Whether it will be given nothing more."""
        return self.outflow is None

    def give(self, name: str, instructions: Mapping[str, Any]) -> None:
        """Have it run a worker of that name, of these instructions.

        Raises
        ------
        ChannelClosed
            It has gone.
        InstructionsNotPicklable
            They cannot be sent.
        """
        self._send([name], [_instructions.pack_one(dict(instructions))])

    def give_several(self, jobs: Sequence[Job], marks: Mapping[str, Any]) -> None:
        """Have it run workers one after the other, of instructions as main has packed them, with these marks.

        Raises
        ------
        ChannelClosed
            It has gone.
        Exception
            The marks cannot be pickled.
        """
        self._send_packed([job.number for job in jobs], jobs, marks)

    def give_changed(self, job: Job, changes: Mapping[str, Any]) -> None:
        """Have it run a worker by itself, of instructions as main has packed them, with these changes.

        Raises
        ------
        ChannelClosed
            It has gone.
        InstructionsNotPicklable
            The changes cannot be pickled.
        """
        self._send_packed([str(changes["name"])], [job], changes)

    def _send_packed(self, calls: Sequence[str | int], jobs: Sequence[Job], marks: Mapping[str, Any]) -> None:
        packed, common = _instructions.pack_one(dict(marks)), jobs[0].common
        assert common is not None
        segments: list[Any] = [job.packed for job in jobs]
        if self.common != common.number:
            segments.insert(0, common.packed)
            self.common = common.number
        self._send(calls, segments, packed)

    def _send(self, calls: Sequence[str | int], segments: list[Any], *marks: bytes) -> None:
        self.frames += 1
        self.left -= len(calls)
        os.write(self.permits[1], bytes((self.frames % 256,)) * len(calls))
        self.outflow.push(_channel.encode((self.frames, calls, *marks), segments))
        try:
            self.outflow.flush()
        except ChannelClosed:
            self.lost += len(calls)
            raise

    def take_back(self) -> int:
        """Take back what it has not begun; return how many workers that were."""
        try:
            return max(0, len(os.read(self.permits[0], 4096)) - self.lost)
        except BlockingIOError:
            return 0

    def used(self, done: Done) -> tuple[Spent, bool]:
        """Return what its last worker used, and whether the peak is that of this worker."""
        before, user, system = self.spent, done.user or 0.0, done.system or 0.0
        self.spent = Spent(before.ru_utime + user, before.ru_stime + system, max(before.ru_maxrss, done.peak))
        return Spent(done.user, done.system, done.peak), done.peak > before.ru_maxrss

    def rest_of(self, whole: Any) -> tuple[Spent, bool]:
        """Return what its last worker used, which ended with it, out of what it used in all; and as `used`."""
        before = self.spent
        user, system = whole.ru_utime - before.ru_utime, whole.ru_stime - before.ru_stime
        return Spent(max(user, 0.0), max(system, 0.0), whole.ru_maxrss), whole.ru_maxrss > before.ru_maxrss

    def send_away(self) -> None:
        """Tell it that nothing more will come; harmless when repeated."""
        self.outflow = None
        self.orders.close()

    def close(self) -> None:
        """Close all that is here, but for the pipe of its notices."""
        self.send_away()
        for fd in self.permits:
            if fd >= 0:
                os.close(fd)
        self.permits = (-1, -1)


class Hands:
    """All of them.

    Parameters
    ----------
    most : int or None
        Workers that each may run.
    poller : select.poll
        Where the loop waits.

    Attributes
    ----------
    deserted : bool
        Whether one that had nothing to do has ended by itself.
    """

    def __init__(self, most: int | None, poller: select.poll) -> None:
        self.deserted = False
        self._most = float("inf") if most is None else float(most)
        self._poller = poller
        self._all: dict[int, Hand] = {}
        self._idle: dict[Hand, None] = {}
        self._full: dict[int, Hand] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    # -- coming ---------------------------------------------------------------------------------------

    def prepare(self, notices: int, share: int | None) -> Hand:
        """Return a hand that has no process yet, which will write its notices there.

        With a share, its first worker comes with it; with none, it has still to be given its only one.

        Raises
        ------
        OSError
            The system has no more descriptors.
        """
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            permits = os.pipe()
        except OSError:
            ours.close()
            its.close()
            raise
        reader, writer = map(above_stdio, permits)
        os.set_blocking(reader, False)
        ours.setblocking(False)
        its.setblocking(False)
        left = 1.0 if share is None else self._most - 1
        return Hand(Desk(above_stdio(its.detach()), reader, notices), (reader, writer), ours, left, share)

    def engage(self, hand: Hand, process: ForkedProcess, inflow: Inflow) -> None:
        """Take note of a hand that has been started, and is at work."""
        os.close(hand.desk.orders)
        process.keep()
        hand.process, hand.inflow = process, inflow
        hand.outflow = Outflow(hand.orders.fileno(), hand.orders)
        self._all[process.pid or 0] = hand
        if hand.left <= 0:
            hand.send_away()

    def discard(self, hand: Hand) -> None:
        """Let go of a hand that could not be started."""
        os.close(hand.desk.orders)
        hand.close()

    # -- working --------------------------------------------------------------------------------------

    def free(self, share: int) -> Hand | None:
        """Return one that has nothing to do; those of another share of cpus are sent away."""
        for hand in list(self._idle):
            del self._idle[hand]
            if hand.share in (share, None):
                return hand
            self._send_away(hand)
        return None

    def give(self, hand: Hand, name: str, instructions: Mapping[str, Any]) -> bool:
        """Have it run a worker; return whether it is still there.

        Raises
        ------
        InstructionsNotPicklable
            They cannot be sent.
        """
        try:
            hand.give(name, instructions)
        except ChannelClosed:
            return False
        self._see_to(hand)
        return True

    def give_changed(self, hand: Hand, job: Job, changes: Mapping[str, Any]) -> bool:
        """Have it run a worker, of what main has packed and changes to it; return whether it could be told.

        Raises
        ------
        InstructionsNotPicklable
            The changes cannot be pickled.
        """
        try:
            hand.give_changed(job, changes)
        except ChannelClosed:
            return False
        self._see_to(hand)
        return True

    @property
    def idle(self) -> int:
        """How many have nothing to do."""
        return len(self._idle)

    def forks(self) -> dict[int, int]:
        """Return, for each process, by which it is known what it shares with us."""
        return {pid: hand.forks for pid, hand in self._all.items()}

    def give_several(self, hand: Hand, jobs: Sequence[Job], marks: Mapping[str, Any]) -> bool:
        """Have it run workers one after the other; return whether it could be told."""
        try:
            hand.give_several(jobs, marks)
        except (ChannelClosed, InstructionsNotPicklable):
            return False
        self._see_to(hand)
        return True

    def _see_to(self, hand: Hand) -> None:
        """Have the rest sent, if there is any, and the hand sent away if this was its last."""
        if not hand.outflow.empty:
            self._full[hand.orders.fileno()] = hand
            self._poller.register(hand.orders.fileno(), select.POLLOUT)
        elif hand.left <= 0:
            hand.send_away()

    def supply(self, ready: Iterable[int]) -> None:
        """Send the rest of what had no room; `ready` are the descriptors that have some."""
        for fd in self._full.keys() & set(ready) if self._full else ():
            hand = self._full[fd]
            try:
                done = hand.outflow.flush()
            except ChannelClosed:
                done = True  # its death will be seen
            if done:
                self._unregister(hand)
                if hand.left <= 0:
                    hand.send_away()

    def _unregister(self, hand: Hand) -> None:
        if hand.outflow is not None and self._full.pop(hand.orders.fileno(), None) is not None:
            self._poller.unregister(hand.orders.fileno())

    def rest(self, hand: Hand) -> None:
        """Note that one has nothing to do."""
        if hand.leaving:
            hand.leave_by = time.monotonic() + LINGER
        else:
            self._idle[hand] = None

    # -- going ----------------------------------------------------------------------------------------

    def _send_away(self, hand: Hand) -> None:
        self._unregister(hand)
        hand.send_away()
        hand.leave_by = time.monotonic() + LINGER

    def retire(self) -> None:
        """Send away all that have nothing to do."""
        for hand in self._idle:
            self._send_away(hand)
        self._idle.clear()

    @property
    def next_deadline(self) -> float:
        """When `enforce` has something to do, on the monotonic clock."""
        return min((hand.leave_by for hand in self._all.values()), default=float("inf"))

    def enforce(self, now: float) -> None:
        """End those that should have left."""
        for hand in self._all.values():
            if hand.leave_by <= now:
                hand.leave_by = float("inf")
                hand.process.kill()

    def of(self, pid: int) -> Hand | None:
        """Return that of a process."""
        return self._all.get(pid)

    def gone(self, pid: int) -> Hand | None:
        """Forget one whose process has ended, if it is one."""
        hand = self._all.pop(pid, None)
        if hand is not None:
            hand.unbegun = hand.take_back()
            self.deserted = self.deserted or hand in self._idle
            self._idle.pop(hand, None)
            self._unregister(hand)
            hand.close()
            if hand.inflow.fd >= 0:
                os.close(hand.inflow.fd)
                hand.inflow.fd = -1
        return hand

    def forget(self, mine: Hand | None) -> None:
        """Close, in a child, what is the listener's alone; what is its own stays open."""
        for hand in self._all.values():
            hand.close()
        if mine is not None:
            mine.orders.close()
            os.close(mine.permits[1])

    def pipes(self) -> Iterator[int]:
        """Yield the pipes of the notices of those that have nothing to do."""
        for hand in self._all.values():
            if hand.inflow.fd >= 0:
                yield hand.inflow.fd
