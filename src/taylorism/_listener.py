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
no error when main goes on to stop everything.) Where main has not come to it, on a busy machine, they wait on.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import pathlib  # noqa: F401 - see below
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from taylorism import (  # noqa: F401 - see below
    _blame,
    _caps,
    _channel,
    _cpus,
    _errors,
    _freight,
    _instructions,
    _memory,
    _ranked,
    _signals,
    _streams,
    _tree,
    _worker,
)
from taylorism._arrivals import Arrivals
from taylorism._batches import NAP, Batches
from taylorism._channel import Frame
from taylorism._compat import SignalInterruptError
from taylorism._court import Court
from taylorism._crew import Crew
from taylorism._launcher import Launcher
from taylorism._ledger import Ledger, Todo
from taylorism._member import Member
from taylorism._messages import (
    Cancel,
    Cancelled,
    Hello,
    NewSets,
    Order,
    Over,
    Signal,
    Snapshot,
    State,
    WorkerDone,
)
from taylorism._reserve import Reserve
from taylorism._setup import Setup
from taylorism._stowage import Stowage
from taylorism._upstream import Upstream
from taylorism.schedulers import is_of_here, is_ours

__all__ = ["serve"]

# The listener and its workers import nothing after the fork. So what other modules import only when they need it,
# and may need there, is imported here: paths, and what `_late` stands for. Main imports us with its first
# Boss.

#: seconds between two questions to a scheduler of the user's that holds work back: it may watch a clock
ASK_AGAIN = 0.05
#: seconds after which a scheduler that launches nothing, though nothing runs, is spoken of
PUZZLED = 30.0
#: seconds for which failures wait for what main makes of a Ctrl-C
VERDICT = 2.0
#: the same where main is still at it, or waits for a cpu or a disk
VERDICT_AT_MOST = 20.0
#: seconds between two looks whether it is
_GLIMPSE = 0.1
#: seconds between SIGTERM and SIGKILL when main is dead: nobody waits for the tasks' clean-up any more
ORPHANED_GRACE = 1.0

#: sets that are queued in one turn, where those that are there may start before the others are
AT_ONCE = 1000
#: signals to which it is the same whether all that was ordered before them is queued
_UNHURRIED = (Signal.RESUME, Signal.END)

_NEVER = float("inf")
#: the same, in milliseconds
_NAP = int(NAP * 1000)
#: seconds between two remarks of that kind
_LONG = 600.0
#: milliseconds that a wait takes at most: the system cannot count to more than 24 days of them
_DAY = 86_400_000


@dataclass
class _Cancelling:
    """An order to cancel that is being carried out.

    Attributes
    ----------
    which : tuple of int and str
        Whom it concerns, as the user named them.
    leaving : list of Member
        The workers that are being stopped for it.
    """

    request: int
    which: tuple[int | str, ...]
    leaving: list[Member]


