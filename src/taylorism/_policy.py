"""Pure, main and listener: what the caller asked for on failure, time and output, checked once, at once."""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from taylorism._errors import BadOption, BadScheduler, describe, quote

__all__ = [
    "Policy",
    "TimeLimit",
    "check_travels",
    "checked_policy",
    "checked_scheduler",
    "checked_start_method",
    "checked_wait",
]

_METHODS = ("fork", "spawn", "forkserver")
_VARIABLE = "TAYLORISM_START_METHOD"

#: after so many, a delay is for ever anyway
_DOUBLINGS = 60

#: seconds, or what tells them for a set of instructions
TimeLimit = float | Callable[[Mapping[str, Any]], float | None] | None


@dataclass(frozen=True)
class Policy:
    """What the caller wants to happen; the same for all the workers of a Boss.

    Attributes
    ----------
    on_error : {'stop', 'finish', 'collect'}
        Stop everything on the first failure; or run everything, and raise one error at the end; or none.
    max_trials : int
        Launches of a set of instructions in all.
    retry_delay : float
        Seconds before the second launch, doubled for each further one.
    timeout : float, callable or None
        Seconds of wall time for each worker.
    stop_grace : float
        Seconds between SIGTERM and SIGKILL.
    log_dir : str or None
        Directory, absolute, for the output of each worker.
    progress : bool
        Whether main shows how far the work is.
    memory_guard : {None, 'warn', 'stop'}
        What happens to a worker that uses far more memory than it has declared.
    max_tasks_per_child : int or None
        Workers that a process runs one after the other; None for any number.
    quiet : bool
        Whether nothing is said on standard error, neither in the listener nor in the workers.
    """

    on_error: str = "stop"
    max_trials: int = 1
    retry_delay: float = 0.0
    timeout: TimeLimit = None
    stop_grace: float = 5.0
    log_dir: str | None = None
    progress: bool = False
    memory_guard: str | None = None
    max_tasks_per_child: int | None = 1
    quiet: bool = False

    @property
    def reuses(self) -> bool:
        """Whether a process runs several workers."""
        return self.max_tasks_per_child != 1

    @property
    def stops(self) -> bool:
        """Whether one failure stops everything."""
        return self.on_error == "stop"

    @property
    def sees_to_one(self) -> bool:
        """Whether one worker may be stopped, or fail, while the others go on."""
        some_end = self.timeout is not None or self.memory_guard == "stop"
        return not self.stops or self.max_trials > 1 or some_end

    def delay(self, trials: int) -> float:
        """Return the seconds to wait after that many trials."""
        return float(self.retry_delay * 2.0 ** min(trials - 1, _DOUBLINGS))

    def limit(self, instructions: Mapping[str, Any]) -> float | None:
        """Return the seconds that a worker of these instructions may take, None for any time.

        Raises
        ------
        BadOption
            The callable given as `timeout` returned neither.
        Exception
            What it raised.
        """
        if not callable(self.timeout):
            return self.timeout
        seconds = self.timeout(instructions)
        if seconds is None:
            return None
        if _is_number(seconds, above=0.0):
            return float(seconds)  # it may be a fraction, which cannot be formatted as a number is
        raise BadOption(
            f"timeout returned {quote(seconds, 200)} for the instructions {quote(dict(instructions))}: it must "
            "return seconds greater than 0, or None for no limit."
        )


