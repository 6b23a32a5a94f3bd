"""Listener: the workers that run: their start, their notices, their deaths, and how they are stopped.

Deaths come by SIGCHLD, and all that is dead is reaped in one go, the orphans that a worker left and we adopted
(`_tree.become_subreaper`) included. A descriptor for each process (`pidfd_open`) was tried: four more system
calls for each worker, twice the descriptors, and the adopted would need the signal all the same.

A dead worker's pipe is read to its end before anything is concluded: a whole frame is a report. End of file says
nothing, because what the task forked holds copies of the pipe.

Everything may be stopped at once, or one worker alone, each by a `_ladder.Ladder`. A worker that is stopped alone,
or that failed while the others go on, is gone when all that it had started, and we have adopted, is gone too. What
is left by a worker that ends well was left on purpose, and is spared: so each worker has a token then, by which
what it has started is known (`_tree.tokens`). What carries none is not given the benefit of the doubt.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial
from typing import Any

from taylorism import _channel, _child, _hiring, _lease, _logs, _oom, _streams, _tree
from taylorism._channel import Frame, Inflow
from taylorism._descriptors import above_stdio
from taylorism._errors import InstructionsNotPicklable, TaylorismError
from taylorism._hands import LINGER, Hand, Hands
from taylorism._hold import Berth, Hold
from taylorism._ladder import Ladder
from taylorism._ledger import Job
from taylorism._member import Member
from taylorism._messages import REPORTED, Done, State
from taylorism._policy import Policy
from taylorism._process import ForkedProcess
from taylorism._series import Series
from taylorism._shares import given_share
from taylorism._stowage import Stowage
from taylorism._usage import Baseline, Lookout, Usage
from taylorism._worker import Worker

__all__ = ["Crew"]

#: seconds from the first start to the first look at the kernel's count of its kills: not in the way of short ones
_LATER = 0.05
#: times what it has declared that a worker may use
TOLERANCE = 1.2

_NEVER = float("inf")
_NOTHING: dict[str, Any] = {}


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
    policy : Policy
        What the caller wants on failure, time and output.
    watchful : bool
        Whether the scheduler counts the memory that workers are seen to use.
    shared : mapping
        Instructions that are not copied, for the processes that run several workers.
    stowage : Stowage, optional
        Where workers put what is big.

    Attributes
    ----------
    hands : Hands
        The processes that are given workers.
    has_hands : bool
        Whether there may be any; asked first, for each question beyond it would touch, and copy, more pages.
    on_death : callable
        Called with one of them that has died while it ran short ones, before it is forgotten.
    """

    def __init__(
        self,
        poller: select.poll,
        forget: Callable[[], None],
        shown: int,
        policy: Policy,
        watchful: bool = False,
        shared: Mapping[str, Any] = _NOTHING,
        stowage: Stowage | None = None,
    ) -> None:
        self._shared = shared
        self._stowage = stowage or Stowage(Hold())
        self.hands = Hands(policy.max_tasks_per_child, poller)
        self.on_death: Callable[[Hand], None] = _nothing
        self._poller = poller
        self._forget = forget
        self._shown = shown
        self._policy = policy
        self._reuses = self.has_hands = policy.reuses
        self._baseline = Baseline()
        self._lookout = Lookout(watchful or policy.memory_guard is not None)
        self._overdrawn: list[Member] = []
        self._oom_kills: int | None = None
        self._chore_at = _NEVER
        self._members: dict[int, Member] = {}
        self._by_pipe: dict[int, Member] = {}
        self._lingering: list[Member] = []
        self._spared: set[str] = set()  # tokens of those that ended well
        self._spared_pids: set[int] = set()  # what they left that carries none
        self._ladder: Ladder | None = None
        self._alone: list[Ladder] = []

    @property
    def stopping(self) -> bool:
        """Whether everything is being stopped."""
        return self._ladder is not None

    # -- start ----------------------------------------------------------------------------------------

    def start(self, worker: Any, job: Job, seconds: float | None = None) -> Member:
        """Start the process of `worker`, which may take so many seconds.

        Raises
        ------
        OSError
            The system refuses a pipe or a process.
        """
        if self.has_hands and self._may_reuse(worker, job):
            member = self._reuse(worker, job)
        else:
            member = self._fork(worker, job, None)
        self._welcome(member, seconds)
        return member

    def adopt(self, seat: Any, job: Job, hand: Hand) -> Member:
        """Make a member of a worker that a process is at, which runs short ones."""
        member = self._member(seat, job, hand.process, hand.inflow, hand)
        member.name, member.seat = job.name, seat.name
        self._welcome(member, None)
        return member

    def _hand_over(self, worker: Any, job: Job, share: int) -> Member | None:
        """Have a process that is there run a worker; None where there is none, or it has gone.

        Raises
        ------
        InstructionsNotPicklable
            It cannot be told.
        """
        hand = self.hands.free(share)
        if hand is None:
            return None
        try:
            given = self._give(hand, worker, job)
        except InstructionsNotPicklable:
            self.hands.rest(hand)
            raise
        if not given:
            self.hands.rest(hand)
            return None
        worker._process = hand.process
        return self._member(worker, job, hand.process, hand.inflow, hand)

    def _give(self, hand: Hand, worker: Any, job: Job) -> bool:
        """Give a worker's instructions to a process; return whether that is still there."""
        if (changes := job.changes()) is not None:
            return self.hands.give_changed(hand, job, {**changes, "name": worker.name})
        return self.hands.give(hand, worker.name, {**job.instructions, "name": worker.name})

    def _reuse(self, worker: Any, job: Job) -> Member:
        """Set a worker to work in a process that is there, or else in one that others may follow it into."""
        share = given_share(worker)
        try:
            return self._hand_over(worker, job, share) or self._fork(worker, job, share if self._reuses else None)
        except InstructionsNotPicklable:  # hooks of a scheduler, which a fork inherits
            return self._fork(worker, job, None)  # or there would be one process more for each

    def _fork(self, worker: Any, job: Job, share: int | None) -> Member:
        """Start a process for a worker; with a share, others may follow it there."""
        _streams.flush_quietly()  # or the child would say again what a constructor has printed
        reader, writer = map(above_stdio, os.pipe())
        hand = None
        try:
            hand = None if share is None else self.hands.prepare(writer, share)
            member = self._engage(worker, job, reader, writer, hand)
            worker.work()
            self._check_process(member)
            member.forks = _lease.forks()
            if hand is not None:
                hand.forks = member.forks
                self.hands.engage(hand, member.process, member.inflow)
        except BaseException:
            os.close(reader)
            if hand is not None:
                self.hands.discard(hand)
            raise
        finally:
            os.close(writer)
        return member

    def _may_reuse(self, worker: Any, job: Job) -> bool:
        """Whether a worker may be run in a process that is there, or others after it in its own."""
        if type(worker).work is not Worker.work:
            return False
        return self._reuses or (self.hands.idle > 0 and self._builds_alike(worker, job))

    def _builds_alike(self, worker: Any, job: Job) -> bool:
        """Whether a worker may be built once more, in its own process, and nobody could tell."""
        plain = job.light and type(worker).__init__ is Worker.__init__
        return plain and _hiring.is_remembered({**job.instructions, **self._shared})

    def fork_ahead(self) -> bool:
        """Start a process that waits for its only worker; none where one like the last could not be run in it.

        Returns
        -------
        bool
            Whether it could.

        Raises
        ------
        OSError
            The system refuses a pipe or a process.
        """
        last = next(reversed(self._members.values()), None)
        if last is None or not self._builds_alike(last.worker, last.job):
            return False
        like = {**last.job.instructions, "name": last.name}
        self.has_hands = True
        _streams.flush_quietly()  # or the child would say again what a scheduler has printed
        reader, writer = map(above_stdio, os.pipe())
        hand = None
        try:
            hand = self.hands.prepare(writer, None)
            os.set_blocking(reader, False)
            hand.berth = self._stowage.berth()
            process = ForkedProcess(partial(self._wait_in_child, reader, writer, os.getpid(), hand, like))
            process.start()
            hand.forks = _lease.forks()
            self.hands.engage(hand, process, Inflow(reader))
        except BaseException:
            os.close(reader)
            if hand is not None:
                self.hands.discard(hand)
            raise
        finally:
            os.close(writer)
        self.hands.rest(hand)
        return True

    def _engage(self, worker: Any, job: Job, reader: int, writer: int, hand: Hand | None) -> Member:
        """Prepare all that can be before the fork: after it, each page that is touched is copied."""
        os.set_blocking(reader, False)
        berth = self._stowage.berth()
        worker.messenger = _child.NoticePipe(writer, self._shown, berth)
        if hand is not None:
            hand.berth = berth
        # Of a process that runs several, the first may not need it, and a call after it would.
        token = _token(reader) if self._policy.sees_to_one or job.call or hand is not None else ""
        process = ForkedProcess(partial(self._in_child, worker, reader, token, os.getpid(), hand))
        worker._process = process
        return self._member(worker, job, process, Inflow(reader), hand, berth)

    def _member(
        self,
        worker: Any,
        job: Job,
        process: Any,
        inflow: Inflow,
        hand: Hand | None,
        berth: Berth | None = None,
    ) -> Member:
        token = _token(inflow.fd) if self._policy.sees_to_one or job.call else ""
        usage, logged = Usage(self._baseline.now()), self._log_sizes(worker)
        self._lookout.welcome()
        member = Member(worker.name, worker, job, process, inflow, usage, token, logged, started=time.time())
        member.hand, member.berth = hand, berth if hand is None else hand.berth
        return member

    def _log_sizes(self, worker: Any) -> tuple[int, int]:
        directory = self._policy.log_dir
        return (0, 0) if directory is None else _logs.sizes(directory, worker.name)

    def _check_process(self, member: Member) -> None:
        member.process = member.worker._process  # a `work` of the user's may have put another there
        if member.process.pid is None:
            raise TaylorismError(f"the work() of {type(member.worker).__name__} started no process.")

    def _welcome(self, member: Member, seconds: float | None) -> None:
        self._poller.register(member.inflow.fd, select.POLLIN)
        self._by_pipe[member.inflow.fd] = member
        self._members[member.process.pid or 0] = member
        if self._oom_kills is None and self._chore_at == _NEVER:
            self._chore_at = time.monotonic() + _LATER
        if seconds is not None:
            member.seconds, member.deadline = seconds, time.monotonic() + seconds

    def _in_child(self, worker: Any, reader: int, token: str, listener: int, hand: Hand | None) -> None:
        self._become_worker(reader, token, listener, hand)
        if hand is None:
            _child.run(worker, self._policy.log_dir)
        else:
            self._series(hand, worker.messenger).live(worker)

    def _wait_in_child(self, reader: int, writer: int, listener: int, hand: Hand, like: dict[str, Any]) -> None:
        self._become_worker(reader, _token(reader) if self._policy.sees_to_one else "", listener, hand)
        messenger = _child.NoticePipe(writer, self._shown, hand.berth)
        self._series(hand, messenger).live_once(like)

    def _become_worker(self, reader: int, token: str, listener: int, hand: Hand | None) -> None:
        _tree.die_with_parent(listener)
        if token:
            _tree.mark_worker(token)
        _streams.wait_like_any_other()
        os.close(reader)
        for pipe in {*self._by_pipe, *self.hands.pipes()} if self.has_hands else self._by_pipe:
            os.close(pipe)
        self._forget()
        if self.has_hands:
            self.hands.forget(hand)

    def _series(self, hand: Hand, messenger: _child.NoticePipe) -> Series:
        return Series(hand.desk, self._shared, messenger, self._policy.log_dir, self._stowage.hold)

    # -- notices and deaths ---------------------------------------------------------------------------

    def heard(self, ready: Iterable[int]) -> list[Member]:
        """Return the workers to whom the readable descriptors belong."""
        return [self._by_pipe[fd] for fd in ready if fd in self._by_pipe]

    def hear(self, member: Member, dead: bool = False) -> Frame | None:
        """Read what a worker has written; return its notice when it has just become whole."""
        if member.inflow.fd < 0:
            return None
        member.inflow.pull(to_the_end=dead)
        notice = _first(member.inflow.ready)
        if notice is not None:
            member.notice = notice
            member.deadline = _NEVER
            if member.seat:
                member.name = _name_in(notice)
        if member.stays:
            return notice
        if notice is not None:
            member.leave_by = time.monotonic() + LINGER
            self._lingering.append(member)
        if notice is not None or member.inflow.ended:
            self._hang_up(member)
        return notice

    def release(self, member: Member) -> None:
        """Note that a worker has done, whose process goes on."""
        assert member.hand is not None
        assert member.notice is not None
        self._poller.unregister(member.inflow.fd)
        del self._by_pipe[member.inflow.fd]
        del self._members[member.process.pid or 0]
        member.usage.take(*member.hand.used(member.notice.head))
        if member.token:
            self._see_to_orphans(member)
        self.hands.rest(member.hand)

    def _hang_up(self, member: Member) -> None:
        pipe, member.inflow.fd = member.inflow.fd, -1
        if pipe >= 0:
            self._poller.unregister(pipe)
            del self._by_pipe[pipe]
            os.close(pipe)

    def reap(self) -> list[Member]:
        """Reap every child that has ended; return the workers among them, with their pipes read to the end."""
        while ended := _next_ended():
            pid, status, rusage = ended
            self._spared_pids.discard(pid)
            if self.has_hands:
                self._note_death_in_batch(pid)
            if pid in self._members:
                self._members[pid].deadline = _NEVER
                self._members[pid].out_of_memory = status == signal.SIGKILL and self._has_run_out()
                self._members[pid].note_end(status, rusage)
            elif self.has_hands:
                self.hands.gone(pid)
        # A scheduler of the user's that asks a worker whether it is alive may have reaped it before.
        return [member for member in self._members.values() if member.process.noted]

    def _note_death_in_batch(self, pid: int) -> None:
        hand = self.hands.of(pid)
        if hand is not None and hand.batch is not None:
            self.on_death(hand)

    def _has_run_out(self) -> bool:
        """Whether the kernel has killed for want of memory since the last time."""
        before = self._oom_kills
        if before is None:
            return False
        self._oom_kills = _oom.kills()
        return self._oom_kills > before

    def dismiss(self, member: Member) -> bool:
        """Forget a worker whose end has been noted, unless something has still to go with it."""
        self._see_off(member)
        if member.token:
            self._see_to_orphans(member)
        if not member.gone:
            return False
        self._remove(member)
        return True

    def _see_off(self, member: Member) -> None:
        self._hang_up(member)
        if member in self._lingering:
            self._lingering.remove(member)

    def _remove(self, member: Member) -> None:
        if member.berth is not None and not member.succeeded:
            member.berth.empty()
        del self._members[member.process.pid or 0]
        if self.has_hands:
            self.hands.gone(member.process.pid or 0)
        if member.ladder is not None:
            self._alone.remove(member.ladder)

    def _see_to_orphans(self, member: Member) -> None:
        """Stop what we adopt from a worker that failed; spare what one leaves that ended well."""
        ours = self._members.keys() | self.hands.forks().keys()
        adopted = set(_tree.children(os.getpid())) - ours - self._spared_pids
        if member.succeeded and not member.sentence:
            self._spared.add(member.token)
            self._spared_pids |= {pid for pid in adopted if not _tree.tokens(pid)}
            return
        orphans = {pid for pid in adopted if self._left_by(member, _tree.tokens(pid))}
        if orphans:
            self._stop_family(member, orphans)

    def _left_by(self, member: Member, tokens: set[str]) -> bool:
        """Whether what carries these tokens is, or may be, of that worker."""
        if member.token in tokens or not self._policy.sees_to_one:
            return member.token in tokens
        others = {each.token for each in self._members.values() if each is not member}
        return tokens.isdisjoint(others) and tokens.isdisjoint(self._spared)

    # -- stopping -------------------------------------------------------------------------------------

    def stop(self, grace: float | None = None) -> None:
        """Begin to stop everything, or allow less time to a stop that has begun."""
        seconds = self._policy.stop_grace if grace is None else grace
        if self._ladder is None:
            self._ladder = Ladder(self._everybody, seconds, self._at_work)
        else:
            self._ladder.hurry(seconds)

    def _at_work(self) -> list[int]:
        """Return the workers that have not ended; nobody else can have the number of such a process."""
        return [pid for pid, member in self._members.items() if not (member.process.noted or member.notice)]

    def _everybody(self) -> list[int]:
        """Return our workers, then everything below us."""
        return list(dict.fromkeys([*self._members, *_tree.descendants(os.getpid())]))

    def stop_one(self, member: Member, sentence: str) -> None:
        """Begin to stop one worker, with all that it has started."""
        if not member.sentence or sentence == State.CANCELLED:
            member.sentence = sentence
        member.deadline = _NEVER
        if not member.token and member.inflow.fd >= 0:
            member.token = _token(member.inflow.fd)
        if member.process.pid is not None:
            self._stop_family(member, {member.process.pid})

    def _stop_family(self, member: Member, pids: set[int]) -> None:
        if member.family is not None:
            member.family.add(pids)
            return
        member.family = _tree.Family(pids)
        member.ladder = Ladder(member.family.living, self._policy.stop_grace, self._at_work)
        self._alone.append(member.ladder)

    def overdue(self) -> list[Member]:
        """Return the workers that have had their time."""
        if self._policy.timeout is None:
            return []
        now = time.monotonic()
        return [member for member in self._members.values() if member.deadline <= now]

    def called(self, wanted: Set[int | str]) -> list[Member]:
        """Return the workers that the user means, but for those that are done."""
        here = (each for each in self._members.values() if not (each.succeeded or each.verdict))
        return [each for each in here if not wanted.isdisjoint({each.job.number, each.name})]

    def is_here(self, member: Member) -> bool:
        """Whether a worker has not been dismissed yet."""
        return self._members.get(member.process.pid or 0) is member

    def living_forks(self) -> list[int] | None:
        """Return by which all that has been forked from us is known; None where there are strangers among it."""
        known = {pid: member.forks for pid, member in self._members.items()} | self.hands.forks()
        return None if set(_tree.children(os.getpid())) - known.keys() else list(known.values())

    @property
    def winding_up(self) -> bool:
        """Whether a worker is being stopped alone, whose end may be other than the death of a child of ours."""
        return bool(self._alone)

    @property
    def all_gone(self) -> bool:
        """Whether there is nothing to wait for: no worker and, after a stop, nobody below us at all."""
        if self._members:
            return False
        if self._ladder is not None and self._ladder.has_given_up:
            return True
        if self.has_hands and self.hands:
            return False
        return self._ladder is None or not _tree.children(os.getpid())

    def retire(self) -> None:
        """Send away the processes that have nothing to do."""
        self.hands.retire()

    @property
    def next_deadline(self) -> float:
        """When `enforce` or `overdue` has something to do, on the monotonic clock."""
        due = min(self._lookout.next_look, self._chore_at)
        if self._lingering:
            due = min(due, self._lingering[0].leave_by)  # who came first has to go first
        if self._policy.timeout is not None:
            due = min(due, *(member.deadline for member in self._members.values()), _NEVER)
        return min([due, *(ladder.due for ladder in self._ladders)])

    @property
    def _ladders(self) -> list[Ladder]:
        return self._alone if self._ladder is None else [self._ladder, *self._alone]

    def enforce(self) -> list[Member]:
        """Do what is due; return the workers that the system could not end, which are given up."""
        now = time.monotonic()
        while self._lingering and self._lingering[0].leave_by <= now:
            self._lingering.pop(0).process.kill()
        for ladder in self._ladders:
            ladder.descend(now)
        if self._chore_at <= now:
            self._chore_at, self._oom_kills = _NEVER, _oom.kills()
        if self._lookout.look(now, ((pid, member.usage) for pid, member in self._members.items())):
            self._note_looks()
        return self._abandon()

    def _note_looks(self) -> None:
        """Have the scheduler see what each worker uses, and find those who use far more than they declared."""
        for member in self._members.values():
            member.worker._measured_memory = member.usage.now
            over = _guarded(member) and member.usage.now > TOLERANCE * member.worker.memory
            if over and not member.overdrawn:
                member.overdrawn = member.usage.now
                self._overdrawn.append(member)

    def overdrawn(self) -> list[Member]:
        """Return the workers that were found since the last time to use far more memory than they declared."""
        found, self._overdrawn = self._overdrawn, []
        return found

    def _abandon(self) -> list[Member]:
        everybody = self._ladder is not None and self._ladder.has_given_up
        left = [
            member
            for member in self._members.values()
            if everybody or (member.ladder is not None and member.ladder.has_given_up)
        ]
        for member in left:
            self._see_off(member)
            self._spared_pids.add(member.process.pid or 0)  # nobody else is charged with it
            self._remove(member)
        return left


