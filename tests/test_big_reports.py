"""Big reports and instructions from end to end: whose they are, when their memory goes, and what may go wrong."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from typing import Any

import footprints
import forked
import numpy as np
import pytest
import workers
from holding import MIB, PAGE, child, given_back, taken, taken_by
from workers import deed, do, reports, working

import taylorism
from taylorism import _freight, _lease, _results
from taylorism._channel import Frame
from taylorism._hold import Hold

N = 1 << 17  # of 8 bytes: 1 MiB
#: the lanes of reports, and the one of instructions
REPORTS, ORDERS = slice(1, None), slice(0, 1)


@deed
def make(value: float, worker: Any) -> Any:
    """Return a MiB."""
    return np.full(N, float(value))


@deed
def last(value: Any, worker: Any) -> float:
    """Return the last element of an array, and write all over it."""
    found = float(value[0][-1])
    value[0][:] = -1  # its own
    return found


@deed
def die_with_a_full_berth(value: Any, worker: Any) -> None:
    """Die in the middle of a big report."""
    worker.messenger.berth.stow([b"\1" * MIB])
    os.kill(os.getpid(), signal.SIGKILL)


@deed
def wait_and_make(value: tuple[int, int], worker: Any) -> Any:
    """Say that the berth is full, and wait to be stopped."""
    worker.messenger.berth.stow([b"\1" * MIB])
    os.write(value[0], b"x")
    os.read(value[1], 1)


@deed
def leave_a_reader(value: list[Any], worker: Any) -> None:
    """Leave a child on purpose that reads the instructions when it is told to, and says what it saw."""
    array, told, said = value
    if not os.fork():
        os.read(told, 1)
        os.write(said, f"{array.sum():g}".encode())
        os._exit(0)


@pytest.fixture
def pipes():
    """Return two pipes."""
    ends = [*os.pipe(), *os.pipe()]
    yield ends
    for end in ends:
        os.close(end)


def test_reports_are_mains_own():
    """Arrays arrive whole and writable, each its own, and their memory is given back while the Boss goes on."""
    with taylorism.Boss(scheduler=workers.slots(2)) as boss:
        boss.set_instructions(*do("make", 1, 2, 3))
        boss.wait()
        got = [record["report"] for record in boss.get_report()["workers_report"]]
        assert sorted(each[-1] for each in got) == [1, 2, 3]
        assert taken_by(boss) >= 3 * MIB
        got[0][:] = 9
        assert sorted(each[0] for each in got[1:]) != [9, 9]
        boss._link.results._records.clear()
        del got
        assert given_back(boss)


def test_arrays_outlive_their_boss():
    """When the work is over nothing is open, and the arrays are as they were."""
    before = len(os.listdir("/proc/self/fd"))
    boss = working(*do("make", 5, 6))
    got = reports(boss)
    del boss
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(each.sum() for each in got) == [5 * N, 6 * N]


def test_memory_goes_though_the_boss_is_over():
    """With the last array on it; seen by a descriptor that is kept for the test."""
    boss = working(*do("make", 5, 6))
    watched = list(map(os.dup, boss._link._hold.descriptors))
    got = reports(boss)
    del boss
    gc.collect()
    assert taken(*watched) == 2 * MIB
    got.pop()
    assert taken(*watched) == MIB
    del got
    assert taken(*watched) == 0
    for each in watched:
        os.close(each)


def test_a_pool_and_an_inner_boss_see_what_their_parent_has_let_go_of():
    """What was forked while an array lived goes on with it, whatever its parent does."""
    boss = working(*do("make", 7))
    (array,) = reports(boss)
    SEEN["array"], seen = array, [array]
    with child(lambda: seen[0].sum() == 7 * N):
        inner = taylorism.Boss(scheduler=workers.slots(1))
        SEEN.clear()
        seen.clear()
        boss._link.results._records.clear()
        del array
        gc.collect()
        inner.set_instructions(*do("sum_of_what_is_seen", None))
        assert reports(inner) == [7 * N]


SEEN: dict[str, Any] = {}


@deed
def sum_of_what_is_seen(value: Any, worker: Any) -> float:
    """Return what this process has inherited."""
    return float(SEEN["array"].sum())


def test_a_worker_may_use_a_boss_with_big_reports():
    """The hold of an inner Boss is its own."""

    def inner() -> float:
        return sum(float(each.sum()) for each in reports(working(*do("make", 2, 3))))

    DEEDS["inner_sum"] = lambda value, worker: inner()
    assert reports(working(*do("inner_sum", None))) == [5 * N]
    del DEEDS["inner_sum"]


DEEDS = workers.DEEDS


def test_a_worker_that_is_killed_leaves_nothing():
    """What it had written is given back though the Boss goes on."""
    with taylorism.Boss(on_error="collect", scheduler=workers.slots(1)) as boss:
        boss.set_instructions(*do("die_with_a_full_berth", None))
        boss.wait()
        assert len(boss.errors) == 1
        assert given_back(boss)


def test_a_worker_that_is_cancelled_leaves_nothing(pipes):
    """Its report, if it had one, is not wanted any more."""
    with taylorism.Boss(scheduler=workers.slots(1), stop_grace=0.1) as boss:
        boss.set_instructions(*do("wait_and_make", (pipes[1], pipes[2]), name="w"))
        boss.make_them_work()
        os.read(pipes[0], 1)
        assert taken_by(boss) == MIB
        boss.cancel("w")
        assert given_back(boss)


class Watcher(taylorism.BaseScheduler):
    """A scheduler of the user's, which keeps and reads the reports."""

    _footprint = dict(attr=dict(watcher=dict(values=["of big reports"])))

    def launchable(self, pending: Any, workers: Any, report: Any) -> Any:
        """Launch one at a time, which is told of the sum of all reports."""
        if workers:
            return [], pending
        for each in pending[:1]:
            each["value"] = 1 + sum(record["report"].sum() for record in report) / N
        return pending[:1], pending[1:]


