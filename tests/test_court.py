"""The court: who is charged with a failure, and what it leads to, with a crew and a main that only take note."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from types import SimpleNamespace

import pytest
import workers
from workers import slots, until

import taylorism
from taylorism._channel import Frame
from taylorism._court import Court
from taylorism._errors import NoAdequateWorker, WorkerDied, WorkerTimeout, pack
from taylorism._ledger import Flow, Intake, Job, Ledger
from taylorism._member import Member
from taylorism._messages import End, Failure, Notice, Outcome, Signal, State, WorkerFailed
from taylorism._policy import Policy
from taylorism._usage import Usage


class Crew:
    """Takes note of what is stopped."""

    def __init__(self):
        self.stopping = False
        self.stopped = []

    def stop(self, grace=None):
        """Stop everything."""
        self.stopping = True

    def stop_one(self, member, sentence):
        """Stop one worker."""
        assert member.sentence == sentence
        self.stopped.append(member)


class Main:
    """Takes note of what it is told."""

    def __init__(self):
        self.deaf = False
        self.told = []
        self.ends = []

    def tell(self, event, segments=()):
        """Take an event, and its exception."""
        (packed,) = segments
        self.told.append((event, pickle.loads(packed)))

    def note(self, move):
        """Take an end, or what tells a start."""
        self.ends.append(move() if callable(move) else move)


class Room:
    """A court, and all that it deals with."""

    def __init__(self, **options):
        self.policy = Policy(**options)
        self.ledger, self.crew, self.main = Ledger(self.policy), Crew(), Main()
        self.ledger.obey(Signal.RESUME)
        self.court = Court(self.policy, self.ledger, self.crew, self.main, lambda job: None)

    def job(self, trials=1, number=0, **instructions):
        """Return a set of instructions that was launched so many times."""
        return Job(number, {"number": 42, **instructions}, trials)

    def member(self, job=None, name="w", code=0, rusage=None):
        """Return a worker, as the crew knows it."""
        worker = SimpleNamespace(name=name, footprint_as_shallow_dict=lambda: {"name": name, "attribute": "seen"})
        process = SimpleNamespace(pid=1234, exitcode=code, noted=True)
        return Member(
            name=name,
            worker=worker,
            job=job or self.job(),
            process=process,
            inflow=None,
            usage=Usage(10.0, 0.0, rusage),
            token="",
            seconds=2.5,
        )

    def verdict(self, member):
        """Conclude; return the state that main was told."""
        self.court.conclude(member)
        return self.main.ends[-1].state

    @property
    def error(self):
        """The only exception that main was told of, with the event."""
        (told,) = self.main.told
        return told


def reported(member):
    """Let a worker have given a report."""
    member.notice = Frame(Notice(Outcome.REPORT), ())
    return member


def failed(member, error=None):
    """Let a worker have given an exception."""
    error = error or ZeroDivisionError("of the task")
    failure = Failure(member.name, "workers exception", ("Traceback\n", f"{error!r}\n"))
    member.notice = Frame(Notice(Outcome.FAILURE, failure=failure), (pack(error, "it"),))
    return member


# -- verdicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_a_report_is_done(on_error):
    """Nothing else happens."""
    room = Room(on_error=on_error, max_trials=3)
    assert room.verdict(reported(room.member())) == State.DONE
    assert room.main.told == [] and not room.crew.stopping and room.ledger.pending == []


def test_a_report_is_done_however_its_process_ended():
    """What happens after the report is no failure."""
    room = Room()
    assert room.verdict(reported(room.member(code=-signal.SIGKILL))) == State.DONE


@pytest.mark.parametrize("how", ["exception", "death"])
def test_the_first_failure_stops_everything(how):
    """With ``on_error='stop'``: main is told once, the intake is closed, nothing is launched any more."""
    room = Room()
    member = room.member(code=7)
    if how == "exception":
        failed(member)
    assert room.verdict(member) == State.FAILED
    event, error = room.error
    assert event.stops and event.number == 0 and event.failure.name == "w"
    assert isinstance(error, ZeroDivisionError if how == "exception" else WorkerDied)
    assert room.crew.stopping and room.ledger.failure == event.failure
    assert (room.ledger.intake, room.ledger.flow) == (Intake.CLOSED, Flow.STOPPED)
    assert "('attribute', 'seen')" in event.failure.instructions


@pytest.mark.parametrize("on_error", ["finish", "collect"])
def test_the_others_go_on(on_error):
    """Main is told of each failure; nothing is stopped, and more work is taken."""
    room = Room(on_error=on_error)
    assert room.verdict(failed(room.member(room.job(number=1), "a"))) == State.FAILED
    assert room.verdict(room.member(room.job(number=2), "b", code=7)) == State.FAILED
    (first, zero), (second, died) = room.main.told
    assert (first.number, first.stops, first.failure.name) == (1, False, "a")
    assert (second.number, second.stops, second.failure.name) == (2, False, "b")
    assert isinstance(zero, ZeroDivisionError) and isinstance(died, WorkerDied) and died.exitcode == 7
    assert not room.crew.stopping and room.ledger.failure is None
    assert (room.ledger.intake, room.ledger.flow) == (Intake.OPEN, Flow.WORKING)


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_a_failure_with_trials_left_is_tried_again(on_error, caplog):
    """At the head of the queue, under the same name; main is told of no error, the log is."""
    room = Room(on_error=on_error, max_trials=3)
    room.ledger.add([Job(9, {"number": 9})])
    job = room.job(trials=2, scheduler_ticket=1, scheduler_hooks=["hook"])
    with caplog.at_level(logging.WARNING, "taylorism"):
        assert room.verdict(failed(room.member(job))) == State.PENDING
    assert room.ledger.pending == [{"number": 42, "name": "w"}, {"number": 9}]
    assert room.main.told == [] and not room.crew.stopping
    assert all(word in caplog.text for word in ("w failed", "trial 2 of 3", "ZeroDivisionError"))
    (again, _) = room.ledger.decide(SimpleNamespace(launchable=lambda pending, workers, report: (pending, [])))
    assert again is job


@pytest.mark.parametrize("trials", [1, 2])
def test_a_delay_is_doubled_from_trial_to_trial(trials):
    """The set is not pending for the scheduler before that."""
    room = Room(max_trials=3, retry_delay=100.0)
    before = room.ledger.next_trial
    assert room.verdict(failed(room.member(room.job(trials=trials)))) == State.PENDING
    assert before == float("inf") and room.ledger.pending == []
    due = room.ledger.next_trial
    delay = 100.0 * trials
    assert not room.ledger.end_of_waiting(due - 0.1 * delay)
    assert room.ledger.end_of_waiting(due) and [each["name"] for each in room.ledger.pending] == ["w"]


def test_the_last_trial_counts():
    """What the ones before had failed with is forgotten."""
    room = Room(on_error="collect", max_trials=2)
    job = room.job(trials=1)
    assert room.verdict(failed(room.member(job), KeyError("first"))) == State.PENDING
    job.trials = 2
    assert room.verdict(failed(room.member(job), ValueError("last"))) == State.FAILED
    assert repr(room.error[1]) == "ValueError('last')"


def test_a_worker_that_had_its_time_has_failed():
    """Whatever it still said, and however it ended; it is tried again like others."""
    for told in (lambda member: member, reported, failed):
        room = Room(on_error="collect", max_trials=2, timeout=2.5)
        member = told(room.member(room.job(trials=2), code=-signal.SIGTERM))
        room.court.expire(member)
        assert room.crew.stopped == [member] and room.main.told == [], "it is charged when it is gone"
        assert room.verdict(member) == State.FAILED
        event, error = room.error
        assert isinstance(error, WorkerTimeout) and error.seconds == 2.5 and not event.stops
        member = room.member(room.job(trials=1))
        room.court.expire(member)
        assert room.verdict(member) == State.PENDING


def test_a_worker_that_had_its_time_may_stop_everything_at_once():
    """Main is told before its tree is gone, and once."""
    room = Room(timeout=2.5)
    member = room.member()
    room.court.expire(member)
    assert isinstance(room.error[1], WorkerTimeout) and room.crew.stopping and room.crew.stopped == []
    assert room.verdict(member) == State.FAILED
    assert len(room.main.told) == 1 and room.ledger.stopped == []


def test_a_failure_that_stops_everything_does_so_at_once():
    """Not only when the process has gone, which may take its time."""
    room = Room()
    member = failed(room.member())
    room.court.charge_at_once(member)
    assert room.crew.stopping and room.error[0].stops and room.main.ends == []
    assert room.verdict(member) == State.FAILED and len(room.main.told) == 1


@pytest.mark.parametrize("options", [{"on_error": "collect"}, {"on_error": "finish"}, {"max_trials": 2}])
def test_a_failure_that_stops_nothing_waits_for_the_end_of_its_process(options):
    """Its name is free for the next trial only then."""
    room = Room(**options)
    member = failed(room.member())
    room.court.charge_at_once(member)
    assert room.main.told == [] and not member.verdict and room.ledger.pending == []


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
@pytest.mark.parametrize("told", [lambda member: member, reported, failed])
def test_the_cancelled_have_not_failed(on_error, told):
    """Whatever they said, whatever happened to them; they are not tried again, and trigger nothing."""
    room = Room(on_error=on_error, max_trials=3)
    member = told(room.member(code=-signal.SIGKILL))
    member.sentence = State.CANCELLED
    assert room.verdict(member) == State.CANCELLED
    assert room.main.told == [] and room.ledger.pending == [] and not room.crew.stopping
    assert room.ledger.stopped == []


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_what_fails_while_everything_is_stopped_was_interrupted(on_error):
    """It is named as such, is no error, and is not tried again; a report that came in time counts."""
    room = Room(on_error=on_error, max_trials=3)
    room.crew.stop()
    room.ledger.obey(Signal.STOP_RIGHTNOW)
    assert room.verdict(room.member(name="died", code=-signal.SIGTERM)) == State.STOPPED
    assert room.verdict(failed(room.member(name="raised"))) == State.STOPPED
    assert room.verdict(reported(room.member(name="done"))) == State.DONE
    cancelled = room.member(name="cancelled")
    cancelled.sentence = State.CANCELLED
    assert room.verdict(cancelled) == State.CANCELLED
    assert room.ledger.stopped == ["died", "raised"] and room.main.told == [] and room.ledger.pending == []


def test_a_second_failure_while_the_first_stops_everything_is_not_told():
    """It was interrupted; the first is what is raised."""
    room = Room()
    first, second = failed(room.member(name="a")), failed(room.member(name="b"))
    room.court.charge_at_once(first)
    room.court.charge_at_once(second)
    assert room.verdict(second) == State.STOPPED and room.verdict(first) == State.FAILED
    assert room.error[0].failure.name == "a" and room.ledger.stopped == ["b"]


@pytest.mark.parametrize("on_error", ["stop", "collect"])
def test_after_a_stop_that_lets_the_running_finish_nothing_is_tried_again(on_error):
    """STOP: what fails then has failed for good."""
    room = Room(on_error=on_error, max_trials=3)
    room.ledger.obey(Signal.STOP)
    assert room.verdict(failed(room.member())) == State.FAILED
    assert isinstance(room.error[1], ZeroDivisionError) and room.ledger.pending == []


def test_a_halt_keeps_the_next_trial_for_later():
    """It is pending until RESUME."""
    room = Room(max_trials=2)
    room.ledger.obey(Signal.HALT)
    assert room.verdict(failed(room.member())) == State.PENDING
    assert len(room.ledger.pending) == 1 and not room.ledger.may_launch


def test_a_deaf_main_is_told_nothing_and_nothing_is_stopped(caplog):
    """After STOP_LISTENING the running workers go on; a failure is on the log."""
    room = Room()
    room.ledger.obey(Signal.STOP_LISTENING)
    room.main.deaf = True
    assert room.verdict(failed(room.member())) == State.FAILED
    assert room.main.told == [] and not room.crew.stopping and "worker w" in caplog.text


# -- sets without a process -------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
@pytest.mark.parametrize("worker", [None, SimpleNamespace(name="made", footprint_as_shallow_dict=lambda: {"a": 1})])
def test_a_set_that_cannot_be_hired_answers_for_it(on_error, worker):
    """By the name of what was made of it, else its own; another trial would say the same."""
    room = Room(on_error=on_error, max_trials=3)
    room.court.charge_job(room.job(name="given"), NoAdequateWorker("no adequate Worker was found"), worker)
    event, error = room.error
    assert isinstance(error, NoAdequateWorker) and event.number == 0
    assert event.failure.name == ("given" if worker is None else "made")
    assert ("('number', 42)" if worker is None else "('a', 1)") in event.failure.instructions
    assert event.stops == room.crew.stopping == (on_error == "stop")
    assert [(end.number, end.state, end.exitcode, end.peak) for end in room.main.ends] == [
        (0, State.FAILED, None, None)
    ]
    assert room.ledger.pending == []


def test_a_set_whose_hire_might_end_better_is_tried_again():
    """A constructor that needs the network, for instance."""
    room = Room(on_error="collect", max_trials=2)
    job = room.job(name="given")
    room.court.charge_job(job, ConnectionError("no network"), again=True)
    assert [end.state for end in room.main.ends] == [State.PENDING] and room.ledger.pending == [job.instructions]
    job.trials = 2
    room.ledger.withdraw({0})
    room.court.charge_job(job, ConnectionError("no network"), again=True)
    assert room.main.ends[-1].state == State.FAILED and isinstance(room.error[1], ConnectionError)


def test_a_set_without_a_name_is_called_by_its_number():
    """There is no other name where no worker was made."""
    room = Room(on_error="collect")
    room.court.charge_job(room.job(number=5), KeyError("k"))
    assert room.error[0].failure.name == "#5"


def test_an_unnamed_set_that_could_not_be_hired_gets_a_name_of_its_own_at_last():
    """A further trial that succeeds is as if it had been the first: no name was given."""
    room = Room(max_trials=2)
    job = room.job(number=5)
    room.court.charge_job(job, ConnectionError("no network"), again=True)
    assert "name" not in job.instructions


def test_what_nobody_answers_for_stops_everything():
    """A scheduler that fails, a SIGTERM: also where workers' failures would not."""
    room = Room(on_error="collect", max_trials=3)
    room.court.charge_boss(RuntimeError("of the scheduler"))
    event, error = room.error
    assert (event.number, event.stops, event.failure.name) == (None, True, "") and room.crew.stopping
    assert isinstance(error, RuntimeError) and room.ledger.flow is Flow.STOPPED
    room.court.charge_boss(RuntimeError("again"))
    assert len(room.main.told) == 1, "the first counts"


