r"""Listener, pure: what is pending, running, done; which orders are legal when; when it is over.

No process, no pipe, no clock of its own. The listener tells the ledger what happened, the ledger says what is to
be done.

Two small machines::

    intake   OPEN --- END, STOP*, failure ---> CLOSED

    flow     HALTED <--- RESUME / HALT ---> WORKING
                \________ STOP*, failure ________/----> STOPPED   (for good)

A set of instructions is a *job* from the moment it comes in until it is settled::

    pending ---> running ---> done | failed | cancelled | stopped
       ^            |
       +- waiting <-+   failed, with trials left

The work is over when nothing runs and, the intake being CLOSED, nothing is left that may still be started.
Orders that come too late are ignored, in the one table below, because main cannot know how far we are; an order
that is not in the table is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from taylorism._errors import DuplicateName, SchedulerError, quote
from taylorism._messages import Failure, Signal
from taylorism._policy import Policy
from taylorism._queues import Listed, PendingQueue
from taylorism._shares import Granted

__all__ = ["Common", "Flow", "Intake", "Job", "Ledger", "Sentence", "Todo"]

#: what a scheduler adds to the sets that it launches
_MARKS = ("scheduler_ticket", "scheduler_hooks")
#: a key, and the identity of its value; all those of a set
_Item = tuple[str, int]
_Contents = frozenset[_Item]


class Intake(Enum):
    """Whether new instructions are taken."""

    OPEN = "open"
    CLOSED = "closed"


class Flow(Enum):
    """Whether workers may be started."""

    HALTED = "halted"
    WORKING = "working"
    STOPPED = "stopped"


class Todo(Enum):
    """What an order asks of the listener beyond what the ledger notes by itself."""

    NOTHING = "nothing"
    SEND_SNAPSHOT = "say that all that is done has been sent"
    STOP_WORKERS = "stop the running workers"
    GO_DEAF = "report now, and let the running workers finish unheard"


class Sentence(Enum):
    """What a failure leads to."""

    RETRY = "the same again, later"
    GO_ON = "the others go on"
    STOP = "stop everything"


_CLOSED, _STOPPED = Intake.CLOSED, Flow.STOPPED

#: signal -> (intake afterwards, flow afterwards, what to do); None: as it was
_ORDERS: dict[Signal, tuple[Intake | None, Flow | None, Todo]] = {
    Signal.HALT: (None, Flow.HALTED, Todo.NOTHING),
    Signal.RESUME: (None, Flow.WORKING, Todo.NOTHING),
    Signal.SEND_REPORT: (None, None, Todo.SEND_SNAPSHOT),
    Signal.END: (_CLOSED, None, Todo.NOTHING),
    Signal.STOP: (_CLOSED, _STOPPED, Todo.NOTHING),
    Signal.STOP_LISTENING: (_CLOSED, _STOPPED, Todo.GO_DEAF),
    Signal.STOP_RIGHTNOW: (_CLOSED, _STOPPED, Todo.STOP_WORKERS),
}


class Common(NamedTuple):
    """The part of the instructions that some sets have in common, pickled, under a number of its own.

    `views` is what it needs of the memory in which big buffers cross.
    """

    number: int
    packed: bytes
    views: tuple[memoryview, ...] = ()


@dataclass(eq=False, slots=True)
class Job:
    """A set of instructions that is not settled yet.

    Attributes
    ----------
    number : int
        What main knows it by.
    instructions : dict
        What its worker is made of.
    trials : int
        Launches so far.
    common, packed : Common and bytes, or None
        Its instructions as main has packed them, if they may be sent on like that.
    views : tuple of memoryview
        As of `Common`.
    call : bool
        Whether it has a future, which is told of its failure: that stops nothing.
    loaded : dict or None
        Its instructions as they came, where something in them is big: it is kept as long as they may be sent on.
    light : bool
        Whether it takes next to nothing to send them on.
    """

    number: int
    instructions: dict[str, Any]
    trials: int = 0
    common: Common | None = None
    packed: bytes | None = None
    views: tuple[memoryview, ...] = ()
    call: bool = False
    loaded: dict[str, Any] | None = None
    light: bool = False

    def changes(self) -> dict[str, Any] | None:
        """Return how its instructions differ from what came, to be sent on as it came; None for small ones."""
        before, now = self.loaded, self.instructions
        if before is None or self.packed is None or before.keys() - now.keys():
            return None
        return {key: value for key, value in now.items() if key not in before or before[key] is not value}

    @property
    def name(self) -> str:
        """The name that it was given, or its number."""
        return self.given_name or f"#{self.number}"

    @property
    def given_name(self) -> str | None:
        """The name that it was given, if that is its name: not what footprints makes one of, nor one with brackets.

        A plain string: one of a class of the user's may have no hash, no truth value, anything.
        """
        name = self.instructions.get("name")
        plain = str.__str__(name) if isinstance(name, str) else ""
        return plain if plain and "[" not in plain else None

    @property
    def callings(self) -> set[int | str]:
        """What the user may call it by."""
        name = self.given_name
        return {self.number} if name is None else {self.number, name}


@dataclass
class Ledger:
    """The state of the work.

    Attributes
    ----------
    policy : Policy
        What the caller wants on failure.
    queue : PendingQueue or None
        That of the scheduler, if it has one. It is then asked what may start, and not for its `launchable`.
    workers : dict
        Running workers by name: what schedulers see.
    records : list of dict
        ``{'name': ..., 'report': ...}`` of what is done, in order of completion: what schedulers see.
    stopped : list of str
        Names of workers that were interrupted.
    failure : Failure or None
        The first one that stopped everything.
    """

    policy: Policy = field(default_factory=Policy)
    intake: Intake = Intake.OPEN
    flow: Flow = Flow.HALTED
    queue: PendingQueue | None = None
    workers: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    failure: Failure | None = None
    _listed: Listed = field(default_factory=Listed)
    #: the jobs of `pending`, by the identity of the dict: also what is asked whether there is any, at each turn
    _jobs: dict[int, Job] = field(default_factory=dict)
    #: those that wait for their next trial, in order: when, number, which
    _waiting: list[tuple[float, int, Job]] = field(default_factory=list)

    @property
    def _sets(self) -> PendingQueue:
        return self._listed if self.queue is None else self.queue

    @property
    def pending(self) -> list[dict[str, Any]]:
        """Sets of instructions that were not launched, in order: what schedulers see."""
        return list(self._sets)

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will."""
        if self.workers or self.intake is Intake.OPEN:
            return False
        return self.flow is Flow.STOPPED or not (self._jobs or self._waiting)

    @property
    def may_launch(self) -> bool:
        """Whether there is anything to ask a scheduler."""
        return self.flow is Flow.WORKING and bool(self._jobs)

    # -- orders ---------------------------------------------------------------------------------------

    def obey(self, signal: Signal) -> Todo:
        """Note an order, and say what it asks of the listener."""
        intake, flow, todo = _ORDERS[signal]
        self.intake = intake or self.intake
        if flow is not None and self.flow is not Flow.STOPPED:
            self._flow_to(flow)
        return todo

    def _flow_to(self, flow: Flow) -> None:
        self.flow = flow
        if flow is Flow.STOPPED:
            self.give_back([job for _, _, job in self._waiting])  # they will not have their next trial
            self._waiting.clear()

    def add(self, jobs: Iterable[Job], in_time: bool = False) -> None:
        """Take new sets of instructions; ignored once the intake is closed, but for those that came in time."""
        if in_time or self.intake is Intake.OPEN:
            self._sets.add(self._noted(jobs))

    def _noted(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        noted = {id(job.instructions): job for job in jobs}
        self._jobs.update(noted)
        return [job.instructions for job in noted.values()]

    def withdraw(self, wanted: Set[int | str]) -> list[Job]:
        """Remove what is wanted, and not running, from the queue, and return it."""
        found = [job for job in self._jobs.values() if not wanted.isdisjoint(job.callings)]
        for job in found:
            del self._jobs[id(job.instructions)]
        self._sets.remove_all([job.instructions for job in found])
        put_off = [entry for entry in self._waiting if not wanted.isdisjoint(entry[2].callings)]
        self._waiting = [entry for entry in self._waiting if entry not in put_off]
        return found + [job for _, _, job in put_off]

    # -- launching ------------------------------------------------------------------------------------

    def decide(self, scheduler: Any, now: float = 0.0) -> list[Job]:
        """Return what is to be launched now; it is pending no more.

        Parameters
        ----------
        scheduler : object
            Asked for its `launchable`, unless there is a queue. It gets copies of the lists, which it may sort
            or take from, and its answer is checked; it may also answer with copies of the sets.
        now : float
            For the queue.

        Raises
        ------
        SchedulerError
            Its answer is not two lists that hold all the pending sets.
        """
        if self.queue is not None:
            return self._known(self.queue.take(self.workers, now), scheduler)
        pending = self.pending
        answer = scheduler.launchable(list(pending), workers=dict(self.workers), report=list(self.records))
        launch, keep = _checked(answer, scheduler, len(pending))
        jobs = _recognised([*launch, *keep], self._jobs)
        self._jobs.clear()
        self._listed.keep(self._noted(jobs[len(launch) :]))
        return jobs[: len(launch)]

    @property
    def gives_more(self) -> bool:
        """Whether a set may run in the place of another without a decision of its own.

        Else its scheduler looks at what is done, or at what each takes: memory, cpus, a value that one may hold.
        """
        return self.queue is not None and type(self.queue).more is not PendingQueue.more

    def more(self, most: int) -> list[Job]:
        """Return what may run in the place of a worker that has done, without a decision of its own."""
        if self.queue is None or self.flow is not Flow.WORKING:
            return []
        return [self._jobs.pop(id(each)) for each in self.queue.more(most)]

    @property
    def waiting(self) -> int:
        """How many sets wait for a decision."""
        return len(self._jobs)

    def _known(self, taken: list[dict[str, Any]], scheduler: Any) -> list[Job]:
        try:
            return [self._jobs.pop(id(each)) for each in taken]
        except KeyError:
            raise SchedulerError(
                f"the queue of {type(scheduler).__name__} gave out a set that is not pending: its take() must "
                "return the very dicts that it was given, each once."
            ) from None

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Put what was launched and could not be started, or is to be tried again, at the head of the queue."""
        for job in jobs:
            for mark in _MARKS:
                job.instructions.pop(mark, None)
            if isinstance(job.instructions.get("ncpus"), Granted):
                del job.instructions["ncpus"]
        self._sets.put_back(self._noted(jobs))

    def started(self, worker: Any, job: Job | None = None, now: float = 0.0) -> None:
        """Note that `worker` runs, on that job.

        Raises
        ------
        DuplicateName
            Another one of its name does.
        """
        name = worker.name
        if name in self.workers:
            raise DuplicateName(
                f"several workers wear the same name: {name}. Names of workers that run at the same time "
                "must differ; leave the name out, and each gets one of its own."
            )
        self.workers[name] = worker
        if self.queue is not None and job is not None:
            self.queue.started(name, job.instructions, now)

    # -- ends -----------------------------------------------------------------------------------------

    def left(self, name: str) -> None:
        """Note that the process of worker `name` is gone."""
        if self.workers.pop(name, None) is not None and self.queue is not None:
            self.queue.ended(name)

    def done(self, name: str, report: object) -> None:
        """Note a report."""
        self.records.append({"name": name, "report": report})

    def interrupted(self, name: str) -> None:
        """Note that worker `name` was stopped before it had finished."""
        self.stopped.append(name)

    def judge(self, job: Job | None, again: bool) -> Sentence:
        """Say what the failure of a job leads to.

        Parameters
        ----------
        job : Job or None
            None where no set of instructions is to blame.
        again : bool
            Whether another trial might end better.
        """
        if job is None:
            return Sentence.STOP
        if again and job.trials < self.policy.max_trials and self.flow is not Flow.STOPPED:
            return Sentence.RETRY
        return Sentence.STOP if self.policy.stops and not job.call else Sentence.GO_ON

    def try_again(self, job: Job, name: str | None, now: float) -> float:
        """Have a job that failed launched again, under the name that its worker had; return in how many seconds."""
        delay = self.policy.delay(job.trials)
        job.packed = None
        if name is not None:
            job.instructions["name"] = name
        if delay > 0:
            self._waiting.append((now + delay, job.number, job))
            self._waiting.sort()
        else:
            self.give_back([job])
        return delay

    @property
    def next_trial(self) -> float:
        """When a job has waited long enough for its next trial."""
        return self._waiting[0][0] if self._waiting else float("inf")

    def end_of_waiting(self, now: float) -> bool:
        """Queue what has waited long enough; return whether there was any."""
        due = [job for when, _, job in self._waiting if when <= now]
        del self._waiting[: len(due)]
        self.give_back(due)
        return bool(due)

    def fail(self, failure: Failure) -> bool:
        """Note a failure that stops everything; return whether it is the first."""
        first = self.failure is None
        if first:
            self.failure = failure
            self.intake = Intake.CLOSED
            self._flow_to(Flow.STOPPED)
        return first


def _recognised(answer: list[dict[str, Any]], known: dict[int, Job]) -> list[Job]:
    """Return the jobs of the sets that a scheduler answered, each of which it may have copied."""
    left = dict(known)
    found = [left.pop(id(each), None) for each in answer]
    copies = _Copies(left.values()) if None in found else None
    jobs = []
    for instructions, same in zip(answer, found, strict=True):
        assert same is not None or copies is not None
        job = same or copies.original(instructions)  # type: ignore[union-attr]
        job.instructions = instructions
        jobs.append(job)
    return jobs


#: a value that no more jobs have than that tells them from others
_RARE = 8


class _Copies:
    """Finds the job of which a set is a copy, perhaps with some values changed.

    An exact copy is found by its contents. A changed one is taken for the job with which it has most values in
    common, less those that it has not; of several, for the first. It is compared with those jobs alone that have a
    value in common with it which few have. Where there is none, all jobs that agree in those values that many have
    are as like to it, so the first of them stands for all: very many changed copies are not compared with as many
    jobs each.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._left = {job.number: job for job in jobs}
        self._exact: dict[_Contents, list[int]] = {}
        self._sharing: dict[_Item, list[int]] = {}
        self._kinds: dict[tuple[_Contents, int], list[int]] | None = None
        for number, job in reversed(self._left.items()):
            contents = _contents(job.instructions)
            self._exact.setdefault(contents, []).append(number)
            for item in contents:
                self._sharing.setdefault(item, []).append(number)

    def original(self, instructions: dict[str, Any]) -> Job:
        contents = _contents(instructions)
        number = self._last(self._exact.get(contents, []))
        if number is None:
            number = max(self._candidates(contents), key=partial(self._likeness, instructions))
        return self._left.pop(number)

    def _last(self, numbers: list[int]) -> int | None:
        """Return the last of some numbers that has not been found yet."""
        while numbers and numbers[-1] not in self._left:
            numbers.pop()
        return numbers[-1] if numbers else None

    def _candidates(self, contents: _Contents) -> list[int]:
        """Return, in order, the jobs of which a set may be a changed copy."""
        shared = (self._sharing.get(item, ()) for item in contents)
        few = {number for numbers in shared if len(numbers) <= _RARE for number in numbers if number in self._left}
        if not few:
            kinds = self._kinds = self._kinds or self._by_kind()
            few = {number for numbers in kinds.values() if (number := self._last(numbers)) is not None}
        return sorted(few)

    def _by_kind(self) -> dict[tuple[_Contents, int], list[int]]:
        """Return the jobs, the last first, by those of their values that many have, and how many they have."""
        kinds: dict[tuple[_Contents, int], list[int]] = {}
        for number, job in reversed(self._left.items()):
            contents = _contents(job.instructions)
            common = frozenset(item for item in contents if len(self._sharing[item]) > _RARE)
            kinds.setdefault((common, len(contents)), []).append(number)
        return kinds

    def _likeness(self, instructions: dict[str, Any], number: int) -> int:
        """Return how many values are the same, less how many are not."""
        own = self._left[number].instructions
        return sum(1 if instructions.get(k, _MARKS) is v else -1 for k, v in own.items())


def _contents(instructions: dict[str, Any]) -> _Contents:
    return frozenset((key, id(value)) for key, value in instructions.items() if key not in _MARKS)


def _checked(
    answer: Any, scheduler: Any, expected: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the two lists of a scheduler's answer, or say what is wrong with it."""
    who = f"the scheduler {type(scheduler).__name__}"
    try:
        launch, keep = map(list, answer)
    except (TypeError, ValueError):
        raise SchedulerError(
            f"{who} answered {quote(answer, 200)}: its launchable() must return two lists of instructions, "
            "those to launch and those to keep."
        ) from None
    if not all(isinstance(each, dict) for each in (*launch, *keep)):
        raise SchedulerError(f"{who} answered lists that hold other things than dicts of instructions.")
    known = {id(each) for each in (*launch, *keep)}
    if not len(known) == len(launch) + len(keep) == expected:
        raise SchedulerError(
            f"{who} was given {expected} sets of instructions and answered {len(launch)} to launch and "
            f"{len(keep)} to keep: each set must be in exactly one of the two lists."
        )
    return launch, keep