def test_a_scheduler_keeps_reports_that_main_has_given_back():
    """It has a copy; the bytes of main are main's."""
    with taylorism.Boss(scheduler=footprints.proxy.scheduler(watcher="of big reports")) as boss:
        for expected in (1, 2):
            boss.set_instructions(*do("make", None))
            boss.wait()
            (record,) = boss.get_report()["workers_report"]
            assert record["report"][0] == expected
            del record
            boss._link.results._records.clear()
            assert given_back(boss)


def test_big_instructions_are_each_workers_own():
    """Common and individual ones; each worker writes to its copy, and when all is done the memory is free."""
    big = np.arange(float(N))
    with taylorism.Boss(scheduler=workers.slots(2)) as boss:
        boss.set_instructions(dict(deed="last", value=[big]), [{}, {}, {}])
        boss.set_instructions(*do("last", [big + 1], [big + 2]))
        assert taken_by(boss, ORDERS) >= 3 * MIB
        boss.wait()
        got = [record["report"] for record in boss.get_report()["workers_report"]]
        assert got[:3] == [N - 1.0] * 3 and sorted(got[3:]) == [N, N + 1.0]
        assert big[-1] == N - 1
        assert given_back(boss, ORDERS)


def test_what_a_worker_has_left_on_purpose_goes_on_reading_its_instructions(pipes):
    """Their memory is kept as long as it lives."""
    with taylorism.Boss(scheduler=workers.slots(1)) as boss:
        boss.set_instructions(*do("leave_a_reader", [np.ones(N), pipes[0], pipes[3]]))
        boss.wait()
        boss.set_instructions(*do("echo", 1))  # another end, and another occasion to give back
        boss.wait()
        os.write(pipes[1], b"x")
        assert os.read(pipes[2], 20) == f"{N:g}".encode()


def test_workers_that_nobody_hears_go_on_with_their_instructions(pipes):
    """Main gives back what is its own only."""
    boss = taylorism.Boss(scheduler=workers.slots(1))
    boss.set_instructions(*do("leave_a_reader", [np.ones(N), pipes[0], pipes[3]]))
    boss.make_them_work(stop_listening=True)
    boss.wait_till_finished()
    boss.get_report()
    del boss
    gc.collect()
    os.write(pipes[1], b"x")
    assert os.read(pipes[2], 20) == f"{N:g}".encode()


@deed
def tell_and_make(value: int, worker: Any) -> Any:
    """Write who it is, then return a MiB."""
    os.write(value, f"{os.getpid()}".encode())
    return np.ones(N)


@deed
def read_one(value: int, worker: Any) -> None:
    """Wait for a byte."""
    os.read(value, 1)


