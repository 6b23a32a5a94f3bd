"""Worker process: signals, hooks, `_task`, one notice, exit.

`run` is what a worker's process does from its first instruction to its last. All that comes out of the task is an
outcome: a report, a failure, or (interrupted by a signal) silence, in which case the process dies of that
signal and its parent sees it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from taylorism import _channel, _compat, _errors, _freight, _logs, _signals, _streams
from taylorism._hold import Berth
from taylorism._messages import Failure, Notice, Outcome

if TYPE_CHECKING:
    from taylorism._worker import Worker

__all__ = ["NoticePipe", "Result", "attempt", "finish", "leave", "leave_by", "run"]


#: what can always be pickled, and is small
_SMALL = frozenset({type(None), bool, float, int})
#: the head of nearly every notice: see `REPORTED`
_PLAIN = _channel.pack_head(None)


class NoticePipe:
    """The messenger that a Boss gives to its workers: one frame, written once, from the task's own thread.

    Parameters
    ----------
    fd : int
        Where to write.
    shown : int
        Characters of the report that go with it as text, for the log of a verbose Boss; 0 for none.
    berth : Berth, optional
        Where to put what is big.
    """

    def __init__(self, fd: int, shown: int = 0, berth: Berth | None = None) -> None:
        self.fd = fd
        self.shown = shown
        self.berth = berth

    def put(self, result: Result) -> None:
        """Send `result`."""
        _channel.write_all(self.fd, _channel.encode(*self.packed(result)))

    def packed(self, result: Result) -> tuple[Any, list[Any]]:
        """Return the head and the segments that tell a result."""
        if result.error is not None:
            return _failure(result.name, result.error, hopeless=result.hopeless)
        try:
            segments, remark = self._segments(result.report)
        except Exception as trouble:
            error = _not_sendable(result, trouble)
            return _failure(result.name, error, status="transmission exception")
        if not (self.shown or remark):
            return _PLAIN, segments
        text = _shown(result.report, self.shown) if self.shown else ""
        return Notice(Outcome.REPORT, text=text, remark=remark), segments

    def brief(self, result: Result) -> bytes | None:
        """Return the pickled report, where it is small and nothing else is to be told of it; else None."""
        if result.error is None and not self.shown and type(result.report) in _SMALL:
            return _channel.pack_bare(result.report)
        return None

    def _segments(self, report: object) -> tuple[list[Any], str]:
        # What is small goes nowhere near the way of what is big: a newborn process copies each page it looks at.
        if report is None or isinstance(report, (bool, int, float)):
            return _channel.pack_object(report), ""
        return _freight.pack(report, self.berth)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.fd)


@dataclass
class Result:
    """What came out of a task: a report, or what was raised; `hopeless` is what would only be raised again."""

    name: str
    report: object = None
    error: BaseException | None = None
    hopeless: bool = False


def _not_sendable(result: Result, trouble: Exception) -> _errors.TransmissionError:
    kind = type(result.report)
    error = _errors.TransmissionError(
        f"the report of worker {result.name!r}, a {kind.__module__}.{kind.__qualname__}, cannot be pickled: "
        f"{_errors.describe(trouble)}. Return an object that can, or what is needed of it: "
        f"{_errors.quote(result.report, 200)}",
        name=result.name,
    )
    error.__traceback__ = trouble.__traceback__
    return error


def _failure(
    name: str, error: BaseException, status: str = "workers exception", hopeless: bool = False
) -> tuple[Notice, list[Any]]:
    failure = Failure(name, status, _errors.traceback_lines(error))
    notice = Notice(Outcome.FAILURE, failure=failure, hopeless=hopeless)
    return notice, [_errors.pack(error, f"worker {name!r}")]


def _shown(report: object, limit: int) -> str:
    try:
        text = str(report)
    except Exception as trouble:
        text = f"<a report whose str() raised {_errors.describe(trouble)}>"
    return text if len(text) <= limit else text[:limit] + " ..."


def run(worker: Worker, log_dir: str | None = None) -> NoReturn:
    """Do all of a worker's life in its process; what it writes goes to its files in `log_dir`, if any."""
    finish(worker, attempt(worker, _signals.Interruption(), log_dir))


def attempt(worker: Worker, interruption: _signals.Interruption, log_dir: str | None) -> Result:
    """Do the task, and return what came out of it; a signal that interrupted it ends the process here."""
    try:
        interruption.begin()
        if log_dir is not None:
            _logs.redirect(log_dir, worker.name)
            _streams.stand_on_descriptors()
        result = _perform(worker)
        interruption.disarm()
    except BaseException as error:  # raised outside of the task: by a signal, between two steps of ours
        interruption.disarm()
        result = Result(worker.name, error=error)
    if os.getpid() != interruption.pid:
        leave(0)  # a copy that the task forked, and that came back from it: the worker's own report counts
    if result.error is not None and result.error is interruption.raised and interruption.signum:
        leave_by(interruption.signum)
    _streams.flush_quietly()  # before the report, so that main's own prints come after the task's
    return result


def finish(worker: Worker, result: Result) -> NoReturn:
    """Tell what came out of the task, and leave."""
    _deliver(worker, result)
    leave(0 if result.error is None else 1)


def _perform(worker: Worker) -> Result:
    """Run hooks and task; whatever is raised is a result too."""
    name = worker.name
    try:
        for hook in worker.scheduler_hooks:
            hook(worker)
        worker._work_and_communicate_prehook()
        return Result(name, worker._task())
    except SystemExit as error:
        # `sys.exit()` and `sys.exit(0)` are how a script says that all went well.
        return Result(name) if error.code in (None, 0) else Result(name, error=error)
    except BaseException as error:
        return Result(name, error=error)


def _deliver(worker: Worker, result: Result) -> None:
    messenger: Any = worker.messenger
    if isinstance(messenger, NoticePipe):
        messenger.put(result)
        messenger.close()
    elif messenger is not None:
        _deliver_as_in_1_1(messenger, result)
    elif result.error is not None:
        sys.stderr.writelines(_errors.traceback_lines(result.error))


def _deliver_as_in_1_1(messenger: Any, result: Result) -> None:
    """Give a messenger of the user's (a queue) the record that 1.1 would have put."""
    record: dict[str, Any] = {"name": result.name, "report": result.report}
    if result.error is not None:
        record |= {"report": result.error, "traceback": list(_errors.traceback_lines(result.error))}
    messenger.put(record)
    if callable(getattr(messenger, "close", None)):
        messenger.close()


def leave_by(signum: int) -> NoReturn:
    """Die of the signal that came."""
    _streams.flush_quietly()
    _signals.die_of(signum)
    os._exit(1)  # the signal is blocked or ignored in a way that we do not know


def leave(status: int) -> NoReturn:
    """End what the task has left, flush, and exit without the finalizers of main."""
    try:
        _compat.leave_multiprocessing_child()
        _streams.flush_quietly()
    finally:
        os._exit(status)
