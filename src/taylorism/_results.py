"""Main, pure: what has come from the listener, and the report that it makes.

Events are noted by their number on the channel. To note one twice does no harm: a signal handler of the user's may
raise at any moment (see `_channel`), and the event is then noted again.
"""

from __future__ import annotations

import math
import pickle
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from taylorism import _channel, _errors, _freight
from taylorism._channel import Frame
from taylorism._compat import SignalInterruptError
from taylorism._hold import Hold
from taylorism._messages import (
    Cancelled,
    End,
    Failure,
    Hello,
    Movements,
    Over,
    Several,
    Snapshot,
    Start,
    State,
    WorkerDone,
    WorkerFailed,
    from_wire,
)
from taylorism._process import in_words
from taylorism._signals import ENDING

__all__ = ["Failures", "Results", "View"]

T = TypeVar("T")

#: nothing in common
_NONE: dict[str, Any] = {}
#: why the memory of a short worker is not known
_SHARED = "its process ran many short workers: what each used cannot be told apart"
#: failing workers that the message of a `WorkersFailed` quotes
_QUOTED = 10


class View:
    """A set of instructions as main knows it.

    Attributes
    ----------
    number : int
        Its id.
    name : str or None
        Its name, as soon as it is known.
    expected : float
        Seconds that it is expected to take; 0 where that was not declared.
    submitted : float or None
        When it was ordered, in seconds since the epoch.
    state : str
        A word of `State`.
    start : Start or None
        Its last launch, if it was told of.
    end : End or None
        What became of that.
    brief : Several or None
        Of a short worker among many, instead of these: what it has in common with others. No more is known of it
        than that, and when it began and ended; and an object more for each is one at which the garbage collector
        looks again and again.
    """

    __slots__ = ("_began", "_ended", "brief", "end", "expected", "name", "number", "start", "state", "submitted")

    def __init__(self, number: int) -> None:
        self.number = number
        self.name: str | None = None
        self.expected = 0.0
        self.submitted: float | None = None
        self.state = State.PENDING
        self.start: Start | None = None
        self.end: End | None = None
        self.brief: Several | None = None
        self._began = self._ended = 0.0

    def note_brief(self, event: Several, began: float, ended: float) -> None:
        """Take note that its worker was a short one among many."""
        self._began, self._ended, self.brief = began, ended, event

    @property
    def began(self) -> float | None:
        """When its worker began, in seconds since the epoch, if it is known to have begun."""
        if self.brief is not None:
            return self._began
        return None if self.start is None else self.start.when

    def info(self) -> dict[str, Any]:
        """Return what is known of its worker; what is None is explained under ``unknown``."""
        if self.brief is not None:
            return self._told(*self.brief, self._began, self._ended, _SHARED)
        start, end = self.start, self.end
        return self._told(
            start.pid if start else None,
            start.ticket if start else None,
            max(start.trials if start else 0, end.trials if end else 0),
            start.when if start else None,
            end.when if end else None,
            self._unknown(),
            end,
        )

    def _told(
        self,
        pid: int | None,
        ticket: int | None,
        trials: int,
        began: float | None,
        ended: float | None,
        unknown: str,
        used: End | None = None,
    ) -> dict[str, Any]:
        return {
            "id": self.number,
            "status": State.DONE if self.state == _LEAVING else self.state,
            "trials": trials,
            "pid": pid,
            "exitcode": used.exitcode if used else None,
            "ticket": ticket,
            "submitted": self.submitted,
            "started": began,
            "ended": ended,
            "cpu_user": used.user if used else None,
            "cpu_system": used.system if used else None,
            "peak_memory": used.peak if used else None,
            "unknown": unknown,
        }

    def _unknown(self) -> str:
        if self.start is None:
            return "it was never started"
        return self.end.unknown if self.end else "it has not ended"