# -- what main is told of the end -------------------------------------------------------------------------


def test_the_end_tells_what_was_used():
    """Seconds, MiB, exit status."""
    room = Room(on_error="collect")
    rusage = SimpleNamespace(ru_utime=1.5, ru_stime=0.5, ru_maxrss=40 * 1024)
    room.court.conclude(reported(room.member(rusage=rusage)))
    room.court.conclude(room.member(code=-9))
    done, died = room.main.ends
    assert isinstance(done, End) and done[3:8] == (0, 1.5, 0.5, 30.0, "")
    assert died[3:7] == (-9, None, None, None) and died.unknown


@pytest.mark.parametrize("how", ["raised", "died", "overdue"])
def test_a_failure_quotes_the_log_of_this_trial(tmp_path, how):
    """Whatever it was; not what an earlier trial had written."""
    (tmp_path / "w.err").write_text("earlier\nlast words\n")
    room = Room(on_error="collect", log_dir=str(tmp_path), timeout=1.0)
    member = room.member(code=7)
    member.logged = (0, 8)
    if how == "raised":
        failed(member)
    elif how == "overdue":
        room.court.expire(member)
    room.court.conclude(member)
    event, error = room.error
    quoted = event.failure.output if how == "raised" else str(error)
    assert "last words" in quoted and "earlier" not in quoted and "w.err" in quoted


