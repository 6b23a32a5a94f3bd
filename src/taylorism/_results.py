"""Main, pure: what has come from the listener, and the report that it makes.

Events are noted by their number on the channel. To note one twice does no harm: a signal handler of the user's may
raise at any moment (see `_channel`), and the event is then noted again.
"""

from __future__ import annotations

import pickle
from typing import Any

from taylorism import _channel, _errors
from taylorism._channel import Frame
from taylorism._compat import SignalInterruptError
from taylorism._messages import Failure, Hello, Over, Snapshot, WorkerDone, WorkerFailed
from taylorism._process import in_words
from taylorism._signals import ENDING

__all__ = ["Results"]


class Results:
    """What is known in main of the work that was ordered.

    Attributes
    ----------
    error : BaseException or None
        What the first failure raises.
    over : bool
        Whether the work has ended, in one way or another.
    snapshot : bool
        Whether an interim report that was asked for is ready.
    mark : str
        What tells the processes below the listener (`_tree.Mark`).
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.over = False
        self.snapshot = False
        self.mark = ""
        self._failure: Failure | None = None
        self._records: dict[int, dict[str, Any]] = {}
        self._stopped: tuple[str, ...] = ()
        self._pending: list[dict[str, Any]] = []

    def note(self, number: int, frame: Frame) -> None:
        """Take in the event of that number."""
        event = frame.head
        if isinstance(event, WorkerDone):
            self._note_report(number, event, frame.segments)
        elif isinstance(event, WorkerFailed):
            self._fail(event.failure, _rebuilt(event.failure, frame.segments[0]))
        elif isinstance(event, Hello):
            self.mark = event.mark
        elif isinstance(event, Snapshot):
            self.snapshot = True
        elif isinstance(event, Over):
            self._stopped = event.stopped
            self._pending = [_set(packed) for packed in frame.segments]
            self.over = True

    def _note_report(self, number: int, event: WorkerDone, segments: tuple[Any, ...]) -> None:
        """Open a report; one that does not open is a failure of its worker."""
        try:
            report = _errors.load_surely(lambda: _channel.open_object(segments))
        except _errors.NotLoadable as trouble:
            self._fail(*_not_opened(event.name, trouble.__cause__ or trouble))
        else:
            self._records[number] = {"name": event.name, "report": report}

    def _fail(self, failure: Failure, error: BaseException) -> None:
        if self.error is None:
            self._failure, self.error = failure, error

    def listener_died(self, exitcode: int | None) -> None:
        """Note that nothing more will come, though the work was not over."""
        self.over = True
        if exitcode is not None and -exitcode in ENDING:
            # It was told to end before it had learnt to do so in good order.
            error: BaseException = SignalInterruptError(f"Signal {-exitcode:d} was caught.")
        else:
            error = _boss_died(in_words(exitcode))
        self._fail(Failure("", "workers exception", _errors.traceback_lines(error)), error)

    @property
    def status(self) -> str:
        """The status of the report as it is now."""
        if self._failure is not None:
            return self._failure.status
        if not self.over:
            return "interim"
        return "pending" if self._pending or self._stopped else "finished"

    def report(self) -> dict[str, Any]:
        """Return the report as it is now."""
        records = [self._records[number] for number in sorted(self._records)]
        if self._failure is not None:
            return self._failed(self._failure, records)
        undone = self._undone() if self.status == "pending" else {}
        return {"workers_report": records, "status": self.status, **undone}

    def _failed(self, failure: Failure, records: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "workers_report": self.error,
            "status": self.status,
            "traceback": list(failure.traceback),
            "workers_done": records,
            **self._undone(),
        }

    def _undone(self) -> dict[str, Any]:
        return {"pending": list(self._pending), "stopped": list(self._stopped)}

    @property
    def traceback(self) -> tuple[str, ...]:
        """The lines of the traceback of the failure, as they were where it happened."""
        return self._failure.traceback if self._failure is not None else ()


def _set(packed: Any) -> dict[str, Any]:
    """Load a set that never ran; one that does not load here is told in words."""
    try:
        instructions: dict[str, Any] = _errors.load_surely(lambda: pickle.loads(packed))
    except _errors.NotLoadable as trouble:
        cause = _errors.describe(trouble.__cause__ or trouble)
        return {"?": f"these instructions cannot be rebuilt in main: {cause}"}
    return instructions


def _boss_died(how: str) -> _errors.BossDied:
    return _errors.BossDied(
        f"the listener of this Boss died, {how}; its workers were stopped, and the reports that had not come are "
        "lost. What was done is in get_report()['workers_done']; set the rest to work in a new Boss."
    )


def _rebuilt(failure: Failure, packed: Any) -> BaseException:
    whose = f"worker {failure.name!r}" if failure.name else "the listener"
    return _errors.unpack(packed, whose, failure.traceback, failure.instructions)


def _not_opened(name: str, trouble: BaseException) -> tuple[Failure, BaseException]:
    error = _errors.TransmissionError(
        f"the report of worker {name!r} cannot be rebuilt in the main process: {_errors.describe(trouble)}. What "
        "a worker returns must be importable, and loadable, in the main process.",
        name=name,
    )
    lines = _errors.traceback_lines(trouble)
    error.__cause__ = _errors.WorkerTraceback(f"in main, report of worker {name!r}:\n\n" + "".join(lines))
    return Failure(name, "transmission exception", lines), error