class Failures:
    """The exceptions that are raised to a caller.

    A traceback comes with each then, whose frames hold the Boss. So nobody may hold them who is not held by that
    Boss: it would never be forgotten, nor its listener end.

    Attributes
    ----------
    of : dict
        Name and exception of those that failed, by number.
    together : tuple or None
        The one that stands for all, and for how many.
    """

    def __init__(self) -> None:
        self.of: dict[int | None, tuple[str, BaseException]] = {}
        self.together: tuple[int, _errors.WorkersFailed] | None = None


class Results:
    """What is known in main of the work that was ordered.

    Parameters
    ----------
    on_error : {'stop', 'finish', 'collect'}
        What the failure of a worker leads to.
    hold : Hold, optional
        Where the big buffers of reports are.

    Attributes
    ----------
    fatal : BaseException or None
        What stopped everything.
    over : bool
        Whether the work has ended, in one way or another.
    snapshot : bool
        Whether an interim report that was asked for is ready.
    mark : str
        What tells the processes below the listener (`_tree.Mark`).
    views : dict
        What was ordered, by number.
    answers : dict
        What was cancelled, by the number of the request.
    calls : set of int
        The numbers of the sets that have a future.
    outcomes : dict
        What came of them, by number, until the futures are told: a word of `State`, and the value or exception.
    """

    def __init__(self, on_error: str = "stop", hold: Hold | None = None) -> None:
        self._on_error = on_error
        self._hold = hold
        self._settled: set[Any] = set()  # the numbers of the events that have brought big reports
        self.fatal: BaseException | None = None
        self.over = False
        self.snapshot = False
        self.mark = ""
        self.views: dict[int, View] = {}
        self.answers: dict[int, tuple[int | str, ...]] = {}
        self.calls: set[int] = set()
        self.outcomes: dict[int, tuple[str, Any]] = {}
        self._failure: Failure | None = None
        self._failures: Failures | None = Failures()
        self._entrusted: Callable[[], Failures | None] = _nobody
        self._records: dict[Any, dict[str, Any]] = {}
        self._stopped: tuple[str, ...] = ()
        self._pending: list[dict[str, Any]] = []
        self._in: dict[str, dict[int, None]] = {state: {} for state in _STATES}
        self._owners: dict[str, int] = {}
        self._open: dict[int, None] = {}
        self._held: dict[int, tuple[object, ...]] = {}

    def entrust(self) -> Failures:
        """Return the failures, for the Boss to keep: they are forgotten here when it is."""
        failures = self._raised
        self._entrusted, self._failures = weakref.ref(failures), None
        return failures

    @property
    def _raised(self) -> Failures:
        return self._failures or self._entrusted() or Failures()

    # -- what was ordered -----------------------------------------------------------------------------

    def expect(
        self,
        numbers: Sequence[int],
        sets: Iterable[Mapping[str, Any]],
        now: float,
        common: Mapping[str, Any] = _NONE,
    ) -> None:
        """Take note of sets that were ordered, less what they have in common; something may have come of them."""
        usual, call_all = common.get("expected_time"), common.get("name")
        for number, instructions in zip(numbers, sets, strict=True):
            view, name = self._view(number), instructions.get("name", call_all)
            view.submitted = now
            if (seconds := instructions.get("expected_time", usual)) is not None:
                view.expected = _seconds(seconds)
            if isinstance(name, str) and "[" not in (plain := str.__str__(name)):
                self._call(view, plain)

    def hold(self, numbers: Iterable[int], handed: Mapping[int, tuple[object, ...]]) -> None:
        """Keep the memory that sets have handles on until they are settled: main may have let go of it.

        By their place in the order, as `_instructions.Packed` has it: the common part is first.
        """
        if not handed or self.over:
            return
        for place, number in enumerate(numbers, 1):
            if kept := handed.get(0, ()) + handed.get(place, ()):
                self._held[number] = kept

    def _view(self, number: int) -> View:
        """Return what is known of a set; nothing may be, where a handler raised while it was ordered."""
        if number not in self.views:
            self._open[number] = None
            self._in[State.PENDING][number] = None
            self.views[number] = View(number)
        return self.views[number]

    def _call(self, view: View, name: str) -> None:
        view.name = name
        self._owners.setdefault(name, view.number)

    def knows(self, wanted: int | str) -> bool:
        """Whether something of that number or name was ordered."""
        return wanted in (self.views if isinstance(wanted, int) else self._owners)

    def views_in(self, state: str) -> list[View]:
        """Return what is in a state, in the order in which it came there."""
        leaving = self._in[_LEAVING] if state == State.DONE else ()
        return [self.views[number] for number in [*self._in[state], *leaving]]

    def count(self, state: str) -> int:
        """Return how many are in a state."""
        return len(self._in[state]) + (len(self._in[_LEAVING]) if state == State.DONE else 0)

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of what was ordered so far."""
        return self.over or not self._open

    @property
    def idle(self) -> bool:
        """Whether no worker runs, as far as main knows."""
        return self.over or not (self._in[State.RUNNING] or self._in[_LEAVING])

    # -- what comes -----------------------------------------------------------------------------------

    def note(self, number: int, frame: Frame) -> None:
        """Take in the event of that number."""
        event = from_wire(frame.head)
        if isinstance(event, WorkerDone):
            self._note_report(number, event, frame.segments)
        elif isinstance(event, Several):
            self._note_several(number, event, frame.segments[0])
        elif isinstance(event, Movements):
            self._note_movements(event)
        elif isinstance(event, WorkerFailed):
            self._note_failure(event, frame.segments[0])
        elif isinstance(event, Cancelled):
            self.answers[event.request] = event.which
        elif isinstance(event, Hello):
            self.mark = event.mark
        elif isinstance(event, Snapshot):
            self.snapshot = True
        elif isinstance(event, Over):
            self._stopped = event.stopped
            self._pending = [_set(packed) for packed in frame.segments]
            self._finish()

    def _finish(self) -> None:
        self.over = True
        self._held.clear()

    def _note_report(self, number: Any, event: WorkerDone, segments: Sequence[Any]) -> None:
        """Take in a report; its process may not have ended."""
        self._open_report(number, event, segments)
        self._move(event.number, _LEAVING)

    def _open_report(self, number: Any, event: WorkerDone, segments: Sequence[Any]) -> None:
        """Open a report; one that does not open is a failure of its worker.

        A big one is opened once: its memory may have been given back when this is done again. For the same reason,
        that of one which does not open is kept until the end.
        """
        try:
            if number not in self._settled:
                found = _errors.load_surely(lambda: _freight.loaded(segments, self._hold))
                self._keep(number, event, found.value)
                self._settle(number, found)
        except _errors.NotLoadable as trouble:
            failure, error = _not_opened(event.name, trouble.__cause__ or trouble)
            stops = self._on_error == "stop" and event.number not in self.calls
            self._fail(failure, error, event.number, stops)

    def _settle(self, number: Any, found: _freight.Loaded) -> None:
        if found.uses:
            self._settled.add(number)
            found.settle()

    def _keep(self, number: int, event: WorkerDone, report: object) -> None:
        if event.number in self.calls:
            self.outcomes[event.number] = State.DONE, report
        else:
            self._records[number] = {"name": event.name, "report": report}

    def _note_several(self, number: int, event: Several, packed: Any) -> None:
        """Take in what many short workers say; each step may be made twice."""
        done: list[int] = []
        failed = self._raised.of
        for place, (which, name, began, ended, report) in enumerate(_channel.records(packed)):
            view = self._view(which)
            view.note_brief(event, began, ended)
            self._note_name(view, name)
            if which not in self.calls and _channel.is_inert(report):
                self._records[_key(number, place)] = {"name": name, "report": pickle.loads(report)}
            else:
                self._open_report(_key(number, place), WorkerDone(name, which), (report,))
            if which in failed:
                self._move(which, State.FAILED)
            else:
                done.append(which)
        self._move_done(done)

    def _note_movements(self, event: Movements) -> None:
        for move in event.moves:
            view = self._view(move.number)
            if isinstance(move, End):
                self._note_end(view, move)
                continue
            view.end = None
            self._note_start(view, move)
            if view.state in (State.PENDING, State.RUNNING):  # else its report came first, which waits for nothing
                self._move(move.number, State.RUNNING)

    def _note_start(self, view: View, start: Start) -> None:
        view.start = start
        self._note_name(view, start.name)

    def _note_name(self, view: View, name: str) -> None:
        if name[:1] != "#" or name != f"#{view.number}":  # what it goes by until it is heard to say its name
            self._call(view, name)

    def _note_end(self, view: View, end: End) -> None:
        if end.start is not None:
            self._note_start(view, end.start)
        view.end = end
        self._move(view.number, State.FAILED if view.number in self._raised.of else end.state)

    def _move(self, number: int, state: str) -> None:
        """Put a set into a state.

        A handler may raise after each step, and another thread may look: a set is never in no state, and to take
        all the steps again comes to the same.
        """
        view = self._view(number)
        if state == _LEAVING and view.state not in _UNSETTLED:
            return
        if state in _UNSETTLED:
            self._open[number] = None
        self._in[state][number] = None
        view.state = state
        for other in _STATES:
            if other != state:
                self._in[other].pop(number, None)
        if state not in _UNSETTLED:
            self._open.pop(number, None)
            self._held.pop(number, None)
            if number in self.calls and state in (State.CANCELLED, State.STOPPED):
                self.outcomes[number] = state, None

    def _move_done(self, numbers: Sequence[int]) -> None:
        """Do as `_move` for many that are done: one container after the other."""
        done = self._in[State.DONE]
        for number in numbers:
            done[number] = None
            self.views[number].state = State.DONE
        others: list[dict[int, Any]] = [self._in[state] for state in _STATES if state != State.DONE]
        for other in filter(None, (*others, self._open, self._held)):
            for number in numbers:
                other.pop(number, None)

    def _note_failure(self, event: WorkerFailed, packed: Any) -> None:
        failure = event.failure
        whose = f"worker {failure.name!r}" if failure.name else "the listener"
        error = _errors.unpack(packed, whose, failure.traceback, failure.instructions, failure.output)
        self._fail(failure, error, event.number, event.stops)

    def _fail(self, failure: Failure, error: BaseException, number: int | None, stops: bool) -> None:
        self._raised.of[number] = (failure.name, error)
        if number in self.calls:
            self.outcomes[number] = State.FAILED, error
        if number in self.views:
            self._call(self.views[number], failure.name)
        if stops and self.fatal is None:
            self._failure, self.fatal = failure, error

    def listener_died(self, exitcode: int | None) -> None:
        """Note that nothing more will come, though the work was not over."""
        self._finish()
        if exitcode is not None and -exitcode in ENDING:
            # It was told to end before it had learnt to do so in good order.
            error: BaseException = SignalInterruptError(f"Signal {-exitcode:d} was caught.")
        else:
            error = _boss_died(in_words(exitcode))
        if self.fatal is None:
            self._failure = Failure("", "workers exception", _errors.traceback_lines(error))
            self.fatal = error

    # -- what it makes --------------------------------------------------------------------------------

    @property
    def error(self) -> BaseException | None:
        """What has to be raised now."""
        raised = self._raised
        if self.fatal is not None or not (raised.of and self._on_error == "finish" and self.settled):
            return self.fatal
        counting = [number for number in list(raised.of) if number not in self.calls]
        if counting and (raised.together is None or raised.together[0] != len(counting)):
            raised.together = len(counting), _together(self._errors_of(counting))
        return raised.together[1] if raised.together else None

    @property
    def errors(self) -> dict[str, BaseException]:
        """The exceptions of the workers that failed, by name."""
        return self._errors_of(list(self._raised.of))

    def _errors_of(self, numbers: Iterable[int | None]) -> dict[str, BaseException]:
        failed = [(number, *self._raised.of[number]) for number in numbers if number is not None]
        return _by_label((self._label(number, name), error) for number, name, error in failed)

    def _label(self, number: int | None, name: str | None) -> str:
        """Return the name of a worker; where an earlier one had the same, with its number."""
        if name is None:
            return f"#{number}"
        return name if self._owners.get(name, number) == number else f"{name}#{number}"

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was reported, in order of completion."""
        return list(self._records.values())

    @property
    def reported(self) -> int:
        """How many records there are."""
        return len(self._records)

    def records_from(self, first: int) -> list[dict[str, Any]]:
        """Return what was reported after so many records."""
        return list(islice(self._records.values(), first, None))

    @property
    def status(self) -> str:
        """The status of the report as it is now."""
        if self._failure is not None:
            return self._failure.status
        if self.error is not None:
            return "workers exception"
        if not self.over:
            return "interim"
        return "pending" if self._pending or self._stopped else "finished"

    def report(self) -> dict[str, Any]:
        """Return the report as it is now."""
        error, status, records = self.error, self.status, self.records
        report: dict[str, Any] = {
            "workers_report": records if error is None else error,
            "status": status,
            "errors": self.errors,
            "workers_done": records,
            "workers_info": self._infos(),
        }
        if error is not None:
            report["traceback"] = list(self.traceback)
        if self.fatal is not None or self._pending or self._stopped:
            report |= {"pending": list(self._pending), "stopped": list(self._stopped)}
        return report

    def _infos(self) -> dict[str, dict[str, Any]]:
        touched = [view for view in list(self.views.values()) if view.state != State.PENDING]
        return _by_label((self._label(view.number, view.name), view.info()) for view in touched)

    @property
    def traceback(self) -> tuple[str, ...]:
        """The lines of the traceback of what is to be raised, as they were where it happened."""
        if self._failure is not None:
            return self._failure.traceback
        return _errors.traceback_lines(self.error) if self.error is not None else ()


