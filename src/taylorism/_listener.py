"""Listener process: the event loop, the only one.

::

       main                          this process                                    workers
    +--------+  NewSets, Order   +--------------------------+     fork        +-----------------------+
    |  Boss  | ----------------> | upstream --> ledger      | --------------> | _child: hooks, _task  |
    |        |                   |    ^           | decide  |                 |                       |
    |        | <---------------- |    +-- crew <--+         | <-------------- | one Notice, an end    |
    +--------+  WorkerDone,      +--------------------------+  pipe, SIGCHLD  +-----------------------+
                WorkerFailed, Over

One thread, one place to wait: the channel, the pipe of each worker, a pipe that signals write to, and main's
death. Nothing here waits for one peer: the channel buffers, the pipes are read as far as they go, and the standard
error gives up on a reader who takes nothing. There is a timeout only when something is due.

Ctrl-C reaches the whole process group at once: main, us and the workers. What it means is main's to decide:
failures that come within `VERDICT` seconds of a SIGINT are held until it has. (A worker that died of it is
no error when main goes on to stop everything.)
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from taylorism import _channel, _errors, _hiring, _instructions, _signals, _streams, _tree
from taylorism._channel import Frame
from taylorism._compat import SignalInterruptError
from taylorism._crew import Crew, Member
from taylorism._ledger import Intake, Ledger, Todo
from taylorism._messages import (
    Failure,
    Hello,
    NewSets,
    Order,
    Outcome,
    Over,
    Signal,
    Snapshot,
    WorkerDone,
    WorkerFailed,
)
from taylorism._process import in_words
from taylorism._setup import Setup
from taylorism._upstream import Upstream

__all__ = ["serve"]

_log = logging.getLogger("taylorism")

#: seconds between two questions to a scheduler of the user's that holds work back: it may watch a clock
ASK_AGAIN = 0.05
#: workers that are hired before the first of them is started: after each fork, a hire copies the pages that it
#: looks at, so that the first hire of a turn costs several times what the others do
TOGETHER = 8
#: seconds for which failures wait for what main makes of a Ctrl-C
VERDICT = 2.0
#: seconds between SIGTERM and SIGKILL when main is dead: nobody waits for the tasks' clean-up any more
ORPHANED_GRACE = 1.0

_NEVER = float("inf")
#: the name of who failed where no worker is to blame
_BOSS = ""


def serve(setup: Setup) -> NoReturn:
    """Be the listener until the work is over."""
    status = 1
    try:
        _tree.become_subreaper()
        _streams.renew()
        _streams.empty_stdin()
        gc.freeze()  # the workers' collections would otherwise copy every page of main
        Listener(setup).live()
        status = 0
    finally:
        _streams.flush_quietly()
        os._exit(status)


class Listener:
    """What goes on between main and the workers.

    Parameters
    ----------
    setup : Setup
        What main has said.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._signals = _signals.Inbox()
        self._poller = select.poll()
        self._poller.register(self._signals.fd, select.POLLIN)
        self._upstream = Upstream(setup.channel, setup.main_pid, setup.forked, self._poller)
        self._upstream.tell(Hello(_tree.mark_descendants()))
        shown = setup.maxlenreport if setup.verbose else 0
        self._crew = Crew(self._poller, self._forget, shown)
        self._ledger = Ledger()
        self._clockless = _is_ours(setup.scheduler)
        self._news = False  # something has happened that the scheduler was not asked about
        self._crowded = False  # the system had no room for another process
        self._ready: set[int] = set()
        self._verdict_due = 0.0
        self._held: list[tuple[Member, Callable[[Member], None]]] = []
        self._finished = False

    def live(self) -> None:
        """Run; whatever goes wrong in here stops all, is reported, and ends the listener."""
        try:
            self.run()
        except BaseException as error:  # also what code of the user's raises in here, `sys.exit()` included
            self._fail(_BOSS, error)
            self.run()

    def run(self) -> None:
        """Turn until the work is over and all has been said."""
        while not (self._finished and self._upstream.all_said):
            self._wait()
            self._take_signals()
            self._take_orders()
            self._take_notices()
            self._note_the_dead()
            self._enforce_deadlines()
            self._schedule()
            self._report_the_end()
            self._upstream.flush(at_once=self._finished)

    # -- waiting --------------------------------------------------------------------------------------

    def _wait(self) -> None:
        due = self._next_due()
        left = None if due == _NEVER else max(0, math.ceil((due - time.monotonic()) * 1000))
        self._ready = {fd for fd, _ in self._poller.poll(left)}

    def _next_due(self) -> float:
        due = min(self._crew.next_deadline, self._upstream.next_due())
        if self._verdict_due > 0 and self._deciding:
            return min(due, self._verdict_due)
        if not self._clockless and self._ledger.may_launch and not self._crowded:
            return min(due, time.monotonic() + ASK_AGAIN)
        return due

    # -- signals and main -----------------------------------------------------------------------------

    def _take_signals(self) -> None:
        readable = self._signals.fd in self._ready
        if readable or self._signals.any:
            self._take_note_of(self._signals.drain(readable))
            self._ready.discard(self._signals.fd)
        if self._upstream.main_is_gone(self._ready):
            self._upstream.stop_watching()
            self._be_orphaned()

    def _take_note_of(self, came: set[int]) -> None:
        if signal.SIGINT in came:
            self._verdict_due = time.monotonic() + VERDICT
        for signum in came.intersection(_signals.ENDING):
            self._fail(_BOSS, SignalInterruptError(f"Signal {signum:d} was caught."))

    def _be_orphaned(self) -> None:
        """Stop everything, since main is dead or has let go of us."""
        self._upstream.hang_up()
        self._ledger.obey(Signal.STOP_RIGHTNOW)
        self._crew.stop(ORPHANED_GRACE)

    def _take_orders(self) -> None:
        for frame in self._upstream.orders(self._ready) if self._ready else ():
            self._news = True
            self._take_order(frame)
        if self._upstream.hung_up:
            self._upstream.hang_up()
            if not self._upstream.deaf:
                self._be_orphaned()

    def _take_order(self, frame: Frame) -> None:
        if isinstance(frame.head, NewSets):
            self._take_sets(frame.segments)
        elif isinstance(frame.head, Order):
            self._obey(frame.head.signal)
        else:
            raise _errors.TaylorismError(f"the main process sent an unknown order: {frame.head!r}")

    def _take_sets(self, segments: tuple[Any, ...]) -> None:
        if self._ledger.intake is Intake.CLOSED:
            return
        try:
            common = _instructions.unpack_common(segments[0])
            sets = [_instructions.unpack(common, packed) for packed in segments[1:]]
        except Exception as trouble:
            self._fail(_BOSS, _not_rebuilt(trouble))
            return
        self._ledger.add(sets)
        self._refuse_hopeless(sets)

    def _refuse_hopeless(self, sets: list[dict[str, Any]]) -> None:
        """Fail at once on a set that its scheduler can never start."""
        judge = getattr(self._setup.scheduler, "never_startable", None)
        if not (self._clockless and callable(judge)):
            return
        for instructions in sets:
            error = _judged(judge, instructions)
            if error is not None:
                self._fail(_name(instructions), error, None, instructions)
                return

    def _obey(self, order: Signal) -> None:
        if order in (Signal.HALT, Signal.STOP, Signal.STOP_LISTENING):
            self._schedule()  # what was ordered before this comes first: RESUME, then STOP_LISTENING
        todo = self._ledger.obey(order)
        if todo is Todo.STOP_WORKERS:
            self._crew.stop()
        elif todo is Todo.SEND_SNAPSHOT:
            self._upstream.tell(Snapshot())
        elif todo is Todo.GO_DEAF:
            self._tell_over()
            self._upstream.deaf = True

    # -- notices and deaths ---------------------------------------------------------------------------

    def _take_notices(self) -> None:
        for member in self._crew.heard(self._ready):
            notice = self._crew.hear(member)
            if notice is not None:
                self._take_notice(member, notice)

    def _take_notice(self, member: Member, notice: Frame) -> None:
        if notice.head.outcome is Outcome.REPORT:
            self._note_report(member, notice)
        else:
            self._unless_main_decides(member, self._note_failure)

    def _note_report(self, member: Member, notice: Frame) -> None:
        if self._setup.verbose:
            _say(logging.INFO, "%s", notice.head.text)
        if not self._clockless:
            self._ledger.done(member.name, _opened(notice))
        self._upstream.tell(WorkerDone(member.name), notice.segments)

    def _note_failure(self, member: Member) -> None:
        assert member.notice is not None
        failure = member.notice.head.failure
        self._stop_on(failure, member.notice.segments, member.worker, member.instructions)

    def _note_the_dead(self) -> None:
        for member in self._crew.reap() if self._signals.child_ended() else ():
            notice = self._crew.hear(member, dead=True)
            if notice is not None:
                self._take_notice(member, notice)
            self._let_go(member)
            if member.notice is None:
                self._unless_main_decides(member, self._note_death)

    def _let_go(self, member: Member) -> None:
        self._crew.dismiss(member)
        self._ledger.left(member.name)
        self._news, self._crowded = True, False

    def _note_death(self, member: Member) -> None:
        if self._crew.stopping:
            self._ledger.interrupted(member.name)
        else:
            self._fail(member.name, _died(member), member.worker, member.instructions)

    def _enforce_deadlines(self) -> None:
        for member in self._crew.enforce():
            _say(logging.ERROR, "worker %s cannot be ended by the system; it is left behind.", member.name)
            self._let_go(member)
            self._ledger.interrupted(member.name)
        if self._held and not self._deciding:
            held, self._held = self._held, []
            for member, note in held:
                note(member)

    @property
    def _deciding(self) -> bool:
        """Whether main has still to say what a Ctrl-C means."""
        if not self._verdict_due or self._crew.stopping:
            return False
        return time.monotonic() < self._verdict_due

    def _unless_main_decides(self, member: Member, note: Callable[[Member], None]) -> None:
        self._take_signals()  # the Ctrl-C that made a worker fail may have come to us after its notice
        if self._deciding:
            self._held.append((member, note))
        else:
            note(member)

    # -- failures -------------------------------------------------------------------------------------

    def _fail(
        self,
        name: str,
        error: BaseException,
        worker: Any = None,
        instructions: dict[str, Any] | None = None,
    ) -> None:
        """Take note of an exception that was raised in here, or that we charge to a worker."""
        failure = Failure(name, "workers exception", _errors.traceback_lines(error))
        packed = [_errors.pack(error, f"worker {name!r}" if name else "the listener")]
        self._stop_on(failure, packed, worker, instructions or {})

    def _stop_on(
        self, failure: Failure, packed: Any, worker: Any, instructions: dict[str, Any]
    ) -> None:
        """Stop everything on the first failure, and tell main, unless main does not want to hear."""
        if self._upstream.deaf and worker is not None:
            _announce(failure)
            return
        if self._crew.stopping and worker is not None:
            self._ledger.interrupted(failure.name)  # what fails while it is stopped was interrupted
        elif self._ledger.fail(failure):
            lines = _hiring.tell_instructions(worker, instructions)
            failure = dataclasses.replace(failure, instructions="".join(lines))
            _announce(failure)
            self._upstream.tell(WorkerFailed(failure), packed)
        self._crew.stop()

    # -- scheduling -----------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Let the scheduler decide, once for all that has happened, and start what it chose."""
        asked = self._ledger.may_launch and (self._news or not self._clockless)
        if not asked or self._crowded or self._deciding:
            return
        self._news = False
        try:
            chosen = self._ledger.decide(self._setup.scheduler, self._clockless)
        except BaseException as error:
            self._fail(_BOSS, error)
            return
        self._launch(chosen)
        self._check_progress()

    def _launch(self, chosen: list[dict[str, Any]]) -> None:
        """Hire and start what was chosen, a few at a time; what cannot be started now is pending again."""
        left = list(chosen)
        while left:
            hired = self._hire(left[:TOGETHER])
            started = self._start(hired)
            left = left[started:]
            if started == 0 or started < len(hired):
                break
        self._ledger.give_back([_unmarked(each) for each in left])

    def _hire(self, sets: list[dict[str, Any]]) -> list[tuple[Any, dict[str, Any]]]:
        """Build a worker for each set; none at all if one of them cannot be built."""
        hired: list[tuple[Any, dict[str, Any]]] = []
        for instructions in sets:
            try:
                worker = _hiring.hire(instructions, self._setup.shared)
                self._ledger.started(worker)
            except BaseException as error:
                self._dismiss(hired)
                self._fail(_name(instructions), error, None, instructions)
                return []
            hired.append((worker, instructions))
        return hired

    def _start(self, hired: list[tuple[Any, dict[str, Any]]]) -> int:
        """Start the workers; return how many could be."""
        for position, (worker, instructions) in enumerate(hired):
            try:
                self._crew.start(worker, instructions)
            except BaseException as trouble:
                self._dismiss(hired[position:])
                self._note_refusal(worker, instructions, trouble)
                return position
            if self._setup.verbose:
                _say(logging.INFO, "Worker %s started.", worker.name)
        return len(hired)

    def _dismiss(self, hired: list[tuple[Any, dict[str, Any]]]) -> None:
        for worker, _ in hired:
            self._ledger.left(worker.name)

    def _note_refusal(self, worker: Any, instructions: dict[str, Any], trouble: BaseException) -> None:
        """Wait for a running worker to make room for this one; it is a failure if there is none."""
        if not isinstance(trouble, OSError):
            self._fail(worker.name, trouble, worker, instructions)
        elif self._ledger.workers:
            _say(logging.WARNING, "worker %s waits for the end of another: %s", worker.name, trouble)
            self._crowded = True
        else:
            self._fail(worker.name, _no_room(worker, instructions, trouble), worker, instructions)

    def _check_progress(self) -> None:
        """Fail where nothing runs and a scheduler that watches no clock launches nothing."""
        if self._ledger.may_launch and not self._ledger.workers and self._clockless:
            self._fail(_BOSS, _stuck(self._setup.scheduler, self._ledger.pending))

    # -- the end --------------------------------------------------------------------------------------

    def _report_the_end(self) -> None:
        over = self._ledger.over and self._crew.all_gone and not self._held and self._signals.quiet
        if over and not self._finished:
            self._tell_over()
            self._finished = True

    def _tell_over(self) -> None:
        pending = [_packed(each) for each in self._ledger.pending]
        self._upstream.tell(Over(tuple(self._ledger.stopped)), pending)

    def _forget(self) -> None:
        """Close, in a child, what is the listener's alone."""
        self._upstream.forget()
        self._signals.forget()


