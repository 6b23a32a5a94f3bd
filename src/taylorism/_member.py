"""Listener: one worker that runs, or has ended, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taylorism import _tree
from taylorism._channel import Frame, Inflow
from taylorism._hands import Hand
from taylorism._hold import Berth
from taylorism._ladder import Ladder
from taylorism._ledger import Job
from taylorism._messages import Done, Notice, Outcome, Start
from taylorism._process import ForkedProcess
from taylorism._usage import Usage

__all__ = ["Member"]

_NEVER = float("inf")


@dataclass(eq=False)
class Member:
    """A running worker, and what is known of its end.

    Attributes
    ----------
    token : str
        The number of its pipe, by which what it starts can be told.
    logged : tuple of two int
        Bytes in its log files before it began.
    seconds : float
        What time it may take.
    deadline : float
        When it has had that, on the monotonic clock.
    leave_by : float
        When its process has to be gone, its notice having come.
    family : Family or None
        What is being stopped on its account alone, itself included; `ladder` is how.
    sentence : str
        Why: a word of `State`.
    started : float
        When it was, in seconds since the epoch.
    spoke_first : bool
        Whether its failure, or its death, came before everything was stopped.
    out_of_memory : bool
        Whether the kernel killed it for want of memory, as far as can be told.
    overdrawn : float
        What it was seen to use when that was far more than it had declared, in MiB.
    verdict : str
        The state that it ends in, once that is known.
    concluded : bool
        Whether main is being told of its end.
    berth : Berth or None
        Where its process puts what is big.
    forks : int
        By which it is known what it shares with us (`_lease.forks`).
    hand : Hand or None
        Its process, where that runs several workers.
    seat : str
        What stands for it in the ledger, if that is not its own name.
    """

    name: str
    worker: Any
    job: Job
    process: ForkedProcess
    inflow: Inflow
    usage: Usage
    token: str = ""
    logged: tuple[int, int] = (0, 0)
    notice: Frame | None = None
    seconds: float = _NEVER
    deadline: float = _NEVER
    leave_by: float = _NEVER
    family: _tree.Family | None = None
    ladder: Ladder | None = None
    sentence: str = ""
    started: float = 0.0
    spoke_first: bool = False
    overdrawn: float = 0.0
    out_of_memory: bool = False
    verdict: str = ""
    concluded: bool = False
    berth: Berth | None = None
    forks: int = 0
    hand: Hand | None = None
    seat: str = ""

    def note_end(self, status: int, rusage: Any) -> None:
        """Take the wait status of its process, and what that used."""
        if self.hand is None:
            self.usage.rusage = rusage
        else:
            self.usage.take(*self.hand.rest_of(rusage))
        self.process.note_end(status)

    def start(self) -> Start:
        """Return what is told of its start."""
        ticket = self.job.instructions.get("scheduler_ticket")  # to ask the worker costs a tenth of its hire
        return Start(self.job.number, self.name, self.process.pid or 0, ticket, self.job.trials, self.started)

    def news(self) -> Start | None:
        """Return its start as long as its end does not tell it."""
        return None if self.concluded else self.start()

    @property
    def hopeless(self) -> bool:
        """Whether it says that another trial would only fail again."""
        return self.notice is not None and isinstance(self.notice.head, Notice) and self.notice.head.hopeless

    @property
    def unbegun(self) -> bool:
        """Whether its process ended before it was begun there."""
        return self.hand is not None and self.hand.unbegun > 0 and not (self.notice or self.sentence)

    @property
    def gone(self) -> bool:
        """Whether its end has been noted, and nothing is left that has to go with it."""
        return self.process.noted and (self.ladder is None or self.ladder.at_the_end)

    @property
    def stays(self) -> bool:
        """Whether its process goes on after its report."""
        return self.notice is not None and isinstance(self.notice.head, Done) and self.notice.head.stays

    @property
    def succeeded(self) -> bool:
        """Whether its report has come."""
        return self.notice is not None and self.notice.head.outcome is Outcome.REPORT
