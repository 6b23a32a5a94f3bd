"""Listener: batches of short workers, given to processes that run several (`_hands`), and not looked at one by one.

To hire a worker here, to tell of its start and its end, and to wake for its report takes longer than a short task.
So where a scheduler says that what comes next may run in the place of what runs (`PendingQueue.more`), and nothing
asks for each worker to be watched, sets are sent as main had packed them, as many at a time as take a few
milliseconds, and their reports are passed on together, unopened. The process hires.

The rest is as ever. A set is begun by taking its permit, so what is not begun can be taken back: when a process is
silent for a moment, because one of its tasks is long (none waits behind it while there is room elsewhere), when
something is cancelled or halted, or when the process dies. The one that it was at then becomes a `Member` of the
crew, and is judged as any other.
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from taylorism._channel import Frame
from taylorism._crew import Crew
from taylorism._hands import Hand
from taylorism._ledger import Job, Ledger
from taylorism._member import Member
from taylorism._messages import Done, End, Several, Start, State, WorkerDone
from taylorism._policy import Policy
from taylorism._shares import share_among
from taylorism._stowage import Stowage
from taylorism._upstream import Upstream

__all__ = ["Batch", "Batches", "Seat"]

#: seconds of work that a process is given at a time; half of it is still there when it is given more
AMOUNT = 0.03
#: sets that it is given at a time, at most
MOST = 512
#: seconds of silence after which what it has not begun is taken back
SILENCE = 0.03
#: seconds for which short workers may speak before they are heard. To be woken by each made them and the listener
#: take turns on a processor: 40 microseconds for each write, where 2 are enough
NAP = 0.004
#: how much the last task counts for the time that the next will take
_WEIGHT = 0.3

_NEVER = float("inf")


@dataclass
class Seat:
    """What stands for the workers of a batch where schedulers count those that run."""

    name: str
    scheduler_ticket: int | None
    scheduler_hooks: Any
    memory: float = 0.0
    expected_time: float = 0.0


@dataclass(eq=False)
class Batch:
    """What a process was given and has not done; the first may have been begun.

    Attributes
    ----------
    heard : float
        When something was last heard of it, on the monotonic clock.
    told : bool
        Whether main knows that the first one runs.
    """

    hand: Hand
    seat: Seat
    jobs: deque[Job]
    heard: float = field(default_factory=time.monotonic)
    told: bool = False


class Batches:
    """All of them.

    Parameters
    ----------
    policy, ledger, crew, upstream, poller
        Of the listener.
    verbose : bool
        Whether starts and reports are logged.
    stowage : Stowage
        Where their processes put what is big.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        crew: Crew,
        upstream: Upstream,
        poller: select.poll,
        verbose: bool,
        stowage: Stowage,
    ) -> None:
        watched = (policy.timeout, policy.memory_guard, policy.log_dir)
        unwatched = not verbose and all(each is None for each in watched)
        self._allowed = policy.reuses and unwatched and ledger.gives_more
        self._ledger = ledger
        self._crew = crew
        self._upstream = upstream
        self._poller = poller
        self._stowage = stowage
        self._by_pipe: dict[int, Batch] = {}
        self._silent: dict[int, Batch] = {}  # those that the loop waits for
        self._pipes = select.poll()  # of the others
        self._names: set[str | None] = set()
        self._seconds = _NEVER  # that a task is expected to take
        self._news = False
        crew.on_death = self._on_death

    # -- how long tasks take --------------------------------------------------------------------------

    def learn(self, done: Done) -> None:
        """Take note of what a worker took that was watched."""
        self._expect(max(done.ended - done.began, 0.0))

    def _expect(self, seconds: float, count: int = 1) -> None:
        """Expect what `count` tasks took each: where many were short, one that was not is soon forgotten."""
        known = seconds if self._seconds == _NEVER else self._seconds
        weight = 1 - (1 - _WEIGHT) ** count
        self._seconds = max(known + weight * (seconds - known), 1e-6)

    def _size(self) -> int:
        """Return how many sets to give at a time: not so many that the others would have none."""
        share = math.ceil(self._ledger.waiting / (2 * max(1, len(self._ledger.workers))))
        return int(min(MOST, AMOUNT / self._seconds, share + 1))

    # -- giving ---------------------------------------------------------------------------------------

    def place(self, chosen: list[Job]) -> list[Job]:
        """Give what may start to processes that are there, each with what may follow it; return the others."""
        if not self._allowed or self._size() < 2:
            return chosen
        return [job for job in chosen if not self._begin(job)]

    def _may_travel(self, job: Job, like: Job) -> bool:
        """Whether a set may be sent as it came, together with another; its name is noted then."""
        if job.common is not like.common or job.packed is None or job.trials:
            return False
        if (name := job.given_name) is None:
            return True
        if name in self._names or name in self._ledger.workers:
            return False
        self._names.add(name)
        return True

    def _begin(self, job: Job) -> bool:
        if not self._may_travel(job, job):
            return False
        hooks = job.instructions.get("scheduler_hooks")
        hand = self._crew.hands.free(share_among(hooks))
        if hand is None:
            self._forget_names([job])
            return False
        seat = Seat(f"process {hand.process.pid}", job.instructions.get("scheduler_ticket"), hooks)
        batch = hand.batch = Batch(hand, seat, deque())
        if not self._give(batch, [job, *self._more(batch, job, self._size() - 1)]):
            hand.batch = None
            self._crew.hands.rest(hand)
            return False
        self._ledger.workers[seat.name] = seat
        self._by_pipe[hand.inflow.fd] = batch
        self._pipes.register(hand.inflow.fd, select.POLLIN)
        return True

    def _more(self, batch: Batch, like: Job, most: float) -> list[Job]:
        """Return what may follow, as far as it can be sent together with `like`."""
        room = int(min(most, batch.hand.left - 1))
        jobs = self._ledger.more(room) if room > 0 else []
        fine = next((place for place, job in enumerate(jobs) if not self._may_travel(job, like)), len(jobs))
        self._ledger.give_back(jobs[fine:])
        return jobs[:fine]

    def _give(self, batch: Batch, jobs: list[Job]) -> bool:
        """Send sets to a process; if it is gone, they are not pending and it has none of them."""
        marks = {"scheduler_ticket": batch.seat.scheduler_ticket, "scheduler_hooks": batch.seat.scheduler_hooks}
        if not self._crew.hands.give_several(batch.hand, jobs, marks):
            self._forget_names(jobs)
            self._ledger.give_back(jobs[1:])
            return False
        batch.jobs.extend(jobs)
        return True

    def _forget_names(self, jobs: Iterable[Job]) -> None:
        if self._names:
            self._names.difference_update(job.given_name for job in jobs)

    # -- hearing --------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether processes speak that do not wake the loop."""
        return len(self._by_pipe) > len(self._silent)

    def ready(self) -> set[int]:
        """Return the pipes of those that have spoken."""
        return {fd for fd, _ in self._pipes.poll(0)} if self.busy else set()

    def has_news(self) -> bool:
        """Whether, since the last time, a process has done with its batch, or something is pending again."""
        news, self._news = self._news, False
        return news

    def heard(self, ready: Iterable[int]) -> list[Member]:
        """Take what processes say; return who wants to be heard by himself."""
        members = []
        for batch in [self._by_pipe[fd] for fd in ready if fd in self._by_pipe] if self._by_pipe else ():
            members += self._hear(batch)
        return members

    def _hear(self, batch: Batch) -> list[Member]:
        inflow = batch.hand.inflow
        inflow.pull()
        self._take(batch)
        if inflow.ready or inflow.ended:  # it has failed; or has closed its pipe, and can say nothing more
            return self._fall(batch)
        if not batch.jobs:
            self._finish(batch)
        elif len(batch.jobs) <= self._size() // 2:
            self._refill(batch)
        return []

    def _take(self, batch: Batch) -> None:
        """Pass on all that has been done."""
        ready = batch.hand.inflow.ready
        while ready and not hasattr(ready[min(ready)].head, "outcome"):
            self._pass_on(batch, ready.pop(min(ready)))

    def _pass_on(self, batch: Batch, frame: Frame) -> None:
        pid, seat = batch.hand.process.pid, batch.seat
        if isinstance(frame.head, int):
            self._hand_back(batch)
            return
        if isinstance(frame.head, list):
            self._upstream.tell(Several(pid, seat.scheduler_ticket), frame.segments)
            count, seconds = len(frame.head), frame.head.seconds  # type: ignore[attr-defined]
        else:
            done, count = Done(*frame.head), 1
            self._tell_one(batch, done, frame)
            seconds = done.ended - done.began
        gone = [batch.jobs.popleft() for _ in range(count)]
        self._forget_names(gone)
        # As the process has it: on a busy machine, it may have been done for long before it is heard. To count that
        # made the next batch smaller, and so the next wait for one longer for each.
        self._expect(max(seconds, 0.0) / count, count)
        batch.heard = time.monotonic()
        self._wake(batch)

    def _hand_back(self, batch: Batch) -> None:
        """Have one be hired here that is not set to work as others are (`Worker.work`)."""
        job = batch.jobs.popleft()
        job.packed = None
        self._forget_names([job])
        self._ledger.give_back([job])
        self._news, batch.heard = True, time.monotonic()
        self._wake(batch)

    def _tell_one(self, batch: Batch, done: Done, frame: Frame) -> None:
        """Tell of one whose report is large."""
        number, seat, pid = batch.jobs[0].number, batch.seat, batch.hand.process.pid
        start = Start(number, done.name, pid, seat.scheduler_ticket, 1, done.began)
        self._stowage.hand_on(frame, done.remark, batch.hand.berth, self._upstream.takes)
        self._upstream.tell(WorkerDone(done.name, number), frame.segments)
        why = "its process runs many short workers"
        self._upstream.note(End(number, State.DONE, done.ended, None, done.user, done.system, None, why, 1, start))

    def _refill(self, batch: Batch) -> None:
        """Give more to a process that will soon have done, if it may have it."""
        like = batch.jobs[-1]
        if self._ledger.may_launch and not batch.hand.leaving:
            jobs = self._more(batch, like, self._size())
            if jobs and not self._give(batch, jobs):
                self._ledger.give_back(jobs[:1])

    def _finish(self, batch: Batch) -> None:
        self._leave(batch)
        self._vacate(batch)

    def _vacate(self, batch: Batch) -> None:
        """Note that a process has done with its batch."""
        self._ledger.left(batch.seat.name)
        self._crew.hands.rest(batch.hand)
        self._news = True

    def _leave(self, batch: Batch) -> None:
        """Let go of a batch: its process has nothing more to do, or becomes a member of the crew."""
        self._wake(batch)
        batch.hand.batch = None
        del self._by_pipe[batch.hand.inflow.fd]
        self._pipes.unregister(batch.hand.inflow.fd)
        self._forget_names(batch.jobs)

    def _wait_for(self, batch: Batch) -> None:
        """Have the loop wait for a process that is at a long task, and main know of it."""
        job, hand, fd = batch.jobs[0], batch.hand, batch.hand.inflow.fd
        batch.told = True
        self._silent[fd] = batch
        self._pipes.unregister(fd)
        self._poller.register(fd, select.POLLIN)
        start = Start(job.number, job.name, hand.process.pid, batch.seat.scheduler_ticket, 1, time.time())
        self._upstream.note(lambda: start if batch.told else None)

    def _wake(self, batch: Batch) -> None:
        """Have it back among those that do not wake the loop."""
        fd = batch.hand.inflow.fd
        batch.told = False
        if self._silent.pop(fd, None) is not None:
            self._poller.unregister(fd)
            self._pipes.register(fd, select.POLLIN)

    # -- taking back ----------------------------------------------------------------------------------

    def _take_back(self, batch: Batch) -> None:
        """Have pending again what is not begun."""
        count = min(batch.hand.take_back(), len(batch.jobs))
        back = [batch.jobs.pop() for _ in range(count)][::-1]
        batch.hand.left += count
        self._forget_names(back)
        self._ledger.give_back(back)
        self._news = self._news or bool(back)

    def _leave_with_one(self, batch: Batch) -> None:
        """Leave a process nothing but what it is at.

        What is not begun is taken back before what has done is heard, and not the other way round: between the two,
        the process may go on to the next.
        """
        self._take_back(batch)
        batch.hand.inflow.pull()
        self._take(batch)

    def take_back_all(self) -> None:
        """Have pending again all that is not begun."""
        for batch in list(self._by_pipe.values()):
            self._leave_with_one(batch)
            self._settle(batch)

    def _settle(self, batch: Batch) -> None:
        """Wait for the one that runs; where none does, let go of the batch."""
        if not batch.jobs:
            self._finish(batch)
        elif not batch.told:
            self._wait_for(batch)

    @property
    def next_deadline(self) -> float:
        """When a process has been silent for too long, on the monotonic clock."""
        waiting = (batch.heard + SILENCE for batch in self._by_pipe.values() if not batch.told)
        return min(waiting, default=_NEVER)

    def enforce(self, now: float) -> None:
        """Take back what is behind a long task."""
        silent = [batch for batch in self._by_pipe.values() if not batch.told and batch.heard + SILENCE <= now]
        for batch in silent:
            self._take_back(batch)
            self._expect(now - batch.heard)
            self._settle(batch)

    def find(self, wanted: Set[int | str]) -> None:
        """Take what is wanted out of batches: it is pending then, or a member of the crew."""
        for batch in list(self._by_pipe.values()):
            if any(not wanted.isdisjoint(job.callings) for job in batch.jobs):
                self._leave_with_one(batch)  # what has done, has done
                if batch.jobs and not wanted.isdisjoint(batch.jobs[0].callings):
                    self._fall(batch)
                else:
                    self._settle(batch)

    # -- one by one -----------------------------------------------------------------------------------

    def _fall(self, batch: Batch) -> list[Member]:
        """Make the one that a process is at a member of the crew, to be looked after by itself."""
        self._take_back(batch)
        self._leave(batch)
        if not batch.jobs:
            self._vacate(batch)
            return []
        job = batch.jobs.popleft()
        job.trials += 1
        return [self._crew.adopt(batch.seat, job, batch.hand)]

    def _on_death(self, hand: Hand) -> None:
        """Hear a process to its end, which has died."""
        batch: Batch = hand.batch
        hand.inflow.pull(to_the_end=True)
        self._take(batch)
        self._fall(batch)