def checked_policy(
    *,
    on_error: str,
    max_trials: int,
    retry_delay: float,
    timeout: TimeLimit,
    stop_grace: float,
    log_dir: str | os.PathLike[str] | None,
    progress: bool,
    memory_guard: str | None,
    max_tasks_per_child: int | None,
) -> Policy:
    """Return the options as a `Policy`; the directory of the logs is made.

    Raises
    ------
    BadOption
        A value that an option cannot have; the message says which it can.
    OSError
        The directory cannot be made or written to.
    """
    _demand(on_error in ("stop", "finish", "collect"), "on_error", on_error, "'stop', 'finish' or 'collect'")
    _demand(_is_count(max_trials), "max_trials", max_trials, "a whole number from 1 on")
    _demand(_is_number(retry_delay, 0.0, True), "retry_delay", retry_delay, "seconds, 0 or more")
    limit = timeout is None or callable(timeout) or _is_number(timeout, 0.0)
    accepted = "seconds greater than 0, a callable that returns them for the instructions, or None"
    _demand(limit, "timeout", timeout, accepted)
    _demand(_is_number(stop_grace, 0.0, True), "stop_grace", stop_grace, "seconds, 0 or more")
    _demand(isinstance(progress, bool), "progress", progress, "True or False")
    guards = memory_guard is None or memory_guard in ("warn", "stop")
    _demand(guards, "memory_guard", memory_guard, "'warn', 'stop' or None")
    tasks = max_tasks_per_child is None or _is_count(max_tasks_per_child)
    accepted = "a whole number from 1 on, or None for any number"
    _demand(tasks, "max_tasks_per_child", max_tasks_per_child, accepted)
    return Policy(
        on_error,
        int(max_trials),
        float(retry_delay),
        timeout if timeout is None or callable(timeout) else float(timeout),
        float(stop_grace),
        _checked_directory(log_dir),
        progress,
        memory_guard,
        None if max_tasks_per_child is None else int(max_tasks_per_child),
    )


def check_travels(policy: Policy, start_method: str) -> None:
    """Raise `BadOption` where the policy cannot be carried to a listener that is no fork."""
    if start_method == "fork":
        return
    try:
        pickle.dumps(policy)
    except Exception as trouble:
        raise BadOption(
            f"timeout={quote(policy.timeout, 200)} cannot be sent to a listener that is started by "
            f"{start_method!r}: {describe(trouble)}. Give a function of a module."
        ) from trouble


def _demand(fine: bool, option: str, value: object, accepted: str) -> None:
    if not fine:
        raise BadOption(f"{option}={quote(value, 200)} makes no sense: give {accepted}.")


def _is_count(value: object) -> bool:
    """Whether `value` is a whole number from 1 on; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_number(value: object, above: float, or_equal: bool = False) -> bool:
    """Whether `value` is a finite number above a limit; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return math.isfinite(number) and (number > above or (or_equal and number == above))


def _checked_directory(path: str | os.PathLike[str] | None) -> str | None:
    """Make the directory, and return it in full: the workers may go elsewhere."""
    if path is None:
        return None
    accepted = "the path of a directory, which is made if it does not exist, or None"
    _demand(isinstance(path, (str, os.PathLike)) and bool(os.fspath(path)), "log_dir", path, accepted)
    full = os.path.abspath(os.fspath(path))
    os.makedirs(full, exist_ok=True)
    if not os.access(full, os.W_OK | os.X_OK):
        raise PermissionError(f"log_dir={full!r} cannot be written to: give a directory of your own.")
    return full


def checked_wait(timeout: float | None) -> float | None:
    """Return the seconds that a caller is ready to wait, if they are such.

    Raises
    ------
    BadOption
        They are neither a number nor None.
    """
    accepted = "seconds, or None to wait as long as it takes"
    if timeout is None or timeout == math.inf:
        return None
    _demand(_is_number(timeout, -math.inf), "timeout", timeout, accepted)
    return float(timeout)


def checked_start_method(asked: str | None) -> str:
    """Return how the listener is to be started.

    ``fork`` where it exists, whatever the default of this Python is: classes and functions of the
    script, and inherited arrays, then work as ever.

    Raises
    ------
    BadOption
        There is no such method, here or at all.
    """
    method = asked or os.environ.get(_VARIABLE) or ("fork" if hasattr(os, "fork") else "spawn")
    known = _METHODS if hasattr(os, "fork") else ("spawn",)
    if method not in known:
        where = "start_method" if asked else _VARIABLE
        raise BadOption(
            f"{where}={method!r} is no way to start a process on {sys.platform}: use one of {known}."
        )
    return method


def checked_scheduler(scheduler: object) -> object:
    """Return `scheduler` if it can be asked.

    Raises
    ------
    BadScheduler
        It has no callable `launchable`.
    """
    if not callable(getattr(scheduler, "launchable", None)):
        raise BadScheduler(
            f"a scheduler must have a method launchable(pending_instructions, workers, report); "
            f"{scheduler!r} has none."
        )
    return scheduler