def _nothing(hand: Hand) -> None:
    """Do nothing."""


def _guarded(member: Member) -> bool:
    """Whether a worker is at its task, and has said how much memory that takes."""
    return bool(member.worker.memory) and not (member.sentence or member.notice or member.process.noted)


def _first(ready: dict[int, Frame]) -> Frame | None:
    """Take the first notice that has come."""
    while ready:
        frame = ready.pop(min(ready))
        if not isinstance(frame.head, int):  # the number of one that was declined, just when it was cancelled
            return _as_notice(frame)
    return None


def _as_notice(frame: Frame) -> Frame:
    if frame.head is None:
        return Frame(REPORTED, frame.segments)
    if isinstance(frame.head, list):  # it has done just when it was taken out of a batch
        _, name, began, ended, report = next(_channel.records(frame.segments[0]))
        return Frame(Done(True, name, began, ended, None, None, 0), (report,))
    return frame._replace(head=Done(*frame.head)) if isinstance(frame.head, tuple) else frame


def _name_in(notice: Frame) -> str:
    """Return the name that a worker says it has, of which not even the set may have been known."""
    return str(notice.head.name if isinstance(notice.head, Done) else notice.head.failure.name)


def _token(pipe: int) -> str:
    return str(os.fstat(pipe).st_ino)


def _next_ended() -> tuple[int, int, Any] | None:
    """Return pid, wait status and usage of a child that has ended, or None."""
    try:
        pid, status, rusage = os.wait4(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status, rusage) if pid else None
