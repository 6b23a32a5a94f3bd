"""Listener: what a failure leads to: another trial, an entry in the report, or the end of everything.

Whose failure it is decides first. A set of instructions answers for all that goes wrong with it, from the choice of
its class to the death of its process; what it leads to, the ledger says (`Ledger.judge`), as the caller
wants it. Where no set is to blame, a scheduler of the user's for instance, everything is stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from taylorism import _blame, _errors, _hiring, _logs
from taylorism._crew import Crew
from taylorism._ledger import Job, Ledger, Sentence
from taylorism._member import Member
from taylorism._messages import End, Failure, Start, State, WorkerFailed
from taylorism._policy import Policy
from taylorism._upstream import Upstream

__all__ = ["Court"]

#: times the memory that it had declared, for the next trial of a worker that used more
MORE = 1.5
#: the name of who failed where no worker is to blame
_BOSS = ""


class Court:
    """Charges failures to who has to answer for them, and has done what follows.

    Parameters
    ----------
    policy : Policy
        What the caller wants on failure.
    ledger, crew, upstream
        Of the listener.
    objection : callable
        Returns why a set can never start, or None.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        crew: Crew,
        upstream: Upstream,
        objection: Callable[[Job], BaseException | None],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._crew = crew
        self._upstream = upstream
        self._objection = objection

    # -- who is charged -------------------------------------------------------------------------------

    def charge_boss(self, error: BaseException, aloud: bool = True) -> None:
        """Stop everything: something went wrong that is no worker's fault."""
        failure, packed = _taken_down(_BOSS, error)
        self._carry_out(failure, packed, aloud=aloud)

    def charge_job(
        self, job: Job, error: BaseException, worker: Any = None, again: bool = False
    ) -> None:
        """Charge a set of instructions that has no process with `error`.

        Parameters
        ----------
        worker : Worker, optional
            What was made of it, if anything was.
        again : bool
            Whether another trial might end better.
        """
        failure, packed = _taken_down(worker.name if worker is not None else job.name, error)
        if self._crew.stopping and worker is not None:
            self.settle(job, self._interrupted(failure))
        else:
            self.settle(job, self._judge(job, failure, packed, worker, again))

    def charge_at_once(self, member: Member) -> None:
        """Charge a worker while its process is still there, if its failure stops everything."""
        if self._stops_all(member):
            member.verdict = self._verdict(member)

    def _stops_all(self, member: Member) -> bool:
        return self._ledger.judge(member.job, again=True) is Sentence.STOP

    def may_be_cancelled(self, member: Member) -> bool:
        """Whether a worker is at its task, or would be tried again: what has failed for good has failed."""
        at_work = member.notice is None and not member.process.noted
        return at_work or self._ledger.judge(member.job, again=True) is Sentence.RETRY

    def expire(self, member: Member) -> None:
        """Stop a worker that has had its time, or its memory; everything, if that is what a failure leads to."""
        member.sentence, member.spoke_first = State.FAILED, not self._crew.stopping
        self.charge_at_once(member)
        if not member.verdict:
            self._crew.stop_one(member, State.FAILED)

    def overdrew(self, member: Member) -> None:
        """Report, or stop, a worker that uses far more memory than it has declared."""
        if self._policy.memory_guard == "stop":
            self.expire(member)
        elif self._policy.memory_guard == "warn":
            message = "worker %s uses %.0f MiB, and has declared memory=%g MiB"
            _blame.say(logging.WARNING, message, member.name, member.overdrawn, member.worker.memory)

    def conclude(self, member: Member) -> None:
        """Settle what a worker did that is gone, or have it tried again."""
        start = member.start()  # before its job is given back, for another trial
        verdict = member.verdict or self._verdict(member)
        member.concluded = True
        self._upstream.note(_end(member, verdict, start))

    def hand_back(self, member: Member) -> None:
        """Have a set queued again that a process was given, and had not begun when it died."""
        start, job = member.start(), member.job
        job.trials -= 1
        self._ledger.give_back([job])
        self._upstream.note(_end(member, State.PENDING, start))

    def settle(self, job: Job, state: str) -> None:
        """Have main know of the state of a set of instructions that has no process."""
        end = End(job.number, state, time.time(), unknown="it had no process then", trials=job.trials)
        self._upstream.note(end)

    def _verdict(self, member: Member) -> str:
        """Return the state that a worker leaves its set in."""
        if member.sentence == State.CANCELLED:
            return State.CANCELLED
        if member.succeeded and not member.sentence:
            return State.DONE
        failure, packed = self._charge_of(member)
        if self._crew.stopping and not member.spoke_first:
            return self._interrupted(failure)
        again = not member.hopeless and (not self._stopped_for_memory(member) or self._allow_more(member))
        return self._judge(member.job, failure, packed, member.worker, again)

    def _stopped_for_memory(self, member: Member) -> bool:
        return bool(member.overdrawn) and self._policy.memory_guard == "stop"

    def _allow_more(self, member: Member) -> bool:
        """Declare more memory for the next trial, if there is one; return whether it could ever start."""
        job, before = member.job, member.job.instructions
        if self._ledger.judge(job, again=True) is not Sentence.RETRY:
            return True
        job.instructions = {**before, "memory": MORE * float(member.worker.memory)}
        if self._objection(job) is None:
            return True
        job.instructions = before
        return False

    def _interrupted(self, failure: Failure) -> str:
        """Note that what failed while it was stopped was interrupted."""
        self._ledger.interrupted(failure.name)
        return State.STOPPED

    def _charge_of(self, member: Member) -> tuple[Failure, Any]:
        """Return what a worker is charged with, and the exception for it."""
        output = self._output(member)
        if member.sentence:
            blame = _blame.overdrawn if self._stopped_for_memory(member) else _blame.overdue
            return _taken_down(member.name, blame(member, output))
        if member.notice is None:
            return _taken_down(member.name, _blame.died(member, output))
        failure: Failure = member.notice.head.failure
        return dataclasses.replace(failure, output=output), member.notice.segments

    def _output(self, member: Member) -> str:
        directory = self._policy.log_dir
        return "" if directory is None else _logs.tail(directory, member.name, member.logged)

    # -- what follows ---------------------------------------------------------------------------------

    def _judge(self, job: Job, failure: Failure, packed: Any, worker: Any, again: bool) -> str:
        """Do what the failure of a job leads to; return the state that it is in then."""
        sentence = self._ledger.judge(job, again)
        if sentence is Sentence.RETRY:
            self._try_again(job, failure, worker)
            return State.PENDING
        lines = _hiring.tell_instructions(worker, job.instructions)
        failure = dataclasses.replace(failure, instructions="".join(lines))
        if self._upstream.deaf:
            _blame.announce(failure)
        elif sentence is Sentence.STOP:
            self._carry_out(failure, packed, job.number)
        else:
            if not job.call:
                _blame.announce(failure)
            self._upstream.tell(WorkerFailed(failure, job.number, stops=False), packed)
        return State.FAILED

    def _try_again(self, job: Job, failure: Failure, worker: Any) -> None:
        # Not the number by which one goes who was not heard to say its name.
        name = None if worker is None or failure.name == job.name else failure.name
        delay = self._ledger.try_again(job, name, time.monotonic())
        what = failure.traceback[-1].strip() if failure.traceback else failure.status
        message = "worker %s failed, trial %d of %d; it is tried again in %g s: %s"
        _blame.say(logging.WARNING, message, failure.name, job.trials, self._policy.max_trials, delay, what)

    def _carry_out(
        self, failure: Failure, packed: Any, number: int | None = None, aloud: bool = True
    ) -> None:
        """Stop everything on the first failure that has to, and tell main."""
        if self._ledger.fail(failure):
            if aloud:
                _blame.announce(failure)
            self._upstream.tell(WorkerFailed(failure, number, stops=True), packed)
        self._crew.stop()


def _taken_down(name: str, error: BaseException) -> tuple[Failure, list[bytes]]:
    """Return an exception that was raised in the listener as a failure, and packed."""
    failure = Failure(name, "workers exception", _errors.traceback_lines(error))
    return failure, [_errors.pack(error, f"worker {name!r}" if name else "the listener")]


def _end(member: Member, verdict: str, start: Start) -> End:
    """Return what became of a worker's set of instructions, and what it used."""
    usage, rusage = member.usage, member.usage.rusage
    user, system = (None, None) if rusage is None else (rusage.ru_utime, rusage.ru_stime)
    exitcode = member.process.exitcode if member.process.noted else None  # never asked for: that would reap it
    used = (exitcode, user, system, usage.peak, usage.unknown)
    return End(member.job.number, verdict, time.time(), *used, start.trials, start)