# ---------------------------------------------------------------------------------------------------------
# what is said of what went wrong
# ---------------------------------------------------------------------------------------------------------


def _announce(failure: Failure) -> None:
    """Say on the log and on standard error who failed, how, and with which instructions."""
    who = f"worker {failure.name}" if failure.name else "the listener"
    _say(logging.ERROR, "error encountered with %s with traceback:", who)
    try:
        sys.stderr.writelines(failure.traceback)
        if failure.instructions:
            sys.stderr.write("Instructions of guilty worker:\n" + failure.instructions)
        sys.stderr.flush()
    except Exception:  # no standard error: main is told anyhow
        pass


def _say(level: int, message: str, *values: object) -> None:
    """Log, whatever the handlers of the user do."""
    try:
        _log.log(level, message, *values, stacklevel=2)
    except Exception:
        pass


def _died(member: Member) -> _errors.WorkerDied:
    code, told = member.process.exitcode, _errors.quote(member.instructions)
    how = in_words(code) + (" (os._exit?)" if code is not None and code >= 0 else "")
    return _errors.WorkerDied(
        f"worker {member.name!r} died without a report: {how}. Look at its output; if memory is "
        f"short, run fewer at a time or declare its memory. Its instructions: {told}",
        name=member.name,
        exitcode=code,
        instructions=told,
    )


