"""Vocabulary, any process: everything that crosses a process boundary, and nothing else does.

Orders go from main to the listener, notices from a worker to the listener, events from the listener
to main. Each is the head of a frame (`_channel`); what is large or was pickled by a user's process
travels in the segments of that frame, unopened by the listener.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

__all__ = [
    "Cancel",
    "Cancelled",
    "Done",
    "End",
    "Event",
    "Failure",
    "Hello",
    "Movements",
    "Notice",
    "NewSets",
    "Order",
    "Over",
    "Outcome",
    "REPORTED",
    "Several",
    "Signal",
    "Snapshot",
    "Start",
    "State",
    "WorkerDone",
    "WorkerFailed",
    "from_wire",
    "to_wire",
]


class Signal(Enum):
    """What main may order the listener to do; the names are those of `Boss.control_signals`."""

    HALT = "start no more workers until RESUME"
    RESUME = "start workers"
    SEND_REPORT = "make an interim report ready"
    END = "no more instructions will come; leave when all is done"
    STOP = "let the running workers finish, start no other, then leave"
    STOP_LISTENING = "report what is done now; let the running workers finish unheard, then leave"
    STOP_RIGHTNOW = "stop the running workers, then leave"


class State:
    """Where a set of instructions stands: the words of `Boss.status` and of the report."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


class NewSets(NamedTuple):
    """Order: sets of instructions. Segments: the pickled common part, then one pickle, or bill, for each set.

    Attributes
    ----------
    numbers : range
        The number of each set, by which it is known from then on.
    calls : bool
        Whether the caller has a future for each: a failure is told there, and stops nothing.
    """

    numbers: range
    calls: bool = False


class Order(NamedTuple):
    """Order: one of the signals."""

    signal: Signal


class Cancel(NamedTuple):
    """Order: cancel some sets of instructions, by number or by name.

    Attributes
    ----------
    request : int
        The number of this order, for the answer.
    wanted : tuple of int and str
        What the user named.
    pending_only : bool
        Whether what runs is left to run.
    """

    request: int
    wanted: tuple[int | str, ...]
    pending_only: bool = False


class Outcome(Enum):
    """How a task ended, said by the worker; an exception that was *returned* is a REPORT."""

    REPORT = "report"
    FAILURE = "failure"


@dataclass(frozen=True)
class Failure:
    """What went wrong, in text. The exception itself is in the segment of the frame (`_errors.pack`)."""

    name: str
    status: str
    traceback: tuple[str, ...]
    instructions: str = ""
    output: str = ""


@dataclass(frozen=True)
class Notice:
    """Notice of a worker: how its task ended.

    Segments: the pickled report and its large buffers, or their bill (`_freight`), or the packed exception.

    Attributes
    ----------
    hopeless : bool
        Whether another trial would only fail again.
    remark : str
        Why a big report came through the pipe.
    """

    outcome: Outcome
    text: str = ""
    failure: Failure | None = None
    hopeless: bool = False
    remark: str = ""


#: the notice of nearly every worker: a report, and nothing to be said beside it; on the wire it is a None
REPORTED = Notice(Outcome.REPORT)


class Done(NamedTuple):
    """Notice of a worker whose process may have others to run: its task ended well. Segments: as in `Notice`.

    `began` and `ended` in seconds since the epoch, `user` and `system` in seconds of processor time (None where
    that was not asked for), `peak` in KiB, of the process so far.
    """

    stays: bool
    name: str
    began: float
    ended: float
    user: float | None
    system: float | None
    peak: int
    text: str = ""
    remark: str = ""

    @property
    def outcome(self) -> Outcome:
        """See `Notice`."""
        return Outcome.REPORT


class Hello(NamedTuple):
    """Event, the first one: the listener is there.

    Attributes
    ----------
    mark : str
        What tells the processes below it (`_tree.Mark`).
    """

    mark: str


class WorkerDone(NamedTuple):
    """Event: a worker has finished. Segments: its report, as in `Notice`.

    It travels as a plain tuple: the most frequent of all events, and pickled with its class it would cost the
    listener a score of pages that each worker has it copy.
    """

    name: str
    number: int


