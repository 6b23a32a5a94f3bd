"""The launcher: each set is hired, started or charged by itself; without room, the rest waits in order."""

from __future__ import annotations

import errno
import logging
import os
from types import SimpleNamespace

import pytest
from test_court import Main
from workers import laxist, reports, until

import taylorism
from taylorism import _hiring, _launcher
from taylorism._court import Court
from taylorism._errors import BadOption, DuplicateName, NoAdequateWorker, WorkerNotStarted
from taylorism._launcher import Launcher
from taylorism._ledger import Flow, Job, Ledger
from taylorism._messages import Signal, Start, State
from taylorism._policy import Policy

FULL = [
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


class Crew:
    """Starts what it is not told to refuse."""

    def __init__(self):
        self.stopping = False
        self.started = []
        self.refusals = {}

    def start(self, worker, job, seconds=None):
        """Start, or raise."""
        if job.number in self.refusals:
            raise self.refusals[job.number]
        worker._process = SimpleNamespace(pid=1000 + job.number)
        self.started.append((job.number, job.trials, seconds))
        ticket = job.instructions.get("scheduler_ticket")
        start = Start(job.number, worker.name, worker._process.pid, ticket, job.trials, 0.0)
        return SimpleNamespace(name=worker.name, process=worker._process, news=lambda: start)

    def stop(self, grace=None):
        """Stop everything."""
        self.stopping = True


class Yard:
    """A launcher, and all that it deals with."""

    def __init__(self, monkeypatch, count=0, **options):
        self.policy = Policy(**options)
        self.ledger, self.crew, self.main = Ledger(self.policy), Crew(), Main()
        self.setup = SimpleNamespace(shared={"shared": 1}, policy=self.policy, verbose=False)
        court = Court(self.policy, self.ledger, self.crew, self.main, lambda job: None)
        batches = SimpleNamespace(place=lambda chosen: chosen)
        self.launcher = Launcher(self.setup, self.ledger, self.crew, self.main, court, batches)
        self.hired, self.unfit = [], {}
        monkeypatch.setattr(_hiring, "hire", self.hire)
        self.ledger.obey(Signal.RESUME)
        self.jobs = [Job(number, {"number": number}) for number in range(count)]
        self.ledger.add(self.jobs)

    def hire(self, instructions, shared):
        """Make a worker, or raise."""
        assert shared is self.setup.shared
        number = instructions["number"]
        self.hired.append(number)
        if number in self.unfit:
            raise self.unfit[number]
        return SimpleNamespace(
            name=instructions.get("name", f"w{number}"),
            scheduler_ticket=instructions.get("scheduler_ticket"),
            footprint_as_shallow_dict=lambda: dict(instructions),
        )

    def launch(self):
        """Launch all that is pending."""
        self.main.ends.clear()
        return self.launcher.launch(self.ledger.decide(SimpleNamespace(launchable=self.all)))

    def all(self, pending, workers, report):
        """Launch everything, with the marks of a scheduler."""
        for ticket, each in enumerate(pending):
            each["scheduler_ticket"] = ticket
        return pending, []

    @property
    def started(self):
        """The numbers of what was started, in order."""
        return [number for number, _, _ in self.crew.started]

    @property
    def pending(self):
        """The numbers of what is pending, in order."""
        return [each["number"] for each in self.ledger.pending]

    @property
    def failed(self):
        """The numbers of what main was told had failed."""
        return [event.number for event, _ in self.main.told]


@pytest.fixture
def yard(monkeypatch):
    """Give a function that makes a yard."""
    return lambda count=0, **options: Yard(monkeypatch, count, **options)


# -- all is well ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 30])
def test_all_are_started_in_order(yard, count):
    """Each once, each counted; main is told of each start."""
    scene = yard(count)
    assert scene.launch() is True
    assert scene.crew.started == [(number, 1, None) for number in range(count)]
    assert scene.hired == [*range(count)] and scene.pending == scene.failed == []
    assert [(start.number, start.name, start.pid, start.ticket, start.trials) for start in scene.main.ends] == [
        (number, f"w{number}", 1000 + number, number, 1) for number in range(count)
    ]
    assert all(isinstance(start, Start) for start in scene.main.ends)
    assert [*scene.ledger.workers] == [f"w{number}" for number in range(count)]


def test_a_few_are_hired_before_the_first_of_them_is_started(yard):
    """The first hire after a fork is dear; but not all before any, for they may be thousands."""
    scene = yard(3 * _launcher.TOGETHER)
    order = []
    start = scene.crew.start
    scene.crew.start = lambda *args: order.append(len(scene.hired)) or start(*args)
    scene.launch()
    assert [*dict.fromkeys(order)] == [_launcher.TOGETHER * turn for turn in (1, 2, 3)]


def test_each_gets_its_own_time(yard):
    """The limit may depend on the instructions."""
    scene = yard(3, timeout=lambda instructions: [None, 1.5, 20.0][instructions["number"]])
    scene.launch()
    assert scene.crew.started == [(0, 1, None), (1, 1, 1.5), (2, 1, 20.0)]


@pytest.mark.parametrize("verbose", [True, False])
def test_starts_are_said_to_those_who_want_to_know(yard, caplog, verbose):
    """At INFO, as 1.1 did."""
    scene = yard(1)
    scene.setup.verbose = verbose
    with caplog.at_level(logging.INFO, "taylorism"):
        scene.launch()
    assert ("Worker w0 started." in caplog.text) == verbose


# -- hires that fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["finish", "collect"])
@pytest.mark.parametrize("bad", [[0], [3], [7], [8], [0, 1, 2, 3, 4, 5, 6, 7], [*range(20)], [2, 11, 19]])
def test_a_set_that_cannot_be_hired_takes_no_other_with_it(yard, on_error, bad):
    """Whatever its place; the others of its group are started, in order."""
    scene = yard(20, on_error=on_error)
    scene.unfit = {number: KeyError(number) for number in bad}
    assert scene.launch() is False, "the scheduler has to be asked again: there is room"
    assert scene.started == [number for number in range(20) if number not in bad]
    assert scene.failed == bad and scene.pending == [] and not scene.crew.stopping
    assert len(scene.hired) == 20, "nobody is hired twice"
    assert sorted(scene.ledger.workers) == sorted(f"w{number}" for number in scene.started)


@pytest.mark.parametrize("bad", [0, 3, 7, 8, 12, 19])
def test_a_set_that_cannot_be_hired_may_stop_everything(yard, bad):
    """What has not started is pending again, as it was and in its order: so the report has it."""
    scene = yard(20)
    scene.unfit = {bad: KeyError(bad)}
    assert scene.launch() is False
    first = bad - bad % _launcher.TOGETHER
    assert scene.started == [*range(first)] and scene.failed == [bad] and scene.crew.stopping
    assert scene.pending == [number for number in range(first, 20) if number != bad]
    assert all([*each] == ["number"] for each in scene.ledger.pending), "marks of the scheduler are left"
    assert [*scene.ledger.workers] == [f"w{number}" for number in range(first)]
    assert scene.ledger.flow is Flow.STOPPED and scene.hired[-1] == bad


@pytest.mark.parametrize("hopeless", [NoAdequateWorker("none"), DuplicateName("twice"), BadOption("timeout")])
def test_what_is_hopeless_is_not_tried_again(yard, hopeless):
    """Another trial would say the same."""
    scene = yard(2, on_error="collect", max_trials=3)
    scene.unfit = {0: hopeless}
    scene.launch()
    assert scene.failed == [0] and scene.pending == [] and scene.started == [1]


def test_a_hire_that_fails_is_a_trial(yard):
    """So it comes to an end; the last failure counts."""
    scene = yard(2, on_error="collect", max_trials=3)
    scene.unfit = {0: ConnectionError("no network")}
    for trials in (1, 2):
        scene.launch()
        assert scene.pending == [0] and scene.jobs[0].trials == trials and scene.failed == []
        assert State.PENDING in [getattr(move, "state", "") for move in scene.main.ends]
    scene.launch()
    assert scene.pending == [] and scene.failed == [0] and scene.jobs[0].trials == 3
    assert scene.started == [1]


def test_two_of_one_name_are_the_fault_of_the_second(yard):
    """The first goes on, and keeps its name."""
    scene = yard(3, on_error="collect", max_trials=2)
    for each in scene.ledger.pending[:2]:
        each["name"] = "twin"
    scene.launch()
    assert scene.started == [0, 2] and scene.failed == [1]
    assert isinstance(scene.main.told[0][1], DuplicateName)
    assert [*scene.ledger.workers] == ["twin", "w2"]


@pytest.mark.parametrize("nonsense", [0, -1.0, "soon", float("nan"), True])
def test_a_time_limit_that_makes_no_sense_is_the_fault_of_its_set(yard, nonsense):
    """The others go on; the name of the worker is free again."""
    limits = [5.0, nonsense, None]
    scene = yard(3, on_error="collect", timeout=lambda instructions: limits[instructions["number"]])
    scene.launch()
    assert scene.started == [0, 2] and scene.failed == [1] and [*scene.ledger.workers] == ["w0", "w2"]
    assert isinstance(scene.main.told[0][1], BadOption) and "'number': 1" in str(scene.main.told[0][1])


def test_a_time_limit_that_raises_is_the_fault_of_its_set(yard):
    """What it raised is the error."""
    scene = yard(2, on_error="collect", timeout=lambda instructions: 1.0 / instructions["number"])
    scene.launch()
    assert scene.started == [1] and isinstance(scene.main.told[0][1], ZeroDivisionError)


@pytest.mark.parametrize("rude", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_constructor_raises_is_charged_to_its_set(yard, rude):
    """Also what is no `Exception`: the listener goes on."""
    scene = yard(2, on_error="collect")
    scene.unfit = {0: rude}
    scene.launch()
    assert scene.failed == [0] and scene.started == [1]


# -- no room ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", FULL, ids=lambda trouble: errno.errorcode[trouble.errno])
@pytest.mark.parametrize("on_error", ["stop", "collect"])
@pytest.mark.parametrize("refused", [1, 3, 7, 8, 13])
def test_where_there_is_no_room_the_rest_waits_in_order(yard, caplog, trouble, on_error, refused):
    """For the end of one that runs; that was no trial, and no failure."""
    scene = yard(20, on_error=on_error)
    scene.crew.refusals = {refused: trouble}
    assert scene.launch() is False
    assert scene.launcher.crowded and scene.failed == [] and not scene.crew.stopping
    assert scene.started == [*range(refused)] and scene.pending == [*range(refused, 20)]
    assert [job.trials for job in scene.jobs] == [1] * refused + [0] * (20 - refused)
    assert [*scene.ledger.workers] == [f"w{number}" for number in range(refused)]
    assert all(each == {"number": each["number"]} for each in scene.ledger.pending)
    assert f"w{refused} waits" in caplog.text
    assert all(isinstance(move, Start) for move in scene.main.ends), "nothing has ended"


def test_when_there_is_room_again_the_rest_is_started(yard):
    """In order, each with its first trial."""
    scene = yard(20, max_trials=2)
    scene.crew.refusals = {5: FULL[0]}
    scene.launch()
    scene.launch()
    assert scene.started == [*range(5)], "crowded: nothing is tried before one has ended"
    scene.launcher.crowded, scene.crew.refusals = False, {}
    assert scene.launch() is True
    assert scene.crew.started == [(number, 1, None) for number in range(20)]


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_where_nobody_runs_no_room_is_a_failure(yard, on_error):
    """Nobody's end can make room."""
    scene = yard(3, on_error=on_error)
    scene.crew.refusals = dict.fromkeys(range(3), FULL[0])
    scene.launch()
    assert not scene.launcher.crowded
    assert scene.failed == ([0] if on_error == "stop" else [0, 1, 2])
    assert scene.pending == ([1, 2] if on_error == "stop" else [])
    assert all(isinstance(error, WorkerNotStarted) for _, error in scene.main.told)
    assert scene.crew.stopping == (on_error == "stop") and not scene.ledger.workers


def test_where_nobody_runs_no_room_is_tried_again(yard):
    """With trials left; each is one."""
    scene = yard(1, max_trials=2)
    scene.crew.refusals = {0: FULL[0]}
    scene.launch()
    assert scene.pending == [0] and scene.jobs[0].trials == 1 and scene.failed == []
    scene.crew.refusals = {}
    assert scene.launch() is True
    assert scene.crew.started == [(0, 2, None)]


# -- other starts that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 3, 7, 8])
def test_a_start_that_fails_takes_no_other_with_it(yard, bad):
    """A `work` of the user's that raises; the others are hired anew, and started in order."""
    scene = yard(12, on_error="collect")
    scene.crew.refusals = {bad: RuntimeError("in work()")}
    scene.launch()
    assert scene.failed == [bad] and not scene.launcher.crowded and scene.pending == []
    assert scene.started == [number for number in range(12) if number != bad]
    assert [job.trials for job in scene.jobs] == [1] * 12
    assert f"w{bad}" not in scene.ledger.workers and len(scene.ledger.workers) == 11


def test_a_start_that_fails_may_stop_everything(yard):
    """The rest is pending, in order, and none of it is running."""
    scene = yard(12)
    scene.crew.refusals = {3: RuntimeError("in work()")}
    scene.launch()
    assert scene.failed == [3] and scene.crew.stopping
    assert scene.started == [0, 1, 2] and scene.pending == [*range(4, 12)]
    assert [*scene.ledger.workers] == ["w0", "w1", "w2"]


def test_a_start_that_fails_is_tried_again_under_the_same_name(yard):
    """And at the head of the queue."""
    scene = yard(2, max_trials=2)
    scene.crew.refusals = {0: RuntimeError("in work()")}
    scene.launch()
    assert scene.started == [1] and scene.ledger.pending == [{"number": 0, "name": "w0"}]
    scene.crew.refusals = {}
    scene.launch()
    assert scene.crew.started == [(1, 1, None), (0, 2, None)] and [*scene.ledger.workers] == ["w1", "w0"]


def test_nothing_is_launched_once_everything_is_stopped(yard):
    """All of it is pending again."""
    scene = yard(3)
    chosen = scene.ledger.decide(SimpleNamespace(launchable=scene.all))
    scene.ledger.obey(Signal.STOP_RIGHTNOW)
    assert scene.launcher.launch(chosen) is False
    assert scene.hired == [] and scene.pending == [0, 1, 2]


# -- the whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["stop", "collect"])
def test_what_a_full_system_puts_off_is_done_in_the_end(on_error):
    """A fork that is refused now and then delays the work; nothing is lost, and nothing counts as a trial."""
    real, forks = os.fork, []

    def fork():
        forks.append(1)
        if len(forks) > 2 and len(forks) % 3 == 0:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return real()

    os.fork = fork
    try:
        boss = taylorism.Boss(scheduler=laxist(), on_error=on_error)
        boss.set_instructions({"deed": "echo"}, {"value": [*range(12)]})
        boss.make_them_work()
        assert sorted(reports(boss)) == [*range(12)]
    finally:
        os.fork = real
    report = boss.get_report()
    assert report["errors"] == {} and {info["trials"] for info in report["workers_info"].values()} == {1}


def test_one_bad_set_among_good_ones_is_collected():
    """No class for one, a constructor that fails for another: the rest is done."""
    boss = taylorism.Boss(scheduler=laxist(), on_error="collect")
    good = [{"deed": "echo", "value": number, "name": f"good{number}"} for number in range(10)]
    boss.set_instructions({}, [*good[:4], {"no": "class", "name": "bad"}, *good[4:]])
    boss.make_them_work()
    until(lambda: boss.get_report()["errors"], "the error")
    assert sorted(reports(boss)) == [*range(10)]
    errors = boss.get_report()["errors"]
    assert [*errors] == ["bad"] and isinstance(errors["bad"], NoAdequateWorker)


def test_whatever_is_raised_none_counts_as_running_that_is_not(monkeypatch):
    """Else the work would never be over, and the listener never end; and what did not start is pending."""
    yard = Yard(monkeypatch, 4)
    yard.unfit[2] = KeyError("unfit")

    def charge_job(*args, **options):
        raise LookupError("a mistake of ours")

    monkeypatch.setattr(Court, "charge_job", charge_job)
    with pytest.raises(LookupError):
        yard.launch()
    assert not yard.ledger.workers and yard.started == []
    assert yard.pending == [0, 1, 3]
