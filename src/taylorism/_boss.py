"""Main: `Boss`, the handle of the work: it sends orders, and tells what has come of them."""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from numbers import Integral
from types import TracebackType
from typing import TYPE_CHECKING, Any

import footprints

from taylorism import _cpus, _instructions
from taylorism._errors import BadOption, TaylorismError, UnknownOrder, UnknownWorker, WaitTimeout
from taylorism._link import Link
from taylorism._messages import Signal
from taylorism._policy import (
    TimeLimit,
    check_travels,
    checked_policy,
    checked_scheduler,
    checked_start_method,
    checked_wait,
)
from taylorism._status import Status, status_of

if TYPE_CHECKING:
    from taylorism._futures import CallFuture, Calls

__all__ = ["NOTHING", "Boss"]

_log = logging.getLogger("taylorism")

#: seconds for which a listener that has said its last word may keep `get_report`, so that it is reaped
_LAST_BREATH = 0.5

#: seconds, beyond the grace of the workers, in which a listener answers
_PATIENCE = 10.0

#: the default of instructions; nobody writes to it
NOTHING: dict[str, Any] = {}


@cache
def _default_scheduler(width: int) -> Any:
    """Return what ``max_threads=0`` stands for now; schedulers have no state, so that one serves all Bosses."""
    return footprints.proxy.scheduler(limit="threads", max_threads=width)