@dataclass(frozen=True)
class WorkerFailed:
    """Event: a failure that counts. Segment: the packed exception.

    Attributes
    ----------
    number : int or None
        Of the set of instructions; None where none is to blame.
    stops : bool
        Whether everything is being stopped for it.
    """

    failure: Failure
    number: int | None
    stops: bool


class Start(NamedTuple):
    """A launch. `when` in seconds since the epoch."""

    number: int
    name: str
    pid: int
    ticket: int | None
    trials: int
    when: float


class End(NamedTuple):
    """What became of a set of instructions (PENDING: it is tried again), and what its last worker used.

    It holds its start, which is told by itself only where the end does not follow at once.

    `when` in seconds since the epoch, `user` and `system` in seconds of processor time, `peak` in MiB; what is not
    known is None, and `unknown` says why.
    """

    number: int
    state: str
    when: float
    exitcode: int | None = None
    user: float | None = None
    system: float | None = None
    peak: float | None = None
    unknown: str = ""
    trials: int = 0
    start: Start | None = None


@dataclass(frozen=True)
class Movements:
    """Event: workers that have started and ended since the last time, and sets that were settled, in order."""

    moves: tuple[Start | End, ...]


class Several(NamedTuple):
    """Event: short workers, one after the other in one process, have done. Segment: their records (`_channel`)."""

    pid: int
    ticket: int | None
    trials: int = 1


class Cancelled(NamedTuple):
    """Event: the answer to `Cancel`, when what was wanted is cancelled.

    Attributes
    ----------
    request : int
        The number of the order.
    which : tuple of int and str
        Those that were cancelled, as they were named.
    """

    request: int
    which: tuple[int | str, ...]


@dataclass(frozen=True)
class Snapshot:
    """Event: the answer to SEND_REPORT; all that was done before has been sent."""


class Over(NamedTuple):
    """Event, the last one: the work is over. Segments: the sets that never ran, pickled, one each.

    Attributes
    ----------
    stopped : tuple of str
        Names of the workers that were interrupted.
    """

    stopped: tuple[str, ...] = ()


def to_wire(message: Event | NewSets | Order | Cancel) -> object:
    """Return what is pickled for a message between main and the listener: plain values, where it holds no others.

    To pickle an instance, or load it, looks up its class by name; after a fork, that copies pages. The most
    frequent of them go without a name, too.
    """
    if isinstance(message, Movements):
        return [_flat(move) for move in message.moves]
    if isinstance(message, (WorkerDone, Several)):
        return tuple(message)
    if isinstance(message, NewSets):
        return "NewSets", (message.numbers.start, len(message.numbers), message.calls)
    if isinstance(message, Order):
        return "Order", (message.signal.name,)
    return (type(message).__name__, tuple(message)) if isinstance(message, tuple) else message


def from_wire(head: object) -> Any:
    """Return the message that was sent as `head`."""
    if type(head) is list:
        return Movements(tuple(map(_move, head)))
    if type(head) is not tuple:
        return head
    first, *others = head
    if not isinstance(others[0], tuple):
        return WorkerDone(*head) if len(head) == len(WorkerDone._fields) else Several(*head)
    return _NAMED[first](*others[0])


def _new_sets(first: int, count: int, calls: bool) -> NewSets:
    return NewSets(range(first, first + count), calls)


def _order(name: str) -> Order:
    return Order(Signal[name])


def _flat(move: Start | End) -> tuple[Any, ...]:
    if isinstance(move, Start):
        return tuple(move)
    return (*move[:-1], None if move.start is None else tuple(move.start))


def _move(flat: tuple[Any, ...]) -> Start | End:
    if len(flat) == len(Start._fields):
        return Start._make(flat)
    *rest, start = flat
    return End._make((*rest, None if start is None else Start._make(start)))


Event = Hello | Movements | WorkerDone | Several | WorkerFailed | Cancelled | Snapshot | Over

#: by the name that they have on the wire
_NAMED: dict[str, Callable[..., Any]] = {
    "NewSets": _new_sets,
    "Order": _order,
    "Cancel": Cancel,
    "Hello": Hello,
    "Cancelled": Cancelled,
    "Over": Over,
}
