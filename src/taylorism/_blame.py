"""Listener: what is said of what went wrong: the errors that it charges to somebody, and their announcement."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from taylorism import _errors
from taylorism._ledger import Job
from taylorism._member import Member
from taylorism._messages import Failure
from taylorism._process import in_words

__all__ = ["announce", "died", "judged", "no_room", "not_rebuilt", "overdue", "say", "stuck"]

_log = logging.getLogger("taylorism")


def announce(failure: Failure) -> None:
    """Say on the log and on standard error who failed, how, and with which instructions."""
    who = f"worker {failure.name}" if failure.name else "the listener"
    say(logging.ERROR, "error encountered with %s with traceback:", who)
    try:
        sys.stderr.writelines(failure.traceback)
        if failure.instructions:
            sys.stderr.write("Instructions of guilty worker:\n" + failure.instructions)
        sys.stderr.write(failure.output)
        sys.stderr.flush()
    except Exception:  # no standard error: main is told anyhow
        pass


def say(level: int, message: str, *values: object) -> None:
    """Log, whatever the handlers of the user do."""
    try:
        _log.log(level, message, *values, stacklevel=2)
    except Exception:
        pass


def died(member: Member, output: str) -> _errors.WorkerDied:
    """Return what is said of a worker that ended without a report; `output` is the end of its log."""
    code, told = member.process.exitcode, _errors.quote(member.job.instructions)
    how = in_words(code) + (" (os._exit?)" if code is not None and code >= 0 else "")
    if member.out_of_memory:
        how = "killed by SIGKILL: by the kernel, out of memory"
    return _errors.WorkerDied(
        f"worker {member.name!r} died without a report: {how}. Look at its output; if memory is "
        f"short, run fewer at a time or declare its memory. Its instructions: {told}{_quoted(output)}",
        name=member.name,
        exitcode=code,
        instructions=told,
    )


def overdue(member: Member, output: str) -> _errors.WorkerTimeout:
    """Return what is said of a worker that took too long; `output` is the end of its log."""
    told = _errors.quote(member.job.instructions)
    return _errors.WorkerTimeout(
        f"worker {member.name!r} was stopped, with all that it had started, since it took more than its timeout "
        f"of {member.seconds:g} s. Allow it more, or give it less to do. Its instructions: {told}{_quoted(output)}",
        name=member.name,
        seconds=member.seconds,
        instructions=told,
    )


def overdrawn(member: Member, output: str) -> _errors.MemoryExceeded:
    """Return what is said of a worker that used too much memory; `output` is the end of its log."""
    told, declared = _errors.quote(member.job.instructions), float(member.worker.memory)
    return _errors.MemoryExceeded(
        f"worker {member.name!r} was stopped, with all that it had started, since it used {member.overdrawn:.0f} "
        f"MiB and had declared memory={declared:g} MiB. Declare more. Its instructions: {told}{_quoted(output)}",
        name=member.name,
        declared=declared,
        used=member.overdrawn,
        instructions=told,
    )


def _quoted(output: str) -> str:
    return f"\n{output}" if output else ""


def judged(judge: Callable[[Any], str | None], job: Job) -> BaseException | None:
    """Return why a set can never start: the scheduler says so, or it cannot make sense of the set."""
    try:
        reason = judge(job.instructions)
    except BaseException as error:
        return error
    if not reason:
        return None
    return _errors.NeverStartable(
        f"worker {job.name!r} can never start: {reason} "
        f"Its instructions: {_errors.quote(job.instructions)}"
    )


def no_room(worker: Any, job: Job, trouble: OSError) -> Exception:
    """Return what is said where the system has no room for the only worker."""
    return _errors.WorkerNotStarted(
        f"the process of worker {worker.name!r} cannot be started: {_errors.describe(trouble)}. Raise the "
        f"limit (ulimit -u, ulimit -n). Its instructions: {_errors.quote(job.instructions)}"
    )


def stuck(scheduler: Any, pending: list[dict[str, Any]]) -> Exception:
    """Return what is said of a scheduler that will never launch anything more."""
    return _errors.SchedulerError(
        f"the scheduler {type(scheduler).__name__} launches none of the {len(pending)} pending sets although "
        "nothing runs, and so never will: check its limits. "
        f"The first set: {_errors.quote(pending[0], 500)}"
    )


def not_rebuilt(trouble: BaseException) -> Exception:
    """Return what is said of instructions that do not load here."""
    error = _errors.InstructionsNotPicklable(
        f"the listener cannot rebuild the instructions that it was sent: {_errors.describe(trouble)}. Classes "
        "and functions in them must exist before the Boss is made, or be importable."
    )
    error.__cause__ = trouble
    return error