def test_an_event_of_a_failure_can_be_sent():
    """It is all text, but for the exception that was packed already."""
    room = Room(on_error="collect")
    room.court.conclude(room.member(code=7))
    event = room.error[0]
    assert isinstance(event, WorkerFailed) and pickle.loads(pickle.dumps(event)) == event


# -- the whole --------------------------------------------------------------------------------------------


@workers.deed
def fail_and_leave_a_stubborn_child(value, worker):
    """Raise, and leave behind a process that takes its time to be stopped."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, b"!")
        while True:
            signal.pause()
    os.read(reader, 1)
    raise ZeroDivisionError("before the stop")


@workers.deed
def be_stubborn(value, worker):
    """Be told to end, write that down, and go on."""
    with open(value, "a", encoding="utf-8") as file:
        file.write("run\n")
    signal.signal(signal.SIGTERM, lambda signum, frame: open(value + ".told", "w").close())
    while True:
        signal.pause()


def test_what_is_cancelled_while_it_is_stopped_for_its_time_is_not_tried_again(tmp_path):
    """The answer of `cancel` is kept, though trials are left."""
    trace = tmp_path / "trace"
    options = {"timeout": 0.5, "max_trials": 2, "stop_grace": 0.5, "on_error": "collect"}
    with taylorism.Boss(scheduler=slots(2), **options) as boss:
        (number,) = boss.set_instructions({}, [{"deed": "be_stubborn", "name": "w", "value": str(trace)}])
        boss.make_them_work()
        until(lambda: os.path.exists(f"{trace}.told"), "its time to be over")
        assert boss.cancel(number) == [number]
        boss.wait()
        assert boss.get_report()["workers_info"]["w"]["status"] == State.CANCELLED
    assert trace.read_text() == "run\n"


def test_what_is_cancelled_between_its_failure_and_its_next_trial_is_not_tried_again():
    """While what it had started is being stopped: it has not ended, as long as trials are left."""
    options = {"max_trials": 3, "stop_grace": 0.5, "on_error": "collect"}
    with taylorism.Boss(scheduler=slots(2), **options) as boss:
        boss.set_instructions({}, [{"deed": "fail_and_leave_a_stubborn_child", "name": "w"}])
        boss.make_them_work()
        until(lambda: boss.status().running, "its start")
        pid = boss.get_report()["workers_info"]["w"]["pid"]
        until(lambda: not os.path.exists(f"/proc/{pid}"), "its end, and the listener's note of it")
        assert boss.cancel("w") == ["w"]
        boss.wait()
        info = boss.get_report()["workers_info"]["w"]
    assert (info["status"], info["trials"]) == (State.CANCELLED, 1)


def test_what_had_failed_before_the_stop_is_not_lost():
    """Its exception came while everything went on: though its tree takes its time to end, it has failed."""
    boss = taylorism.Boss(scheduler=slots(2), on_error="collect", stop_grace=0.5)
    boss.set_instructions({}, [{"deed": "fail_and_leave_a_stubborn_child", "name": "failed"}])
    boss.make_them_work()
    until(lambda: boss.status().running, "its start")
    pid = boss.get_report()["workers_info"]["failed"]["pid"]
    until(lambda: not os.path.exists(f"/proc/{pid}"), "its end, and the listener's note of it")
    boss.stop_them_working()
    boss.wait_till_finished()
    report = boss.get_report()
    assert [*report["errors"]] == ["failed"] and isinstance(report["errors"]["failed"], ZeroDivisionError)
    assert report["workers_info"]["failed"]["status"] == "failed"