def serve(setup: Setup) -> NoReturn:
    """Be the listener until the work is over."""
    status = 1
    try:
        _tree.become_subreaper()
        if setup.policy.quiet:
            _streams.close_stderr()
        _streams.renew()
        _streams.empty_stdin()
        gc.freeze()  # the workers' collections would otherwise copy every page of main
        _worker.be_unobserved()
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
        measured = bool(getattr(setup.scheduler, "measured", False))
        self._stowage = Stowage(setup.hold, _say_why_by_pipe)
        self._crew = Crew(
            self._poller, self._forget, shown, setup.policy, measured, setup.shared, self._stowage
        )
        self._ledger = Ledger(setup.policy, queue=setup.queue)
        self._clockless = is_ours(setup.scheduler if setup.queue is None else setup.queue) and not measured
        self._arrivals = Arrivals(setup, self._ledger, self._stowage.load, self._clockless)
        self._court = Court(setup.policy, self._ledger, self._crew, self._upstream, self._arrivals.objection)
        self._batches = Batches(
            setup.policy, self._ledger, self._crew, self._upstream, self._poller, setup.verbose, self._stowage
        )
        self._reserve = Reserve(setup.policy, self._ledger, self._crew, private=not is_of_here(setup.scheduler))
        self._launcher = Launcher(setup, self._ledger, self._crew, self._upstream, self._court, self._batches)
        self._remark_at = _NEVER  # when to say that a scheduler of the user's launches nothing though nothing runs
        self._news = False  # something has happened that the scheduler was not asked about
        self._ready: set[int] = set()
        self._verdict_due = self._verdict_limit = 0.0
        self._held: list[tuple[Member, Callable[[Member], None]]] = []
        self._cancelling: list[_Cancelling] = []
        self._put_aside: list[dict[str, Any]] = []  # what could never start, and came after what stopped everything
        self._finished = False

    def live(self) -> None:
        """Run; whatever goes wrong in here stops all, is reported, and ends the listener."""
        try:
            # Main has to know the mark before there is anybody to be found by it.
            self._upstream.flush(at_once=True)
            self.run()
        except BaseException as error:  # also what code of the user's raises in here, `sys.exit()` included
            self._court.charge_boss(error)
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
            self._answer_cancels()
            self._report_the_end()
            self._upstream.flush(at_once=self._finished)
            self._stowage.give_back(self._crew.living_forks)  # what was told holds on to workers

    # -- waiting --------------------------------------------------------------------------------------

    def _wait(self) -> None:
        self._see_to_verdict()
        due = self._next_due()
        left = None if due == _NEVER else min(_DAY, max(0, math.ceil((due - time.monotonic()) * 1000)))
        if self._crew.has_hands and self._batches.busy:
            left = _NAP if left is None else min(_NAP, left)
        self._ready = {fd for fd, _ in self._poller.poll(left)}
        if self._crew.has_hands:
            self._ready |= self._batches.ready()

    def _next_due(self) -> float:
        due = min(self._crew.next_deadline, self._upstream.next_due(), self._ledger.next_trial)
        due = min(due, self._reserve.next_due(bool(self._ready)))
        if self._crew.has_hands:
            due = min(due, self._batches.next_deadline, self._crew.hands.next_deadline)
        if self._arrivals.waiting or (self._news and self._may_ask):
            return 0.0
        if self._deciding:
            return min(due, self._verdict_due)
        if self._held:
            return 0.0
        if not self._clockless and self._may_ask:
            return min(due, time.monotonic() + ASK_AGAIN)
        return due

    def _see_to_verdict(self) -> None:
        """Wait no more for what main makes of a Ctrl-C when it has had its time, and its turn.

        Done before the system is asked what there is: what main has said before it went to sleep comes first.
        """
        now = time.monotonic()
        if not self._verdict_due or now < self._verdict_due:
            return
        at_it = now < self._verdict_limit and self._upstream.main_is_busy()
        self._verdict_due = now + _GLIMPSE if at_it else 0.0

    # -- signals and main -----------------------------------------------------------------------------

    def _take_signals(self) -> None:
        if self._upstream.main_is_gone(self._ready):
            self._upstream.stop_watching()
            self._be_orphaned()
        readable = self._signals.fd in self._ready
        if readable or self._signals.any:
            self._take_note_of(self._signals.drain(readable))
            self._ready.discard(self._signals.fd)

    def _take_note_of(self, came: set[int]) -> None:
        if signal.SIGINT in came:
            self._verdict_due = time.monotonic() + VERDICT
            self._verdict_limit = time.monotonic() + VERDICT_AT_MOST
        # Without main, all is being stopped already, and there is nobody to tell. What follows a Ctrl-C is its
        # doing: where main is itself a worker, his Boss has all below him stopped at once.
        for signum in came.intersection(_signals.ENDING) if self._upstream.open else ():
            error = SignalInterruptError(f"Signal {signum:d} was caught.")
            self._court.charge_boss(error, aloud=not self._deciding)

    def _be_orphaned(self) -> None:
        """Stop everything, since main is dead or has let go of us."""
        self._upstream.hang_up()
        self._ledger.obey(Signal.STOP_RIGHTNOW)
        self._crew.stop(ORPHANED_GRACE)

    def _take_orders(self) -> None:
        for frame in self._upstream.orders(self._ready) if self._ready else ():
            self._news = True
            if getattr(frame.head, "signal", None) not in _UNHURRIED:
                self._take_in(None)  # what was ordered before this comes first
            self._take_order(frame)
        self._take_in(AT_ONCE)
        if self._upstream.hung_up:
            self._upstream.hang_up()
            if not self._upstream.deaf:
                self._be_orphaned()

    def _take_order(self, frame: Frame) -> None:
        if isinstance(frame.head, NewSets):
            self._take_sets(frame)
        elif isinstance(frame.head, Order):
            self._obey(frame.head.signal)
        elif isinstance(frame.head, Cancel):
            self._cancel(frame.head)
        else:
            raise _errors.TaylorismError(f"the main process sent an unknown order: {frame.head!r}")

    def _take_sets(self, frame: Frame) -> None:
        if not self._arrivals.announce(frame):
            self._take_in(None)

    def _take_in(self, most: int | None) -> None:
        """Queue the next sets that main has sent; charge those that can never start."""
        if not self._arrivals.waiting:
            return
        self._news = True
        for job, error in self._arrivals.queue(most):
            if self._ledger.failure is None or not self._setup.policy.stops:
                self._court.charge_job(job, error)
            else:
                self._put_aside.append(job.instructions or {"?": str(error)})

    def _cancel(self, order: Cancel) -> None:
        """Take what is wanted out of the queue, and stop what of it runs; too late once the end has been told."""
        if self._finished:
            return
        wanted, found = set(order.wanted), set[int | str]()
        self._batches.find(wanted)
        for job in self._ledger.withdraw(wanted):
            found |= job.callings
            self._court.settle(job, State.CANCELLED)
        running = [] if order.pending_only else self._crew.called(wanted)
        leaving = list(filter(self._court.may_be_cancelled, running))
        for member in leaving:
            found |= {member.job.number, member.name}
            self._crew.stop_one(member, State.CANCELLED)
        which = tuple(each for each in dict.fromkeys(order.wanted) if each in found)
        self._cancelling.append(_Cancelling(order.request, which, leaving))

    def _answer_cancels(self) -> None:
        """Tell main of the orders to cancel that are carried out to their end."""
        for each in list(self._cancelling):
            if not any(map(self._crew.is_here, each.leaving)):
                self._upstream.tell(Cancelled(each.request, each.which))
                self._cancelling.remove(each)

    def _obey(self, order: Signal) -> None:
        if order in (Signal.HALT, Signal.STOP, Signal.STOP_LISTENING):
            self._schedule()  # what was ordered before this comes first: RESUME, then STOP_LISTENING
            self._batches.take_back_all()
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
            self._listen_to(member)
        if self._crew.has_hands:
            self._hear_batches()

    def _hear_batches(self) -> None:
        self._crew.hands.supply(self._ready)
        for member in self._batches.heard(self._ready):
            self._listen_to(member)

    def _listen_to(self, member: Member, dead: bool = False) -> None:
        notice = self._crew.hear(member, dead)
        if notice is None:
            return
        if member.sentence:  # what a worker says when it has had its time, or was cancelled, comes too late
            self._stowage.hand_on(notice, "", member.berth, taken=False)
            return
        if member.succeeded:
            self._note_report(member, notice)
            if member.stays and not dead:
                self._release(member)
        else:
            member.spoke_first = self._undisturbed()
            self._unless_main_decides(member, self._court.charge_at_once)

    def _note_report(self, member: Member, notice: Frame) -> None:
        if self._setup.verbose:
            _blame.say(logging.INFO, "%s", notice.head.text)
        if not self._clockless and self._ledger.queue is None:
            self._ledger.done(member.name, self._stowage.copied(notice.segments))
        self._stowage.hand_on(notice, notice.head.remark, member.berth, self._upstream.takes)
        self._upstream.tell(WorkerDone(member.name, member.job.number), notice.segments)

    def _release(self, member: Member) -> None:
        """Have a worker that has done make room, whose process goes on."""
        self._crew.release(member)
        assert member.notice is not None
        self._batches.learn(member.notice.head)
        self._ledger.left(member.seat or member.name)
        self._news, self._launcher.crowded = True, False
        self._court.conclude(member)

    def _note_the_dead(self) -> None:
        for member in self._crew.reap() if self._signals.child_ended() or self._crew.winding_up else ():
            self._listen_to(member, dead=True)
            if member.notice is None and not member.sentence:
                member.spoke_first = member.spoke_first or self._undisturbed()
            if self._crew.dismiss(member):
                self._let_go(member)

    def _let_go(self, member: Member) -> None:
        self._ledger.left(member.seat or member.name)
        self._news, self._launcher.crowded = True, False
        if member.unbegun and not self._crew.stopping:
            self._court.hand_back(member)
        elif member.succeeded:
            self._court.conclude(member)
        else:
            self._unless_main_decides(member, self._court.conclude)

    def _enforce_deadlines(self) -> None:
        for member in self._crew.enforce():
            _blame.say(logging.ERROR, "worker %s cannot be ended by the system; it is left behind.", member.name)
            self._let_go(member)
        if not self._ready:
            self._reserve.enforce()
        if self._crew.has_hands:
            self._reserve.send_away_surplus()
            self._crew.hands.enforce(time.monotonic())
            self._batches.enforce(time.monotonic())
            if self._batches.has_news():
                self._news, self._launcher.crowded = True, False
        for member in self._crew.overdue():
            self._court.expire(member)
        for member in self._crew.overdrawn():
            self._court.overdrew(member)
        if self._ledger.next_trial < _NEVER:
            self._news = self._ledger.end_of_waiting(time.monotonic()) or self._news
        if self._held and not self._deciding:
            held, self._held = self._held, []
            for member, note in held:
                note(member)

    @property
    def _deciding(self) -> bool:
        """Whether main has still to say what a Ctrl-C means."""
        return self._verdict_due > 0 and not self._crew.stopping

    def _undisturbed(self) -> bool:
        """Whether who fails now does so by himself, rather than by a Ctrl-C or because everything is stopped."""
        self._take_signals()  # the Ctrl-C that made a worker fail may have come to us after its notice
        return not (self._crew.stopping or self._deciding)

    def _unless_main_decides(self, member: Member, note: Callable[[Member], None]) -> None:
        if self._deciding:
            self._held.append((member, note))
        else:
            note(member)

    # -- scheduling -----------------------------------------------------------------------------------

    @property
    def _may_ask(self) -> bool:
        return self._ledger.may_launch and not self._launcher.crowded and not self._deciding

    def _schedule(self) -> None:
        """Let the scheduler decide, once for all that has happened, and start what it chose."""
        if not (self._may_ask and (self._news or not self._clockless)):
            return
        self._news = False
        try:
            chosen = self._ledger.decide(self._setup.scheduler, time.monotonic())
        except BaseException as error:
            self._court.charge_boss(error)
            return
        self._news = not self._launcher.launch(chosen)
        self._check_progress(bool(chosen))

    def _check_progress(self, chose: bool) -> None:
        """Fail where nothing runs and a scheduler that watches no clock launches nothing; else wonder aloud."""
        stuck = self._ledger.may_launch and not (chose or self._ledger.workers)
        if stuck and self._clockless:
            self._court.charge_boss(_blame.stuck(self._setup.scheduler, self._ledger.pending))
        elif not stuck:
            self._remark_at = _NEVER
        else:
            self._wonder(time.monotonic())

    def _wonder(self, now: float) -> None:
        if self._remark_at == _NEVER:
            self._remark_at = now + PUZZLED
        if now >= self._remark_at:
            self._remark_at = now + _LONG
            kind, count = type(self._setup.scheduler).__name__, len(self._ledger.pending)
            message = "the scheduler %s has launched none of %d pending sets for %g s, though nothing runs."
            _blame.say(logging.WARNING, message, kind, count, PUZZLED)

    # -- the end --------------------------------------------------------------------------------------

    def _report_the_end(self) -> None:
        settled = self._ledger.over and not (self._held or self._cancelling or self._arrivals.waiting)
        if settled and self._crew.has_hands:
            self._crew.retire()
        over = settled and self._crew.all_gone and self._signals.quiet
        if over and not self._finished:
            self._tell_over()
            self._finished = True

    def _tell_over(self) -> None:
        pending = [_packed(each) for each in (*self._ledger.pending, *self._put_aside)]
        self._upstream.tell(Over(tuple(self._ledger.stopped)), pending)

    def _forget(self) -> None:
        """Close, in a child, what is the listener's alone."""
        self._upstream.forget()
        self._signals.forget()


# ---------------------------------------------------------------------------------------------------------
# small things
# ---------------------------------------------------------------------------------------------------------


def _say_why_by_pipe(why: str) -> None:
    _blame.say(logging.WARNING, _freight.REMARK, "reports take", why)


def _packed(instructions: dict[str, Any]) -> bytes:
    """Pickle a set that never ran, for the report; what cannot be is replaced by its text."""
    try:
        return _instructions.pack_one(instructions)
    except _errors.InstructionsNotPicklable:
        return _instructions.pack_one({k: _errors.quote(v) for k, v in instructions.items()})