def test_reports_that_nobody_hears_leave_nothing(pipes):
    """They are given back while others go on."""
    boss = taylorism.Boss(scheduler=workers.slots(2))
    boss.set_instructions({}, dict(deed=["read_one", "tell_and_make"], value=[pipes[0], pipes[3]]))
    watched = list(map(os.dup, boss._link._hold.descriptors))
    boss.make_them_work(stop_listening=True)
    pid = int(os.read(pipes[2], 20))
    workers.until(lambda: not workers.alive(pid), "the end of the worker")
    workers.until(lambda: taken(*watched) == 0, "memory to be given back", 5.0)
    os.write(pipes[1], b"x")
    boss.wait_till_finished()
    for each in watched:
        os.close(each)


# -- processes that run several workers -------------------------------------------------------------------


def reusing(**options: Any) -> taylorism.Boss:
    """Return a Boss whose processes run all workers that they can."""
    return taylorism.Boss(scheduler=workers.slots(1), max_tasks_per_child=None, **options)


@deed
def die_if_told(value: float, worker: Any) -> Any:
    """Die in the middle of a big report, or return a MiB."""
    if value < 0:
        die_with_a_full_berth(None, worker)
    return np.full(N, float(value))


@deed
def pid_and_last(value: Any, worker: Any) -> tuple[int, float]:
    """Return who it is, and the last element, after which it writes all over the array."""
    return os.getpid(), last(value, worker)


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["in batches", "one by one"])
def test_reports_of_a_process_that_runs_several(options):
    """Each is main's own; what a killed one has left is given back, and what came before it is not."""
    with reusing(on_error="collect", **options) as boss:
        boss.set_instructions(*do("die_if_told", *range(1, 13), -1, 13))
        boss.wait()
        got = [record["report"] for record in boss.get_report()["workers_report"]]
        assert [each.sum() / N for each in got] == list(range(1, 14)) and len(boss.errors) == 1
        assert taken_by(boss, REPORTS) == 13 * MIB
        boss._link.results._records.clear()
        del got
        assert given_back(boss, REPORTS)


class Repeater(taylorism.BaseScheduler):
    """A scheduler of the user's that has no queue."""

    _footprint = dict(attr=dict(repeater=dict(values=["of big instructions"])))

    def launchable(self, pending: Any, workers: Any, report: Any) -> Any:
        """Launch one at a time, whose array it has changed in place."""
        if workers:
            return [], pending
        for each in pending[:1]:
            each["value"][0][-1] += 0.5
        return pending[:1], pending[1:]


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["in batches", "one by one"])
def test_instructions_of_a_process_that_runs_several(options):
    """Common ones and individual ones; each is given back, though the process goes on."""
    big = np.arange(float(N))
    with reusing(**options) as boss:
        boss.set_instructions(*do("pid_and_last", [big], [big + 1], [big + 2], [big + 3]))
        boss.wait()
        boss.set_instructions(dict(deed="pid_and_last", value=[big]), [{}])
        boss.set_instructions(*do("pid_and_last", [big + 4], [big + 5]))
        boss.wait()
        found = [record["report"] for record in boss.get_report()["workers_report"]]
        assert len({pid for pid, _ in found}) == 1
        assert [value - big[-1] for _, value in found] == [0, 1, 2, 3, 0, 4, 5]
        assert workers.until(lambda: taken_by(boss, ORDERS) <= 4 * MIB)  # what came before the process was forked


@deed
def remember(value: Any, worker: Any) -> None:
    """Keep an array for the next worker of this process."""
    SEEN["array"] = value[0]


def test_what_a_process_remembers_of_its_instructions_is_not_given_back_under_it():
    """The next worker there finds the array that the last one has kept."""
    with reusing() as boss:
        boss.set_instructions(*do("echo", 1))
        boss.wait()
        boss.set_instructions(*do("remember", [np.ones(N)]))
        boss.wait()
        assert given_back(boss, ORDERS)
        boss.set_instructions(*do("sum_of_what_is_seen", None))
        assert reports(boss)[-1] == N


def test_what_a_scheduler_changes_is_what_a_process_that_runs_several_gets():
    """Instructions are not sent as main has packed them where they may have been changed within."""
    scheduler = footprints.proxy.scheduler(repeater="of big instructions")
    with taylorism.Boss(scheduler=scheduler, max_tasks_per_child=None) as boss:
        boss.set_instructions(*do("pid_and_last", [np.arange(float(N))], [np.arange(float(N))]))
        boss.wait()
        assert [each["report"][1] for each in boss.get_report()["workers_report"]] == [N - 0.5] * 2


