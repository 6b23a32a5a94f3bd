"""Listener: the workers that run: their start, their notices, their deaths, and the stop ladder.

The ladder is the same for one reason or another, and always bounded: SIGTERM and SIGCONT to the whole tree,
a grace time in which ``finally`` blocks run, SIGKILL until nothing is left, reap. C and Fortran code never runs a
Python handler, and a task may swallow anything; that is what the second step is for.

Deaths come by SIGCHLD, and all that is dead is reaped in one go, the orphans that a worker left and we adopted
(`_tree.become_subreaper`) included. A descriptor for each process (`pidfd_open`) was tried: four more system
calls for each worker, twice the descriptors, and the adopted would need the signal all the same.

A dead worker's pipe is read to its end before anything is concluded: a whole frame is a report. End of file says
nothing, because what the task forked holds copies of the pipe.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from taylorism import _child, _streams, _tree
from taylorism._channel import Frame, Inflow
from taylorism._descriptors import above_stdio
from taylorism._errors import TaylorismError
from taylorism._process import ForkedProcess

__all__ = ["Crew", "Member"]

#: seconds between SIGTERM and SIGKILL
GRACE = 5.0
#: seconds between SIGKILL and giving up on a process that the system cannot end (a dead network disk)
_UNKILLABLE = 3.0
#: seconds between two rounds of SIGKILL: what is killed may have forked meanwhile
_ROUND = 0.05
#: seconds for which a process may live on after its report: threads and children that it waits for
LINGER = 5.0


@dataclass(eq=False)
class Member:
    """A running worker, and what is known of its end."""

    worker: Any
    instructions: dict[str, Any]
    process: ForkedProcess
    inflow: Inflow
    notice: Frame | None = None
    leave_by: float = float("inf")

    @property
    def name(self) -> str:
        """Name of the worker."""
        name: str = self.worker.name
        return name


class Crew:
    """The children of the listener.

    Parameters
    ----------
    poller : select.poll
        Where the loop waits for the pipes of the workers.
    forget : callable
        Called in each child: closes what is the listener's alone.
    shown : int
        Characters of each report that come with it as text.
    """

    def __init__(
        self, poller: select.poll, forget: Callable[[], None], shown: int
    ) -> None:
        self._poller = poller
        self._forget = forget
        self._shown = shown
        self._members: dict[int, Member] = {}
        self._by_pipe: dict[int, Member] = {}
        self._lingering: list[Member] = []
        self._kill_at = float("inf")
        self._give_up_at = float("inf")
        self.stopping = False

    # -- start ----------------------------------------------------------------------------------------

    def start(self, worker: Any, instructions: dict[str, Any]) -> None:
        """Start the process of `worker`.

        Raises
        ------
        OSError
            The system refuses a pipe or a process.
        """
        _streams.flush_quietly()  # or the child would say again what a constructor has printed
        reader, writer = map(above_stdio, os.pipe())
        worker.messenger = _child.NoticePipe(writer, self._shown)
        worker._process = ForkedProcess(partial(self._in_child, worker, reader, os.getpid()))
        try:
            worker.work()
            self._welcome(Member(worker, instructions, worker._process, Inflow(reader)))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)

    def _welcome(self, member: Member) -> None:
        if member.process.pid is None:
            raise TaylorismError(f"the work() of {type(member.worker).__name__} started no process.")
        os.set_blocking(member.inflow.fd, False)
        self._poller.register(member.inflow.fd, select.POLLIN)
        self._by_pipe[member.inflow.fd] = member
        self._members[member.process.pid] = member

    def _in_child(self, worker: Any, reader: int, listener: int) -> None:
        _tree.die_with_parent(listener)
        _streams.wait_like_any_other()
        os.close(reader)
        for pipe in self._by_pipe:
            os.close(pipe)
        self._forget()
        _child.run(worker)

    # -- notices and deaths ---------------------------------------------------------------------------

    def heard(self, ready: Iterable[int]) -> list[Member]:
        """Return the workers to whom the readable descriptors belong."""
        return [self._by_pipe[fd] for fd in ready if fd in self._by_pipe]

    def hear(self, member: Member, dead: bool = False) -> Frame | None:
        """Read what a worker has written; return its notice when it has just become whole."""
        if member.inflow.fd < 0:
            return None
        member.inflow.pull(to_the_end=dead)
        notice = member.inflow.ready.pop(0, None)
        if notice is not None:
            member.notice = notice
            member.leave_by = time.monotonic() + LINGER
            self._lingering.append(member)
        if notice is not None or member.inflow.ended:
            self._hang_up(member)
        return notice

    def _hang_up(self, member: Member) -> None:
        pipe, member.inflow.fd = member.inflow.fd, -1
        if pipe >= 0:
            self._poller.unregister(pipe)
            del self._by_pipe[pipe]
            os.close(pipe)

    def reap(self) -> list[Member]:
        """Reap every child that has ended; return the workers among them, with their pipes read to the end."""
        while ended := _next_ended():
            pid, status = ended
            if pid in self._members:
                self._members[pid].process.note_end(status)
        # A scheduler of the user's that asks a worker whether it is alive may have reaped it before.
        gone = [pid for pid, member in self._members.items() if member.process.noted]
        return [self._members.pop(pid) for pid in gone]

    def dismiss(self, member: Member) -> None:
        """Forget a worker whose end has been noted."""
        self._hang_up(member)
        if member in self._lingering:
            self._lingering.remove(member)

    # -- the ladder -----------------------------------------------------------------------------------

    def stop(self, grace: float | None = None) -> None:
        """Begin to stop everything, or allow less time to a stop that has begun."""
        kill_at = time.monotonic() + (GRACE if grace is None else grace)
        if not self.stopping:
            self.stopping = True
            _tree.send(self._tree(), signal.SIGTERM, signal.SIGCONT)
        if kill_at < self._kill_at:
            self._kill_at = kill_at
            self._give_up_at = kill_at + _UNKILLABLE

    def _tree(self) -> Iterable[int]:
        """Return our workers, then everything below us."""
        return dict.fromkeys([*self._members, *_tree.descendants(os.getpid())])

    @property
    def all_gone(self) -> bool:
        """Whether there is nothing to wait for: no worker and, after a stop, nobody below us at all."""
        if self._members:
            return False
        return not (self.stopping and _tree.children(os.getpid())) or self._has_given_up

    @property
    def _has_given_up(self) -> bool:
        return time.monotonic() > self._give_up_at

    @property
    def next_deadline(self) -> float:
        """When `enforce` has something to do, on the monotonic clock."""
        if self._lingering:
            return min(self._kill_at, self._lingering[0].leave_by)  # who came first has to go first
        return self._kill_at

    def enforce(self) -> list[Member]:
        """Do what is due; return the workers that the system could not end, which are given up."""
        now = time.monotonic()
        while self._lingering and self._lingering[0].leave_by <= now:
            self._lingering.pop(0).process.kill()
        if self.stopping and self._kill_at <= now:
            _tree.send(self._tree(), signal.SIGKILL)
            self._kill_at = now + _ROUND
        return self._abandon() if self._has_given_up else []

    def _abandon(self) -> list[Member]:
        left, self._members = list(self._members.values()), {}
        return left


def _next_ended() -> tuple[int, int] | None:
    """Return pid and wait status of a child that has ended, or None."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None
