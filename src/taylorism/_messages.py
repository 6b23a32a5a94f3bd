"""Vocabulary, any process: everything that crosses a process boundary, and nothing else does.

Orders go from main to the listener, notices from a worker to the listener, events from the listener
to main. Each is the head of a frame (`_channel`); what is large or was pickled by a user's process
travels in the segments of that frame, unopened by the listener.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Event",
    "Failure",
    "Hello",
    "Notice",
    "NewSets",
    "Order",
    "Over",
    "Outcome",
    "Signal",
    "Snapshot",
    "WorkerDone",
    "WorkerFailed",
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


@dataclass(frozen=True)
class NewSets:
    """Order: sets of instructions. Segments: the pickled common part, then one pickle for each set."""


@dataclass(frozen=True)
class Order:
    """Order: one of the signals."""

    signal: Signal


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


@dataclass(frozen=True)
class Notice:
    """Notice of a worker: how its task ended.

    Segments: the pickled report and its large buffers, or the packed exception.
    """

    outcome: Outcome
    text: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class Hello:
    """Event, the first one: the listener is there.

    Attributes
    ----------
    mark : str
        What tells the processes below it (`_tree.Mark`).
    """

    mark: str


@dataclass(frozen=True)
class WorkerDone:
    """Event: a worker has finished. Segments: its report, as in `Notice`."""

    name: str


@dataclass(frozen=True)
class WorkerFailed:
    """Event: the first failure; what was running is being stopped. Segment: the packed exception."""

    failure: Failure


@dataclass(frozen=True)
class Snapshot:
    """Event: the answer to SEND_REPORT; all that was done before has been sent."""


@dataclass(frozen=True)
class Over:
    """Event, the last one: the work is over. Segments: the sets that never ran, pickled, one each.

    Attributes
    ----------
    stopped : tuple of str
        Names of the workers that were interrupted.
    """

    stopped: tuple[str, ...] = ()


Event = Hello | WorkerDone | WorkerFailed | Snapshot | Over
