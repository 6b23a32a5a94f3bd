r"""Listener, pure: what is pending, running, done; which orders are legal when; when it is over.

No process, no pipe, no clock. The listener tells the ledger what happened, the ledger says what is to be done.

Two small machines::

    intake   OPEN --- END, STOP*, failure ---> CLOSED

    flow     HALTED <--- RESUME / HALT ---> WORKING
                \________ STOP*, failure ________/----> STOPPED   (for good)

The work is over when nothing runs and, the intake being CLOSED, nothing is left that may still be started.
Orders that come too late are ignored, in the one table below, because main cannot know how far we are; an order
that is not in the table is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from taylorism._errors import DuplicateName, SchedulerError, quote
from taylorism._messages import Failure, Signal

__all__ = ["Flow", "Intake", "Ledger", "Todo"]


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


@dataclass
class Ledger:
    """The state of the work.

    Attributes
    ----------
    pending : list of dict
        Sets of instructions that were not launched, in order.
    workers : dict
        Running workers by name: what schedulers see.
    records : list of dict
        ``{'name': ..., 'report': ...}`` of what is done, in order of completion: what schedulers see.
    stopped : list of str
        Names of workers that were interrupted.
    failure : Failure or None
        The first one.
    """

    intake: Intake = Intake.OPEN
    flow: Flow = Flow.HALTED
    pending: list[dict[str, Any]] = field(default_factory=list)
    workers: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will."""
        if self.workers or self.intake is Intake.OPEN:
            return False
        return self.flow is Flow.STOPPED or not self.pending

    @property
    def may_launch(self) -> bool:
        """Whether there is anything to ask a scheduler."""
        return self.flow is Flow.WORKING and bool(self.pending)

    def obey(self, signal: Signal) -> Todo:
        """Note an order, and say what it asks of the listener."""
        intake, flow, todo = _ORDERS[signal]
        self.intake = intake or self.intake
        if flow is not None and self.flow is not Flow.STOPPED:
            self.flow = flow
        return todo

    def add(self, sets: Iterable[dict[str, Any]]) -> None:
        """Take new sets of instructions; ignored once the intake is closed."""
        if self.intake is Intake.OPEN:
            self.pending.extend(sets)

    def decide(self, scheduler: Any, trusted: bool = False) -> list[dict[str, Any]]:
        """Ask `scheduler`, and return the sets to be launched now; they are pending no more.

        Parameters
        ----------
        scheduler : object
            Asked for its `launchable`.
        trusted : bool
            Whether it is one of ours. Any other gets copies, which it may sort or take from, and its answer
            is checked.

        Raises
        ------
        SchedulerError
            Its answer is not two lists that hold all the pending sets.
        """
        ask = scheduler.launchable
        if trusted:
            launch, self.pending = ask(self.pending, workers=self.workers, report=self.records)
            return list(launch)
        answer = ask(list(self.pending), workers=dict(self.workers), report=list(self.records))
        launch, self.pending = _checked(answer, scheduler, len(self.pending))
        return launch

    def give_back(self, sets: Sequence[dict[str, Any]]) -> None:
        """Put launched sets that could not be started back at the head of the queue."""
        self.pending[:0] = sets

    def started(self, worker: Any) -> None:
        """Note that `worker` runs.

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

    def left(self, name: str) -> None:
        """Note that the process of worker `name` is gone."""
        self.workers.pop(name, None)

    def done(self, name: str, report: object) -> None:
        """Note a report."""
        self.records.append({"name": name, "report": report})

    def interrupted(self, name: str) -> None:
        """Note that worker `name` was stopped before it had finished."""
        self.stopped.append(name)

    def fail(self, failure: Failure) -> bool:
        """Note a failure; return whether it is the first, which stops everything."""
        first = self.failure is None
        if first:
            self.failure = failure
            self.intake, self.flow = Intake.CLOSED, Flow.STOPPED
        return first


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