#: the report has come, and the process is leaving; `State.DONE` for the user
_LEAVING = "leaving"
_UNSETTLED = (State.PENDING, State.RUNNING, _LEAVING)
_STATES = (*_UNSETTLED, State.DONE, State.FAILED, State.CANCELLED, State.STOPPED)


def _key(number: int, place: int) -> int:
    """Return under what a record of an event is known that has several; those that have one go by their number."""
    return -1 - (number << 32 | place)


def _by_label(items: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Return a dict, in which nobody is lost whose name looks like the label of another."""
    found: dict[str, T] = {}
    for label, value in items:
        while label in found:
            label += "'"  # noqa: PLW2901 - it is this that is looked for
        found[label] = value
    return found


def _nobody() -> None:
    """Stand for a Boss that nothing was entrusted to."""


def _seconds(expected: Any) -> float:
    try:
        seconds = float(expected or 0.0)
    except Exception:  # whatever a class of the user's raises: the set has been ordered
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _together(errors: dict[str, BaseException]) -> _errors.WorkersFailed:
    lines = [f"{name}: {_errors.describe(error)}" for name, error in islice(errors.items(), _QUOTED)]
    if len(errors) > _QUOTED:
        lines.append(f"and {len(errors) - _QUOTED} more")
    told = "".join(f"\n  {line}" for line in lines)
    together = _errors.WorkersFailed(
        f"{len(errors)} of the workers failed, the others are done. Each exception is in `errors` by the name of "
        f"its worker, here and in get_report(), whose 'workers_done' has what was done:{told}",
        errors=errors,
    )
    together.__cause__ = next(iter(errors.values()))
    return together


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


def _not_opened(name: str, trouble: BaseException) -> tuple[Failure, BaseException]:
    error = _errors.TransmissionError(
        f"the report of worker {name!r} cannot be rebuilt in the main process: {_errors.describe(trouble)}. What "
        "a worker returns must be importable, and loadable, in the main process.",
        name=name,
    )
    lines = _errors.traceback_lines(trouble)
    error.__cause__ = _errors.WorkerTraceback(f"in main, report of worker {name!r}:\n\n" + "".join(lines))
    return Failure(name, "transmission exception", lines), error
