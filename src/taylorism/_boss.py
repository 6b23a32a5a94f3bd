"""Main: `Boss`, the handle of the work: it sends orders, and tells what has come of them."""

from __future__ import annotations

import functools
import logging
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import footprints

from taylorism import _cpus, _instructions
from taylorism._errors import TaylorismError, UnknownOrder
from taylorism._link import Link
from taylorism._messages import NewSets, Signal
from taylorism._policy import checked_scheduler, checked_start_method

__all__ = ["NOTHING", "Boss"]

_log = logging.getLogger("taylorism")

#: seconds for which a listener that has said its last word may keep `get_report`, so that it is reaped
_LAST_BREATH = 0.5

#: the default of instructions; nobody writes to it
NOTHING: dict[str, Any] = {}


@functools.cache
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

    Raises
    ------
    AssertionError
        `scheduler` has no callable `launchable`.
    ValueError
        No such start method.

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

    def __init__(
        self,
        scheduler: Any = None,
        name: str | None = None,
        verbose: bool = False,
        maxlenreport: int = 1024,
        sharedmemory_common_instructions: Mapping[str, Any] = NOTHING,
        *,
        start_method: str | None = None,
    ) -> None:
        if scheduler is None:
            scheduler = _default_scheduler(_cpus.default_width())
        self.scheduler = checked_scheduler(scheduler)
        self.name = name
        self.verbose = verbose
        self.maxlenreport = int(maxlenreport)
        self._raised = False
        method = checked_start_method(start_method)
        self._link = Link(
            scheduler, sharedmemory_common_instructions, verbose, self.maxlenreport, method
        )
        self._process = self._link.process
        self.control_messenger_out = ControlMessenger(self._link)
        forget = weakref.finalize(self, self._link.drop)
        forget.atexit = False  # the exit has a way of its own: `_exits`
        # It must not outlive the tie: it would keep the results, with a traceback whose frames hold this Boss.
        self._link.on_close = forget.detach

    # -- orders ---------------------------------------------------------------------------------------

    def set_instructions(
        self,
        common_instructions: Mapping[str, Any] = NOTHING,
        individual_instructions: Mapping[str, Any] = NOTHING,
        fatal: bool = True,
        *,
        common: Mapping[str, Any] | None = None,
        individual: Mapping[str, Any] | None = None,
    ) -> None:
        """Order one worker for each index of the individual instructions; may be repeated at any time.

        Parameters
        ----------
        common_instructions, common : dict
            Attributes of every worker.
        individual_instructions, individual : dict of sequences
            For each attribute one value for each worker, all of one length; they win over the common ones. No
            individual instruction, no worker.
        fatal : bool
            Whether instructions that make no sense also stop the workers that run.

        Raises
        ------
        AssertionError
            The sequences are not of one length.
        TypeError
            A value is no sequence, a name no string, or something cannot be pickled
            (`InstructionsNotPicklable`).
        Exception
            That of a worker, if the work has already failed.
        """
        common = common_instructions if common is None else common
        individual = individual_instructions if individual is None else individual
        self._raise_failure()
        try:
            segments = _packed(common, individual)
        except TaylorismError:
            if fatal:
                self.stop_them_working()
            raise
        if len(segments) > 1:
            self._link.send(NewSets(), segments)
            self._raise_failure()

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

    def stop_them_working(self) -> None:
        """Stop the running workers now, start no others. May be repeated, from any thread or signal handler."""
        self._link.signal(Signal.STOP_RIGHTNOW)

    def end(self) -> None:
        """Say that no more instructions will come: the listener leaves when all is done."""
        self._link.signal(Signal.END)

    # -- results --------------------------------------------------------------------------------------

    def wait_till_finished(self) -> None:
        """`end`, then wait until all is done.

        Raises
        ------
        Exception
            What a worker raised: same class, same arguments; each time that this is called.
        WorkerDied
            A worker's process was killed, or left without a report.
        BossDied
            The listener was killed.
        """
        self._link.signal(Signal.RESUME)
        self.end()
        try:
            self._link.wait()
            self._link.close()
        except BaseException:
            self._link.give_up()
            raise
        self._raise_failure()

    def get_report(self, interim: bool = True) -> dict[str, Any] | None:
        """Return what is done; never waits.

        Parameters
        ----------
        interim : bool
            While the work is going on, return what is done so far rather than None.

        Returns
        -------
        dict or None
            ``{'workers_report': [{'name': str, 'report': object}, ...], 'status': str}``, in order of
            completion; the status is one of ``interim``, ``finished``, ``pending``, ``workers exception`` and
            ``transmission exception``. With ``pending``, the key `pending` has the sets that never ran, and
            `stopped` the names of the workers that were interrupted. After a failure, `workers_report` is the
            exception, `traceback` its lines, and `workers_done` has the records.

        Raises
        ------
        Exception
            What a worker raised, unless it has been raised before.
        """
        results = self._link.results
        self._link.receive()
        if results.error is not None and not self._raised:
            self._raise_failure()
        if results.over or results.error is not None or interim or results.snapshot:
            results.snapshot = False
            if results.over:
                self._link.close(_LAST_BREATH)
            return results.report()
        return None

    def _raise_failure(self) -> None:
        self._link.receive()
        results = self._link.results
        if results.error is None:
            return
        if not self._raised:
            self._raised = True
            _announce(results.traceback)
            self._link.wait(_LAST_BREATH)  # for the others to be stopped
        if results.over:
            self._link.close(_LAST_BREATH)
        raise results.error.with_traceback(None)  # it would grow with each time

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
            self._link.send(NewSets(), _instructions.pack({}, order))
        else:
            names = ", ".join(Boss.control_signals)
            raise UnknownOrder(
                f"the listener does not know the order {order!r}: send a value of Boss.control_signals ({names})."
            )


def _packed(common: Mapping[str, Any], individual: Mapping[str, Any]) -> Sequence[bytes]:
    _instructions.check_names(common, "common")
    _instructions.check_names(individual, "individual")
    return _instructions.pack(common, _instructions.deal(individual))


def _announce(traceback: tuple[str, ...]) -> None:
    try:
        _log.error("Error was caught in subprocesses with traceback:")
        sys.stderr.writelines(traceback)
    except Exception:  # no standard error, or a handler that fails: the exception itself says it all
        pass
