"""Main: `run_as_server` and `batch_main`, the two one-call ways in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from taylorism._boss import NOTHING, Boss
from taylorism._compat import SignalInterruptError
from taylorism._policy import TimeLimit

__all__ = ["batch_main", "run_as_server"]

#: what interrupts a batch with an exception
_INTERRUPTING = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
)


def run_as_server(
    common_instructions: Mapping[str, Any] | Sequence[Mapping[str, Any]] = NOTHING,
    individual_instructions: Mapping[str, Any] | Sequence[Mapping[str, Any]] = NOTHING,
    scheduler: Any = None,
    verbose: bool = False,
    maxlenreport: int = 1024,
    sharedmemory_common_instructions: Mapping[str, Any] = NOTHING,
    *,
    start_method: str | None = None,
    on_error: str = "stop",
    max_trials: int = 1,
    retry_delay: float = 0.0,
    timeout: TimeLimit = None,
    stop_grace: float = 5.0,
    log_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    memory_guard: str | None = None,
    max_tasks_per_child: int | None = 1,
) -> Boss:
    """Make a Boss, give it instructions, set it to work, and return it.

    More instructions may follow, until `Boss.end` or `Boss.wait_till_finished`.

    Parameters
    ----------
    common_instructions, individual_instructions
        As in `Boss.set_instructions`.
    scheduler, verbose, maxlenreport, sharedmemory_common_instructions
        As in `Boss`.
    start_method, on_error, max_trials, retry_delay, timeout, stop_grace, log_dir, progress, memory_guard, \
max_tasks_per_child
        As in `Boss`.

    Returns
    -------
    Boss
    """
    boss = Boss(
        scheduler=scheduler,
        verbose=verbose,
        maxlenreport=maxlenreport,
        sharedmemory_common_instructions=sharedmemory_common_instructions,
        start_method=start_method,
        on_error=on_error,
        max_trials=max_trials,
        retry_delay=retry_delay,
        timeout=timeout,
        stop_grace=stop_grace,
        log_dir=log_dir,
        progress=progress,
        memory_guard=memory_guard,
        max_tasks_per_child=max_tasks_per_child,
    )
    try:
        boss.set_instructions(common_instructions, individual_instructions)
        boss.make_them_work()
    except BaseException:
        boss._abandon()
        raise
    return boss


def batch_main(
    common_instructions: Mapping[str, Any] | Sequence[Mapping[str, Any]] = NOTHING,
    individual_instructions: Mapping[str, Any] | Sequence[Mapping[str, Any]] = NOTHING,
    scheduler: Any = None,
    verbose: bool = False,
    maxlenreport: int = 1024,
    print_report: Callable[[Any], Any] = print,
    sharedmemory_common_instructions: Mapping[str, Any] = NOTHING,
    *,
    start_method: str | None = None,
    on_error: str = "stop",
    max_trials: int = 1,
    retry_delay: float = 0.0,
    timeout: TimeLimit = None,
    stop_grace: float = 5.0,
    log_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    memory_guard: str | None = None,
    max_tasks_per_child: int | None = 1,
) -> dict[str, Any] | None:
    """Run everything, wait, print the report of each worker, and return them all.

    Parameters
    ----------
    print_report : callable
        Called with the report of each worker, after its name was printed.
    common_instructions, individual_instructions
        As in `Boss.set_instructions`.
    scheduler, verbose, maxlenreport, sharedmemory_common_instructions
        As in `Boss`.
    start_method, on_error, max_trials, retry_delay, timeout, stop_grace, log_dir, progress, memory_guard, \
max_tasks_per_child
        As in `Boss`.

    Returns
    -------
    dict
        As from `Boss.get_report`.

    Raises
    ------
    Exception
        What a worker raised; the others are stopped first.
    SignalInterruptError
        A SIGTERM came; the workers are stopped first. The handlers of the caller are restored.
    """
    with _interruptible():
        boss = run_as_server(
            common_instructions,
            individual_instructions,
            scheduler=scheduler,
            verbose=verbose,
            maxlenreport=maxlenreport,
            sharedmemory_common_instructions=sharedmemory_common_instructions,
            start_method=start_method,
            on_error=on_error,
            max_trials=max_trials,
            retry_delay=retry_delay,
            timeout=timeout,
            stop_grace=stop_grace,
            log_dir=log_dir,
            progress=progress,
            memory_guard=memory_guard,
            max_tasks_per_child=max_tasks_per_child,
        )
        try:
            boss.wait_till_finished()
            report = boss.get_report()
        except BaseException:
            boss._abandon()
            raise
    _print(report, print_report)
    return report


def _print(report: dict[str, Any] | None, print_report: Callable[[Any], Any]) -> None:
    for record in (report or {})["workers_report"]:
        title = f"WORKER NAME: {record['name']}"
        print("=" * len(title))
        print(title)
        print("-" * len(title))
        print_report(record["report"])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first signal raise, in the main thread; elsewhere handlers cannot be set, and none is.

    After the first, the caller's handlers are back: a second Ctrl-C does what it always does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in _INTERRUPTING}

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def interrupt(signum: int, frame: FrameType | None) -> None:
        restore()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SignalInterruptError(f"Signal {signum:d} was caught.")

    try:
        for signum, handler in before.items():
            if handler is not signal.SIG_IGN or signum == signal.SIGTERM:
                signal.signal(signum, interrupt)
        yield
    finally:
        try:
            restore()
        except BaseException:  # another handler of the user's raises in the middle of it
            restore()
            raise