def _judged(
    judge: Callable[[Any], str | None], instructions: dict[str, Any]
) -> BaseException | None:
    """Return why a set can never start: the scheduler says so, or it cannot make sense of the set."""
    try:
        reason = judge(instructions)
    except BaseException as error:
        return error
    if not reason:
        return None
    return _errors.NeverStartable(
        f"worker {_name(instructions)!r} can never start: {reason} "
        f"Its instructions: {_errors.quote(instructions)}"
    )


def _no_room(worker: Any, instructions: dict[str, Any], trouble: OSError) -> Exception:
    return _errors.WorkerNotStarted(
        f"the process of worker {worker.name!r} cannot be started: {_errors.describe(trouble)}. Raise the "
        f"limit (ulimit -u, ulimit -n). Its instructions: {_errors.quote(instructions)}"
    )


def _stuck(scheduler: Any, pending: list[dict[str, Any]]) -> Exception:
    return _errors.SchedulerError(
        f"the scheduler {type(scheduler).__name__} launches none of the {len(pending)} pending sets although "
        "nothing runs, and so never will: check its limits. "
        f"The first set: {_errors.quote(pending[0], 500)}"
    )


def _not_rebuilt(trouble: Exception) -> Exception:
    error = _errors.InstructionsNotPicklable(
        f"the listener cannot rebuild the instructions that it was sent: {_errors.describe(trouble)}. Classes "
        "and functions in them must exist before the Boss is made, or be importable."
    )
    error.__cause__ = trouble
    return error


# ---------------------------------------------------------------------------------------------------------
# small things
# ---------------------------------------------------------------------------------------------------------


def _is_ours(scheduler: Any) -> bool:
    """Whether the `launchable` of `scheduler` is one of this package, none of which has a clock."""
    return getattr(scheduler.launchable, "__module__", None) == "taylorism.schedulers"


def _name(instructions: dict[str, Any]) -> str:
    return str(instructions.get("name") or "?")


def _unmarked(instructions: dict[str, Any]) -> dict[str, Any]:
    """Take back what a scheduler adds to the sets that it launches."""
    for mark in ("scheduler_ticket", "scheduler_hooks"):
        instructions.pop(mark, None)
    return instructions


def _opened(notice: Frame) -> Any:
    """Load a report for a scheduler of the user's; main will say what is wrong with one that does not load."""
    try:
        return _channel.open_object(notice.segments)
    except Exception:
        return None


def _packed(instructions: dict[str, Any]) -> bytes:
    """Pickle a set that never ran, for the report; what cannot be is replaced by its text."""
    try:
        return _instructions.pack_one(instructions)
    except _errors.InstructionsNotPicklable:
        return _instructions.pack_one({k: _errors.quote(v) for k, v in instructions.items()})