class Boss:
    """Has instructions carried out by workers, each in a process of its own.

    A new Boss starts its listener, which waits for instructions; nothing runs before `make_them_work`.

    Parameters
    ----------
    scheduler : object, optional
        Says which pending instructions may start now: anything with a callable `launchable`. By default
        ``footprints.proxy.scheduler(limit='threads', max_threads=0)``, half of the cpus that may be used.
    name : str, optional
        For your own use.
    verbose : bool
        Log the start and the report of each worker, at INFO, on the logger ``taylorism``.
    maxlenreport : int
        Characters of a report that are logged.
    sharedmemory_common_instructions : dict
        Instructions common to all workers that are not copied: `SharedNumpyArray`.
    start_method : {'fork', 'spawn', 'forkserver'}, optional
        How the listener is started; workers are forks of it. ``fork`` where it exists, unless the environment
        variable ``TAYLORISM_START_METHOD`` says otherwise.
    on_error : {'stop', 'finish', 'collect'}
        What the failure of a worker leads to. ``'stop'``: the others are stopped, and it is raised. ``'finish'``:
        everything is run, then one `WorkersFailed` is raised that holds them all. ``'collect'``: everything is
        run and nothing is raised; the exceptions are in `errors`, and in the report.
    max_trials : int
        Launches of a set of instructions in all: one that failed is tried again, under the same name, ahead of
        what waits. Only its last failure counts.
    retry_delay : float
        Seconds before the second launch, doubled for each further one.
    timeout : float or callable, optional
        Seconds of wall time for each worker, or what returns them (or None) for its instructions. A worker that
        takes longer is stopped, with all that it has started, and has failed with `WorkerTimeout`.
    stop_grace : float
        Seconds between SIGTERM and SIGKILL where a worker is stopped.
    log_dir : path, optional
        Directory for what each worker, and the programs that it starts, write to standard output and error:
        ``<name>.out`` and ``<name>.err``, appended to. It is made if it does not exist.
    progress : bool
        Show how far the work is while main waits: a bar (tqdm, of the extra ``progress``) on a terminal or in
        a notebook, else a line through the logger every 30 s, at INFO.
    memory_guard : {'warn', 'stop'}, optional
        What happens to a worker that declares its `memory` and is seen to use more than 1.2 times that, with all
        that it has started: a warning in the log; or it is stopped, has failed with `MemoryExceeded`, and is tried
        again with 1.5 times the memory, within `max_trials`.
    max_tasks_per_child : int, optional
        Workers that a process runs one after the other before another takes its place; None for any number. Worth
        it where a task takes less than some tens of milliseconds. What a task changes in its process is there for
        the next one, but for the working directory and the environment.

    Raises
    ------
    AssertionError
        `scheduler` has no callable `launchable`.
    ValueError
        An option has a value that it cannot have (`BadOption`).
    TypeError
        `sharedmemory_common_instructions` is no dict, or a name in it no string (`BadInstructions`).
    OSError
        `log_dir` cannot be made or written to.

    Examples
    --------
    >>> from taylorism import Boss, examples
    >>> boss = Boss()
    >>> boss.set_instructions({}, {'sleeping_time': [0.01, 0.001]})
    >>> boss.make_them_work()
    >>> boss.wait_till_finished()
    >>> len(boss.get_report()['workers_report'])
    2
    """

    #: What `control_messenger_out` sends.
    control_signals = {signal.name: signal.value for signal in Signal}

    #: for a Boss within a service whose standard error is read by a program
    _quiet = False

    def __init__(
        self,
        scheduler: Any = None,
        name: str | None = None,
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
    ) -> None:
        policy = checked_policy(
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
        if scheduler is None:
            scheduler = _default_scheduler(_width())
        self.scheduler = checked_scheduler(scheduler)
        self.name = name
        self.verbose = verbose
        self.maxlenreport = int(maxlenreport)
        self._policy = policy = replace(policy, quiet=self._quiet)
        self._raised: BaseException | None = None
        # The listener would find that only after the start, and not whose fault it is.
        _instructions.check_names(sharedmemory_common_instructions, "sharedmemory_common")
        method = checked_start_method(start_method)
        check_travels(policy, method)
        self._link = Link(
            scheduler, sharedmemory_common_instructions, verbose, self.maxlenreport, policy, method
        )
        self._failures = self._link.results.entrust()
        if progress:
            from taylorism._progress import watcher

            self._link.on_news = watcher(self._link.results)
        self._link.on_news = _also(self._link.on_news, weakref.ref(self))
        self._process = self._link.process
        self.control_messenger_out = ControlMessenger(self._link)
        forget = weakref.finalize(self, self._link.drop)
        forget.atexit = False  # the exit has a way of its own: `_exits`
        # It must not outlive the tie: it would keep the results, with a traceback whose frames hold this Boss.
        self._link.on_close = forget.detach
        self._link.start(self)  # last: from its return on, this Boss is somebody's, or forgotten

    # -- orders ---------------------------------------------------------------------------------------

    def set_instructions(
        self,
        common_instructions: Mapping[str, Any] | Sequence[Mapping[str, Any]] = NOTHING,
        individual_instructions: Mapping[str, Any] | Sequence[Mapping[str, Any]] = NOTHING,
        fatal: bool = True,
        *,
        common: Mapping[str, Any] | None = None,
        individual: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Order one worker for each index of the individual instructions; may be repeated at any time.

        Parameters
        ----------
        common_instructions, common : dict
            Attributes of every worker.
        individual_instructions, individual : dict of sequences, or list of dicts
            For each attribute one value for each worker, all of one length; or the attributes of each worker. They
            win over the common ones. No individual instruction, no worker. A list of dicts may also be the only
            argument.
        fatal : bool
            Whether instructions that make no sense also stop the workers that run.

        Returns
        -------
        list of int
            An id for each worker, for `cancel`, in order; empty once `end` was called, for nothing is taken then.

        Raises
        ------
        AssertionError
            The sequences are not of one length.
        TypeError
            A value is no sequence, a name no string, or something cannot be pickled
            (`InstructionsNotPicklable`).
        Exception
            That of a worker, if it has stopped everything already.
        """
        individual = individual_instructions if individual is None else individual
        common_part: Any = common_instructions if common is None else common
        if not individual and isinstance(common_part, (list, tuple)):
            common_part, individual = NOTHING, common_part
        self._raise_what_stopped()
        try:
            _instructions.check_names(common_part, "common")
            sets = _instructions.gathered(individual)
            packed = self._link.pack(common_part, sets)
        except TaylorismError:
            if fatal:
                self.stop_them_working()
            raise
        numbers = self._link.order(common_part, sets, packed)
        self._raise_what_stopped()
        return numbers

    def make_them_work(self, terminate: bool = False, stop_listening: bool = False) -> None:
        """Start, or go on after a halt.

        Parameters
        ----------
        terminate : bool
            No more instructions will come, as if `end` followed.
        stop_listening : bool
            What can start now starts and goes on to its end, but nobody hears of it any more.
        """
        self._link.signal(Signal.RESUME)
        if stop_listening:
            self._link.signal(Signal.STOP_LISTENING)
        if terminate:
            self.end()

    def halt(self) -> None:
        """Start no more workers, until `make_them_work`; those that run go on."""
        self._link.signal(Signal.HALT)

    def stop_them_working(self, right_now: bool = True) -> None:
        """Start no more workers, for good. May be repeated, from any thread or signal handler.

        Parameters
        ----------
        right_now : bool
            Also stop those that run; else they finish.
        """
        self._link.signal(Signal.STOP_RIGHTNOW if right_now else Signal.STOP)

    def cancel(self, *names_or_ids: str | int) -> list[str | int]:
        """Take workers out of the queue, and stop those that run, with all that they have started.

        What is cancelled has not failed: it triggers no `on_error` and is not tried again. Returns when
        the processes are gone.

        Parameters
        ----------
        *names_or_ids : str or int
            Names of workers, or what `set_instructions` returned.

        Returns
        -------
        list of str and int
            Those that were cancelled, as they were given; the others had ended before.

        Raises
        ------
        UnknownWorker
            Nothing of that name or id was ordered; nothing is cancelled then. (A name that a Worker class
            makes out of its attributes is known when the worker has started.)
        """
        self._link.receive()
        wanted = [self._known(each) for each in names_or_ids]
        if not wanted:
            return []
        cancelled = self._link.cancel(wanted, self._policy.stop_grace + _PATIENCE)
        if cancelled is None:
            raise WaitTimeout(f"the listener, pid {self._process.pid}, does not answer: stop the Boss.")
        return list(cancelled)

    def end(self) -> None:
        """Say that no more instructions will come: the listener leaves when all is done."""
        self._link.signal(Signal.END)

    # -- results --------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was ordered is settled; the Boss stays ready for more.

        A new Boss is set to work. One that was halted is not: only the workers that run are waited for.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether all is settled: done, failed or cancelled.

        Raises
        ------
        Exception
            What a worker raised, if that stops everything; `WorkersFailed` with ``on_error='finish'``, when all
            is settled; each time that this is called.
        """
        self._block(timeout)
        self._raise_failure()
        return self._link.results.settled

    def poll(self) -> bool:
        """Return whether all that was ordered is settled; never waits.

        Raises
        ------
        Exception
            What `wait` would raise.
        """
        self._link.receive()
        error = self._link.results.error
        if error is not None:
            self._tell(error)
            raise error.with_traceback(None)
        return self._link.results.settled

    def wait_till_finished(self, timeout: float | None = None) -> None:
        """`end`, then wait until all is done.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        Exception
            What a worker raised: same class, same arguments; each time that this is called.
        WorkersFailed
            Some workers failed, and ``on_error='finish'``.
        WorkerDied
            A worker's process was killed, or left without a report.
        WaitTimeout
            It is not all done in that time; the work goes on.
        BossDied
            The listener was killed.
        """
        timeout = checked_wait(timeout)
        try:
            self._link.signal(Signal.RESUME)
            self.end()
            finished = self._link.wait(timeout)
            if finished:
                self._link.close()
        except BaseException:
            self._link.give_up()
            raise
        self._raise_failure()
        if not finished:
            raise _not_in_time("the end of the work", timeout)

    def as_completed(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Give out the records as the work goes on, that of work added meanwhile included.

        A new Boss is set to work. Ends when all is settled.

        Parameters
        ----------
        timeout : float, optional
            Seconds from this call to the end of the work, at most.

        Yields
        ------
        dict
            ``{'name': str, 'report': object}``, in order of completion, those that are there already first.

        Raises
        ------
        Exception
            What `wait` would raise, after the records that came before.
        WaitTimeout
            The work is not settled in that time; it goes on.
        """
        deadline = _deadline(timeout)
        self._begin()
        return self._records(deadline, timeout)

    def _records(self, deadline: float | None, timeout: float | None) -> Iterator[dict[str, Any]]:
        results, given = self._link.results, 0
        while True:
            in_time = self._link.wait_until(partial(self._has_more, given), _left(deadline))
            for record in results.records_from(given):
                given += 1
                yield record
            if self._stands_still() and results.reported == given:
                break  # asked after the last record was given: more work may have been ordered with it
            if not in_time:
                raise _not_in_time("the next record", timeout)
        self._raise_failure()

    def _has_more(self, given: int) -> bool:
        return self._link.results.reported > given or self._stands_still()

    def get_report(
        self, interim: bool = True, block: bool = False, timeout: float | None = None
    ) -> dict[str, Any] | None:
        """Return what is done.

        Parameters
        ----------
        interim : bool
            While the work is going on, return what is done so far rather than None.
        block : bool
            Wait until all that was ordered is settled, as `wait` does.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        dict or None
            ``{'workers_report': [{'name': str, 'report': object}, ...], 'status': str}``, in order of
            completion; the status is one of ``interim``, ``finished``, ``pending``, ``workers exception`` and
            ``transmission exception``. With ``pending``, the key `pending` has the sets that never ran, and
            `stopped` the names of the workers that were interrupted. After a failure, `workers_report` is the
            exception, `traceback` its lines, and `workers_done` has the records. `errors` has the exceptions of
            the workers that failed, by name, and `workers_info` what is known of each worker: see
            :doc:`howto/failures`.

        Raises
        ------
        Exception
            What a worker raised, unless it has been raised before.
        WaitTimeout
            It is not all settled in that time.
        """
        if block and not self._block(timeout):
            raise _not_in_time("the report", timeout)
        results = self._link.results
        self._link.receive()
        if results.error is not self._raised:
            self._raise_failure()
        if block or results.over or results.error is not None or interim or results.snapshot:
            results.snapshot = False
            if results.over:
                self._link.close(_LAST_BREATH)
            return results.report()
        return None

    def _block(self, timeout: float | None) -> bool:
        """Wait until nothing more comes by itself, and return whether it is so; to raise is left to who calls."""
        deadline = _deadline(timeout)
        self._begin()
        if self._link.halted:
            self._link.cancel((), _PATIENCE)  # for all the news so far
        return self._link.wait_until(self._stands_still, _left(deadline))

    def status(self) -> Status:
        """Return the names of the workers that are pending, running, done, failed and cancelled."""
        self._link.receive()
        return status_of(self._link.results)

    @property
    def errors(self) -> dict[str, BaseException]:
        """The exceptions of the workers that have failed so far, by name."""
        self._link.receive()
        return self._link.results.errors

    # -- calls ----------------------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallFuture:
        """Have a worker call ``function(*args, **kwargs)``, as an executor of `concurrent.futures` does.

        A new Boss is set to work, unless it was halted. What the call raises is raised by its future alone,
        whatever `on_error` says, and what it returns is no record of the report.

        Parameters
        ----------
        function : callable
            Anything that can be pickled, found by its name in a module, or in the script above the place where
            the Boss is made.
        *args, **kwargs
            Its arguments; what can be pickled.

        Returns
        -------
        CallFuture
            A `concurrent.futures.Future`, whose callbacks are called while main waits for something.

        Raises
        ------
        InstructionsNotPicklable
            The function or its arguments cannot be sent.
        BossEnded
            `end` was called, or what leads to it.
        Exception
            That of a worker, if it has stopped everything already.
        """
        from taylorism._futures import submit

        self._raise_what_stopped()
        future = submit(self, function, args, kwargs)
        self._begin_calls()
        return future

    def map(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **attributes: Any,
    ) -> Iterator[Any]:
        """Have workers call ``function`` with the items of iterables, as `concurrent.futures.Executor.map` does.

        The calls are ordered at once, and made whatever becomes of the iterator.

        Parameters
        ----------
        function : callable
            As in `submit`.
        *iterables
            Each gives one argument of each call; the shortest one ends them.
        timeout : float, optional
            Seconds from this call to the last value, at most.
        chunksize : int
            Calls that one worker makes, one after the other: worth it where they are short.
        **attributes
            Attributes of each worker, for the scheduler: `memory`, `expected_time`, `ncpus`...; `name`, how the
            names of the workers begin.

        Returns
        -------
        iterator
            Over the values, in the order of the items. An exception is raised at its place, and ends it: what has
            not begun is cancelled then, as it is when the iterator is closed.

        Raises
        ------
        TimeoutError
            By the iterator: the next value has not come in time (`WaitTimeout`).
        BadOption
            `timeout` or `chunksize` make no sense.
        InstructionsNotPicklable, BossEnded, Exception
            As `submit`.
        """
        from taylorism._futures import map_in_order

        self._raise_what_stopped()
        values = map_in_order(self, function, iterables, timeout, chunksize, attributes)
        self._begin_calls()
        return values

    def _begin_calls(self) -> None:
        if not self._link.halted:  # as an executor does, which nobody sets to work
            self._begin()

    @property
    def _calls(self) -> Calls:
        """The futures; made at the first call, in one operation, for two threads may come at once."""
        from taylorism._futures import Calls

        calls: Calls = self.__dict__.setdefault("_futures", Calls(self._link))
        return calls

    # -- as a context ---------------------------------------------------------------------------------

    def __enter__(self) -> Boss:  # noqa: PYI034 - `Self` is not to be had before Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait till all is finished; stop everything where an exception is on its way."""
        if kind is not None:
            self._abandon()
            return
        try:
            self.wait_till_finished()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Stop everything, and wait for the end; raises nothing but what interrupts it."""
        with suppress(Exception):  # the one that is on its way out came first
            self.stop_them_working()
            self.wait_till_finished()

    # -- common parts ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Set a new Boss to work: to wait for it would never end."""
        if not self._link.begun:
            self._link.signal(Signal.RESUME)

    def _stands_still(self) -> bool:
        """Whether nothing more will come by itself."""
        results = self._link.results
        if results.settled or results.fatal is not None:
            return True
        return self._link.halted and results.idle

    def _known(self, wanted: str | int) -> str | int:
        """Return a name or an id that was ordered."""
        if not isinstance(wanted, (str, Integral)) or isinstance(wanted, bool):
            raise BadOption(f"cancel takes names and ids of workers, not {wanted!r}.")
        wanted = wanted if isinstance(wanted, str) else int(wanted)
        if not self._link.results.knows(wanted):
            raise UnknownWorker(
                f"there is no worker {wanted!r}: take a name or an id that set_instructions() returned, or that "
                "status() shows."
            )
        return wanted

    def _raise_what_stopped(self) -> None:
        self._link.receive()
        if self._link.results.fatal is not None:
            self._raise_failure()

    def _raise_failure(self) -> None:
        self._link.receive()
        results = self._link.results
        error = results.error
        if error is None:
            return
        if self._tell(error):
            self._link.wait(_LAST_BREATH if results.fatal is not None else 0)  # for the others to be stopped
        if results.over:
            self._link.close(_LAST_BREATH)
        raise error.with_traceback(None)  # it would grow with each time

    def _tell(self, error: BaseException) -> bool:
        """Announce what is about to be raised; return whether it is for the first time."""
        if error is self._raised:
            return False
        self._raised = error
        if self._link.results.fatal is not None and not self._quiet:  # the listener has told of each of several
            _announce(self._link.results.traceback)
        return True

    def __repr__(self) -> str:
        return f"<Boss {self.name or ''} listener {self._process.pid}: {self._link.results.status}>"


class ControlMessenger:
    """How scripts send what Boss has no method for: ``send(boss.control_signals['HALT'])``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def send(self, order: Any) -> None:
        """Send a signal, a set of instructions, or a list of sets.

        Raises
        ------
        ValueError
            Anything else.
        """
        if isinstance(order, str) and order in Boss.control_signals.values():
            self._link.signal(Signal(order))
        elif isinstance(order, dict):
            self.send([order])
        elif isinstance(order, list) and all(isinstance(each, dict) for each in order):
            self._link.order({}, order, self._link.pack({}, order))
        else:
            names = ", ".join(Boss.control_signals)
            raise UnknownOrder(
                f"the listener does not know the order {order!r}: send a value of Boss.control_signals ({names})."
            )


def _also(before: Callable[[], object], boss: weakref.ref[Boss]) -> Callable[[], None]:
    """Return what is called while main waits: it also tells futures, if there are any.

    It must not hold the Boss, which would never be forgotten.
    """

    def news() -> None:
        before()
        calls = getattr(boss(), "_futures", None)
        if calls is not None:
            calls.settle()

    return news


def _width() -> int:
    """Return how many workers run at the same time when nobody says."""
    try:
        return _cpus.default_width()
    except ValueError as trouble:  # TAYLORISM_MAX_THREADS
        raise BadOption(str(trouble)) from None


def _deadline(timeout: float | None) -> float | None:
    """Return when a wait that begins now is over, on the monotonic clock."""
    seconds = checked_wait(timeout)
    return None if seconds is None else time.monotonic() + seconds


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _not_in_time(what: str, timeout: float | None) -> WaitTimeout:
    return WaitTimeout(
        f"{what} has not come within {timeout} s; the work goes on: wait again, or end it by stop_them_working()."
    )


def _announce(traceback: tuple[str, ...]) -> None:
    try:
        _log.error("Error was caught in subprocesses with traceback:")
        sys.stderr.writelines(traceback)
    except Exception:  # no standard error, or a handler that fails: the exception itself says it all
        pass
