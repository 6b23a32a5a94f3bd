"""Main, pure: what the caller asked for, checked once, at once."""

from __future__ import annotations

import os
import sys

from taylorism._errors import BadOption, BadScheduler

__all__ = ["checked_scheduler", "checked_start_method"]

_METHODS = ("fork", "spawn", "forkserver")
_VARIABLE = "TAYLORISM_START_METHOD"


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
