"""`epygram.untied.parallel`: its names and manner of calling, with the behaviour of today."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import uuid

import footprints
import pytest
from workers import alive, until

import taylorism
from taylorism.compat import parallel
from taylorism.schedulers import NewMaxThreadsScheduler


class Squarer(parallel.Worker):
    """Squares a number when it may: a file is there, or is not asked for."""

    _footprint = dict(attr=dict(ancestral=dict(type=int), gate=dict(optional=True, default="")))

    def _task(self, **kwargs):
        if self.gate:
            with open(self.gate, "rb") as file:  # a pipe: until somebody opens its other end
                file.read()
        return 12 // self.ancestral and self.ancestral**2


@pytest.fixture
def gate(tmp_path):
    """Return a pipe that holds up who reads it until it is opened for writing."""
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    return path


def unlock(path):
    """Let one reader go on."""
    with open(path, "wb"):
        pass


def values(report):
    """Return the bare reports."""
    return [record["report"] for record in report["workers_report"]]


def test_the_name_comes_first_and_is_a_uuid_by_default():
    """Then the scheduler, then verbose; the options of today are taken by name."""
    assert list(inspect.signature(parallel.Boss).parameters)[:3] == ["name", "scheduler", "verbose"]
    named = parallel.Boss("b", parallel.MaxThreadsScheduler(max_threads=3), True, stop_grace=1)
    nameless = parallel.Boss()
    assert (named.name, named.scheduler.max_threads, named.verbose) == ("b", 3, True)
    assert uuid.UUID(nameless.name).version == 4 and isinstance(nameless.scheduler, parallel.MaxThreadsScheduler)
    for boss in (named, nameless):
        boss.wait_till_finished()


def test_the_report_is_waited_for(gate):
    """Until everything given is settled, what is appended meanwhile included."""
    boss = parallel.Boss(scheduler=parallel.MaxThreadsScheduler(max_threads=2))
    boss.set_instructions({"gate": gate}, {"ancestral": [2]})
    boss.make_them_work()
    boss.set_instructions({}, {"ancestral": [3]})
    until(lambda: boss.status().done)
    assert boss.get_report(block=False) is None
    with pytest.raises(taylorism.WaitTimeout):
        boss.get_report(timeout=0.01)
    unlock(gate)
    report = boss.get_report()
    assert (values(report), report["status"]) == ([9, 4], "finished")
    assert values(boss.get_report(block=False)) == [9, 4]
    boss.set_instructions({}, {"ancestral": [4]})
    assert values(boss.get_report(block=True)) == [9, 4, 16]
    boss.wait_till_finished()
    assert boss.get_report()["status"] == "finished"


def test_what_comes_after_terminate_is_ignored():
    """The instructions, that is; the report is that of what came before."""
    boss = parallel.Boss()
    boss.set_instructions({}, {"ancestral": [2, 3]})
    boss.make_them_work(terminate=True)
    boss.set_instructions({}, {"ancestral": [4]})
    assert sorted(values(boss.get_report())) == [4, 9]
    boss.wait_till_finished()


def test_a_stop_is_reported(gate):
    """With what never ran, and who was interrupted; nobody is left."""
    boss = parallel.Boss(scheduler=parallel.MaxThreadsScheduler(max_threads=1))
    boss.set_instructions({"gate": gate}, {"ancestral": [2, 3], "name": ["a", "b"]})
    boss.make_them_work()
    until(lambda: boss.status().running)
    boss.stop_them_working()
    report = boss.get_report()
    assert (report["status"], report["stopped"]) == ("pending", ["a"])
    assert [each["name"] for each in report["pending"]] == ["b"]
    boss.wait_till_finished()


def test_unequal_lengths_stop_the_workers(gate):
    """The error is that of the contract."""
    boss = parallel.Boss()
    boss.set_instructions({"gate": gate}, {"ancestral": [2]})
    boss.make_them_work()
    with pytest.raises(AssertionError):
        boss.set_instructions({}, {"ancestral": [2, 3], "name": ["a"]})
    boss.wait_till_finished()
    assert boss.status().stopped or boss.get_report()["pending"]


def test_the_exception_of_a_worker_comes_out():
    """Of whichever call comes first, and then again of the end; the report holds it."""
    boss = parallel.Boss()
    boss.set_instructions({}, {"ancestral": [0]})
    boss.make_them_work()
    with pytest.raises(ZeroDivisionError):
        boss.get_report()
    assert isinstance(boss.get_report()["workers_report"], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        boss.wait_till_finished()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no binding here")
def test_there_is_a_slot_on_one_cpu():
    """Half of it would be none."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        boss = parallel.Boss()
        assert boss.scheduler.max_threads == 1
        boss.set_instructions({}, {"ancestral": [2, 3]})
        boss.make_them_work(terminate=True)
        assert values(boss.get_report()) == [4, 9]
        boss.wait_till_finished()
    finally:
        os.sched_setaffinity(0, before)


def test_a_worker_is_waited_for_under_its_old_name():
    """Without a Boss; a worker that was never started is not waited for."""
    worker = Squarer(ancestral=2)
    worker.you_are_expected()
    worker.work()
    pid = worker._process.pid
    worker.you_are_expected()
    assert not alive(pid)


def test_schedulers_of_ones_own_and_those_of_today_are_taken():
    """A subclass that overrides `launchable` is asked for that; LaxistScheduler starts all."""

    class Backwards(parallel.MaxThreadsScheduler):
        def launchable(self, pending_instructions, workers, report):
            if workers:
                return [], pending_instructions
            return pending_instructions[-1:], pending_instructions[:-1]

    own, today = Backwards(1), footprints.proxy.scheduler(limit="threads", max_threads=1)
    for scheduler, order in ((own, [9, 4]), (today, [4, 9]), (parallel.LaxistScheduler(), None)):
        boss = parallel.Boss("b", scheduler)
        boss.set_instructions({}, {"ancestral": [2, 3]})
        boss.make_them_work()
        found = values(boss.get_report())
        assert found == order or (order is None and sorted(found) == [4, 9])
        boss.wait_till_finished()


def test_todays_choice_of_a_scheduler_is_not_disturbed():
    """The old names are in no collector."""
    assert type(footprints.proxy.scheduler(limit="threads", max_threads=2)) is NewMaxThreadsScheduler


_SCRIPT = """
import sys
from taylorism.compat.parallel import Boss, MaxThreadsScheduler, Worker

class Squarer(Worker):
    _footprint = dict(attr=dict(number=dict(type=int)))
    def _task(self, **kwargs):
        return self.number**2

if __name__ == "__main__":
    boss = Boss("squares", MaxThreadsScheduler(max_threads=2), start_method=sys.argv[1])
    boss.set_instructions({}, {"number": [1, 2, 3]})
    boss.make_them_work(terminate=True)
    print(sorted(record["report"] for record in boss.get_report()["workers_report"]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_script_works_whatever_the_start_method(method, tmp_path):
    """It says nothing else, no warning either, and leaves nobody."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 4, 9]\n", "")


def test_it_is_imported_on_demand_only():
    """As is the package of which it is a part; that imports none of its modules."""
    code = "import sys, taylorism.compat; print([name for name in sys.modules if 'taylorism.compat.' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
