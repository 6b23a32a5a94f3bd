"""Main: how far the work is, as a bar on a terminal or in a notebook, else as lines through the logger.

Main draws, while it waits: the listener does not know where a notebook shows its output. The bar is tqdm's; its
monitor thread and its lock between processes are left out, for main forks.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from taylorism._errors import NotLoadable, describe, load_surely
from taylorism._messages import State
from taylorism._results import Results

__all__ = ["watcher"]

_log = logging.getLogger("taylorism")

#: seconds between two lines through the logger
PERIOD = 30.0
#: the states that count as done with
_SETTLED = (State.DONE, State.FAILED, State.CANCELLED, State.STOPPED)


def watcher(results: Results) -> Callable[[], None]:
    """Return what is to be called at each news, and shows how far the work is."""
    if _in_notebook() or _on_terminal():
        try:
            return _Bar(results, _bar_class())
        except ImportError:
            _log.warning("progress: tqdm is not installed (pip install 'taylorism[progress]'); lines are logged")
    return _Lines(results)


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except Exception:  # no standard error, or a closed one
        return False


def _in_notebook() -> bool:
    kernel = sys.modules.get("ipykernel.zmqshell")
    shell = getattr(kernel, "ZMQInteractiveShell", None)
    return shell is not None and bool(shell.initialized())


def _bar_class() -> Any:
    """Return tqdm's bar, without what it starts beside it.

    Raises
    ------
    ImportError
        tqdm is not installed.
    """
    name = "tqdm.notebook" if _in_notebook() and importlib.util.find_spec("ipywidgets") else "tqdm.std"
    base: Any = importlib.import_module(name).tqdm

    class Bar(base):  # type: ignore[misc]
        monitor_interval = 0

    Bar.set_lock(threading.RLock())
    return Bar


def _settled(results: Results) -> int:
    return sum(map(results.count, _SETTLED))


def _told(results: Results) -> str:
    return ", ".join(f"{results.count(state)} {state}" for state in (State.RUNNING, State.FAILED))


def seconds_left(results: Results, now: float) -> float | None:
    """Estimate how long the rest takes, out of each `expected_time`; None where one is not declared.

    What was expected of the finished ones, for each second since the first was started, is how fast the
    work goes.

    Parameters
    ----------
    now : float
        Seconds since the epoch.
    """
    done = [view for state in _SETTLED for view in results.views_in(state) if view.began]
    running = [view for view in results.views_in(State.RUNNING) if view.began]
    ahead = [view.expected for view in results.views_in(State.PENDING)]
    begun = [view.began for view in [*done, *running] if view.began]
    if not begun or not all([*ahead, *(view.expected for view in [*done, *running])]):
        return None
    passed = sum(min(view.expected, max(0.0, now - view.began)) for view in running if view.began)
    covered = sum(view.expected for view in done) + passed
    left = sum(ahead) + sum(view.expected for view in running) - passed
    return left * max(0.0, now - min(begun)) / covered if covered > 0 else None


def _in_words(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f", {hours}:{minutes:02d}:{rest:02d} left"


class _Lines:
    """A line through the logger now and then, at INFO."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._next = time.monotonic() + PERIOD

    def __call__(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PERIOD
        results = self._results
        done, total = results.count(State.DONE), len(results.views)
        left = _in_words(seconds_left(results, time.time()))
        _log.info("%d of %d workers done, %s%s", done, total, _told(results), left)


class _Bar:
    """A bar of tqdm."""

    def __init__(self, results: Results, bar: Any) -> None:
        self._results = results
        self._class = bar
        self._bar: Any = None
        self._next_estimate = 0.0
        self._estimate = ""

    def __call__(self) -> None:
        settled, total = self._results.settled, len(self._results.views)
        if self._bar is None and (settled or not total):
            return
        try:
            load_surely(lambda: self._draw(total, settled))  # what a signal handler raises meanwhile comes out
        except NotLoadable as trouble:
            self._results = Results()  # nothing more to show: the work does not depend on who watches
            _log.warning("progress: the bar cannot be drawn: %s", describe(trouble.__cause__ or trouble))

    def _draw(self, total: int, last: bool) -> None:
        # The bar in a variable of our own: another thread, or a handler, may draw and close it meanwhile.
        bar = self._bar
        if bar is None:
            bar = self._bar = self._class(total=total, unit="worker")
        bar.total = total
        bar.n = _settled(self._results)
        bar.set_postfix_str(_told(self._results) + self._left(), refresh=True)
        if last:
            bar.close()
            self._bar = None

    def _left(self) -> str:
        """Return the estimate; made once a second, as it goes through all the workers."""
        now = time.monotonic()
        if now >= self._next_estimate:
            self._next_estimate = now + 1.0
            self._estimate = _in_words(seconds_left(self._results, time.time()))
        return self._estimate