def test_instructions_that_are_refused_or_too_late_leave_nothing():
    """What cannot be pickled in the middle of others, and what comes after the end."""
    with taylorism.Boss(scheduler=workers.slots(1)) as boss:
        with pytest.raises(TypeError):
            boss.set_instructions(*do("echo", [np.ones(N)], lambda: 0), fatal=False)
        assert taken_by(boss) == 0
        boss.set_instructions({"value": [np.ones(N)]}, {})
        assert taken_by(boss) == 0
        watched = os.dup(boss._link._hold.descriptors[0])
        boss.end()
        assert boss.set_instructions(*do("echo", [np.ones(N)])) == []
        assert taken(watched) == 0
        os.close(watched)


_METHODS = """
import sys; sys.path.insert(0, {here!r})
import numpy as np, taylorism, workers
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        boss = taylorism.Boss(start_method=method, scheduler=workers.slots(2))
        boss.set_instructions(*workers.do("echo", [np.ones(1 << 17)]))
        boss.wait()
        print(sum(512 * os.fstat(each).st_blocks for each in boss._link._hold.descriptors[1:]))
        (got,) = workers.reports(boss)[0]
        got[0] = 5
        print(got.sum())
"""


def test_other_start_methods(tmp_path):
    """The files are handed to a listener that is no fork."""
    done = ran(tmp_path, _METHODS)
    assert done.stdout.split() == [str(MIB), f"{N + 4.0}"] * 2, done.stderr


def ran(place: Any, text: str) -> Any:
    """Run a program."""
    script = place / "script.py"
    script.write_text("import os\n" + text.format(here=str(workers.HERE)))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", [_results, _freight, _lease])
def test_a_handler_that_raises_anywhere_loses_nothing(module):
    """Before each instruction of a module, once: what is noted again is whole, and given back in the end."""
    hold = Hold()
    assert hold.open()
    for at in range(1, 1000):
        segments, _ = _freight.pack([np.full(N, 3.0), "x" * (MIB // 8)], hold.berth(at))
        frame, results = Frame(("w", 0), segments), _results.Results(hold=hold)
        before = taken(*hold.descriptors)
        if not _interrupted(module, at, lambda results=results, frame=frame: results.note(5, frame)):
            break
        results.note(5, frame)
        assert results.records[0]["report"][0].sum() == 3 * N
        results = None
    pickled = MIB // 8 + PAGE  # which has been read, and is gone
    assert at > 20 and before - taken(*hold.descriptors) == pickled
    results = None
    assert before - taken(*hold.descriptors) == MIB + pickled
    hold.close()


def _interrupted(module: Any, at: int, function: Any) -> bool:
    """Call a function, and return whether something was raised before that instruction."""
    try:
        forked.Injector(module, at).run(function)
    except forked.Injected:
        return True
    return False


_LIMITED = """
import resource, sys; sys.path.insert(0, {here!r})
import numpy as np, taylorism, workers
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
boss = taylorism.Boss(scheduler=workers.slots(1))
boss.set_instructions(*workers.do("echo", *([np.full(1 << 18, float(n))] for n in range(3))))
print(sorted(each[0].sum() for each in workers.reports(boss)) == [n * 2.0**18 for n in range(3)])
"""


def test_a_refusal_of_the_system_is_told_once(tmp_path):
    """Instructions and reports take the pipe, with one warning each."""
    done = ran(tmp_path, _LIMITED)
    assert done.stdout == "True\n", done.stderr
    assert done.stderr.count("big instructions take the slower way") == 1
    assert done.stderr.count("big reports take the slower way") == 1
    assert done.stderr.count("ulimit -f") == 2


def test_without_a_hold_all_takes_the_pipe(monkeypatch, caplog):
    """Where the system has no such files; this is said once, quietly."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr("taylorism._link._said", set())
    with caplog.at_level(logging.DEBUG, "taylorism"):
        for _ in range(2):
            boss = working(*do("last", [np.arange(float(N))]))
            assert reports(boss) == [N - 1.0]
            assert reports(working(*do("make", 4)))[0].sum() == 4 * N
    assert caplog.text.count("shared memory without a name") == 1
