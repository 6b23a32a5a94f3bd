"""`Boss` in main: sections 3, 4, 5 and 8 of what the package promises, each sentence with processes of its own."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import weakref
from array import array
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import footprints
import numpy
import psutil
import pytest
import workers
from workers import Scheduler, alive, do, done_so_far, laxist, reports, slots, until, working

import taylorism
import taylorism.util
from taylorism import _link


def release(place: Path) -> None:
    """Let the workers that do `wait` go on."""
    (place / "release").touch()


def started(place: Path, number: int = 1) -> list[Path]:
    """Wait for that many workers that do `wait`, each of which has written its whole number."""

    def written() -> list[Path]:
        return [path for path in place.glob("*.pid") if path.read_text().endswith("\n")]

    return until(lambda: found if len(found := written()) >= number else None, f"{number} workers")


def cleared_away(pid: int) -> None:
    """Wait for the end of a forgotten Boss's listener: if that takes its time, the next Boss clears it away."""
    until(lambda: not alive(pid), "the listener's end")
    _link._sweep()
    assert not psutil.pid_exists(pid), "the listener of a forgotten Boss was not reaped"


def send(boss: taylorism.Boss, name: str) -> None:
    """Send one of the control signals."""
    boss.control_messenger_out.send(boss.control_signals[name])


# ---------------------------------------------------------------------------------------------------------
# the handle
# ---------------------------------------------------------------------------------------------------------


def test_attributes_are_readable():
    """What was given to a Boss can be read from it."""
    scheduler = slots(1)
    boss = taylorism.Boss(scheduler, "chief", True, 12)
    assert (boss.scheduler, boss.name, boss.verbose, boss.maxlenreport) == (scheduler, "chief", True, 12)
    assert "chief" in repr(boss)
    boss.wait_till_finished()


def test_default_scheduler_limits_threads():
    """Without a scheduler it is the one of half of the cpus."""
    boss = taylorism.Boss()
    assert isinstance(boss.scheduler, taylorism.schedulers.NewMaxThreadsScheduler)
    assert boss.scheduler.max_threads >= 1
    boss.wait_till_finished()


def test_control_signals_are_on_the_class():
    """The class has the keys that scripts use."""
    assert set(taylorism.Boss.control_signals) == {
        *("HALT", "RESUME", "SEND_REPORT", "END", "STOP", "STOP_LISTENING", "STOP_RIGHTNOW")
    }
    assert len(set(taylorism.Boss.control_signals.values())) == 7


@pytest.mark.parametrize("scheduler", [object(), 3, type("S", (), {"launchable": "no function"})()])
def test_scheduler_must_be_launchable(scheduler):
    """What has no callable `launchable` is refused before a process starts."""
    with pytest.raises(AssertionError):
        taylorism.Boss(scheduler=scheduler)


def test_any_object_with_launchable_is_a_scheduler():
    """A scheduler needs no footprint; it is given three arguments, two of them by name as in 1.1."""

    class Mine:
        def launchable(self, pending_instructions, workers, report):
            return pending_instructions[:1], pending_instructions[1:]

    assert sorted(reports(working(*do("echo", 1, 2, 3), scheduler=Mine()))) == [1, 2, 3]


def test_a_new_boss_is_halted(tmp_path):
    """Nothing runs before `make_them_work`."""
    boss = taylorism.Boss(scheduler=laxist())
    boss.set_instructions(*do("wait", str(tmp_path)))
    send(boss, "SEND_REPORT")
    until(lambda: boss.get_report(interim=False), "the snapshot, hence the instructions were taken")
    assert not list(tmp_path.iterdir())
    boss.make_them_work()
    started(tmp_path)
    release(tmp_path)
    boss.wait_till_finished()


def test_listener_is_a_child_process():
    """`_process` is the process object of the listener."""
    boss = taylorism.Boss()
    assert boss._process.is_alive() and boss._process.exitcode is None
    assert psutil.Process(boss._process.pid).ppid() == os.getpid()
    boss.wait_till_finished()
    assert not boss._process.is_alive() and boss._process.exitcode == 0


# ---------------------------------------------------------------------------------------------------------
# instructions
# ---------------------------------------------------------------------------------------------------------


def test_individual_wins_over_common():
    """Each set is common then individual."""
    boss = working({"deed": "echo", "value": "common"}, {"value": ["individual"]})
    assert reports(boss) == ["individual"]


def test_sets_follow_the_order():
    """There is one set for each index of the lists, launched in order."""
    boss = working(
        {"deed": "attributes", "value": ["name", "memory"]},
        {"name": ["a", "b", "c"], "memory": [3.0, 2.0, 1.0]},
        scheduler=slots(1),
    )
    assert reports(boss) == [{"name": n, "memory": m} for n, m in zip("abc", (3.0, 2.0, 1.0))]


def test_keywords_of_the_contract():
    """`common` and `individual` work as keywords, as do the names of 1.1."""
    boss = taylorism.Boss()
    boss.set_instructions(common={"deed": "echo"}, individual={"value": [1]})
    boss.set_instructions(
        common_instructions={"deed": "echo"}, individual_instructions={"value": [2]}, fatal=False
    )
    boss.make_them_work()
    assert sorted(reports(boss)) == [1, 2]


def test_no_individual_instruction_no_worker():
    """Common instructions alone make no worker."""
    boss = working({"deed": "echo"}, {})
    boss.set_instructions({"deed": "echo"}, {"value": []})
    boss.set_instructions()
    boss.wait_till_finished()
    report = boss.get_report()
    assert (report["workers_report"], report["status"]) == ([], "finished")


@pytest.mark.parametrize(
    "values",
    [(1, 2), range(1, 3), array("i", [1, 2]), numpy.array([1, 2]), footprints.FPList([1, 2])],
    ids=["tuple", "range", "array", "ndarray", "FPList"],
)
def test_individual_lists_may_be_any_sequence(values):
    """Individual lists may be tuples, ranges and arrays."""
    boss = working({"deed": "echo"}, {"value": values})
    assert sorted(int(value) for value in reports(boss)) == [1, 2]


def test_a_string_is_a_sequence_of_letters():
    """A str has a length and elements."""
    assert sorted(reports(working({"deed": "echo"}, {"value": "ab"}))) == ["a", "b"]


@pytest.mark.parametrize("values", [{1, 2}, {"a": 1}, 3, None, iter([1])])
def test_what_is_no_sequence_is_refused(values):
    """A set, a dict, a number or an iterator is named in a TypeError."""
    boss = taylorism.Boss()
    with pytest.raises(TypeError, match="value"):
        boss.set_instructions({"deed": "echo"}, {"value": values})
    boss.wait_till_finished()


@pytest.mark.parametrize(
    "bad", [({3: 1}, {"value": [1]}), ({}, {3: [1]}), ([5], {}), ([{3: 1}], {}), ("a", {}), ({}, 5)]
)
def test_names_must_be_strings(bad):
    """Instructions that are no dict, or whose keys are no strings, are refused at once."""
    boss = taylorism.Boss()
    with pytest.raises(TypeError):
        boss.set_instructions(*bad)
    boss.wait_till_finished()


def test_callers_objects_are_never_modified():
    """The instructions and the lists in them stay as they were; values are copied deeply."""
    inner = [1]
    common, individual = {"deed": "echo"}, {"value": [inner, [2]]}
    boss = working(common, individual, scheduler=slots(1))
    inner.append("too late")
    individual["value"].append("too late")
    assert reports(boss) == [[1], [2]]
    assert common == {"deed": "echo"}
    assert individual == {"value": [[1, "too late"], [2], "too late"]}


def test_scheduler_marks_do_not_reach_the_callers_sets():
    """What a scheduler adds to a set is not seen by the caller, nor by another Boss."""
    common, individual = do("echo", 1, 2)
    reports(working(common, individual))
    assert sorted(common) == ["deed"] and sorted(individual) == ["value"]


def test_instructions_may_come_at_any_time(tmp_path):
    """Instructions may be set before and after the work began, any number of times."""
    boss = working(*do("wait", str(tmp_path)))
    started(tmp_path)
    for value in range(3):
        boss.set_instructions(*do("echo", value))
    boss.make_them_work()
    until(lambda: done_so_far(boss) == 3, "the later instructions")
    release(tmp_path)
    assert len(reports(boss)) == 4


def test_instructions_after_the_end_are_ignored(tmp_path):
    """After `end`, whatever is set is ignored: right ones, impossible ones, and after all is done."""
    scheduler = footprints.proxy.scheduler(limit="memory", max_memory=100.0, memory_per_task=1.0)
    boss = working(*do("wait", str(tmp_path), name="first"), scheduler=scheduler)
    started(tmp_path)
    boss.end()
    boss.set_instructions(*do("echo", "ignored"))
    boss.set_instructions(*do("echo", "ignored", memory=1e9))
    boss.set_instructions(*do("echo", workers.NeverLoads()))
    release(tmp_path)
    assert reports(boss) == ["first"]
    boss.set_instructions(*do("echo", "ignored"))
    assert boss.get_report()["status"] == "finished"


@pytest.mark.parametrize("fatal", [True, False])
def test_unequal_lengths(fatal, tmp_path):
    """Lists of unequal lengths are an AssertionError, which stops the work only if `fatal`."""
    boss = working(*do("wait", str(tmp_path), name="runs"))
    started(tmp_path)
    with pytest.raises(AssertionError, match="same length"):
        boss.set_instructions({}, {"one": [1], "two": [1, 2]}, fatal)
    if not fatal:
        release(tmp_path)
    boss.wait_till_finished()
    report = boss.get_report()
    assert report["status"] == ("pending" if fatal else "finished")
    assert report.get("stopped", []) == (["runs"] if fatal else [])


def test_unpicklable_instructions_are_refused_here():
    """What cannot be pickled raises where it is set, names the attribute, and is one of pickle's errors."""
    boss = taylorism.Boss()
    for value in (lambda: 1, threading.Lock(), workers.RaisingReduce()):
        with pytest.raises(taylorism.InstructionsNotPicklable, match="'value'") as info:
            boss.set_instructions(*do("echo", value), fatal=False)
        assert isinstance(info.value, (TypeError, ValueError, AttributeError))
        assert info.value.__cause__ is not None
    boss.set_instructions(*do("echo", 1))
    assert reports(boss) == [1]


def test_unpicklable_common_instructions_are_refused_here():
    """The same holds for the common part."""
    boss = taylorism.Boss()
    with pytest.raises(taylorism.InstructionsNotPicklable, match="common.*'what'"):
        boss.set_instructions({"what": lambda: 1, "deed": "echo"}, {"value": [1]})
    boss.wait_till_finished()


def test_instructions_that_never_load():
    """What the listener cannot rebuild fails at once, with the cause."""
    boss = working(*do("echo", workers.NeverLoads()))
    with pytest.raises(TypeError, match="never loads"):
        boss.wait_till_finished()


def raised_by_a_call():
    """Leave a Boss behind whose call has raised."""
    boss = taylorism.Boss()
    with pytest.raises(ZeroDivisionError):
        boss.submit(divmod, 1, 0).result()
    return boss._process.pid


def raised_at_the_end():
    """Leave a Boss behind that has raised one exception for all."""
    boss = working(*do("throw", ValueError()), on_error="finish")
    with pytest.raises(taylorism.WorkersFailed):
        boss.wait()
    return boss._process.pid


@pytest.mark.parametrize("raised", [raised_by_a_call, raised_at_the_end])
def test_a_forgotten_boss_that_has_raised_leaves_nobody(raised):
    """Its exception has a traceback, whose frames hold the Boss: nothing else may hold the exception."""
    pid = raised()
    gc.collect()
    until(lambda: not alive(pid), "the end of its listener")


class NoHash(str):
    """A string that has no hash, and no truth value."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")


@pytest.mark.parametrize("tasks", [1, None])
@pytest.mark.parametrize("name", [numpy.arange(2), NoHash("name")], ids=["array", "no hash"])
def test_a_name_of_an_odd_kind_is_the_business_of_its_own_set(tasks, name):
    """Whatever footprints makes of it: the others are done, and the end comes at once."""
    boss = taylorism.Boss(scheduler=slots(1), on_error="collect", max_tasks_per_child=tasks)
    names = [f"n{i}" if i != 10 else name for i in range(20)]
    boss.set_instructions({"deed": "echo"}, {"value": list(range(20)), "name": names})
    boss.make_them_work()
    assert boss.wait(timeout=9.0)  # ten seconds later, main would kill a listener that says nothing
    boss.wait_till_finished()
    done = {record["report"] for record in boss.get_report()["workers_report"]}
    assert done | {10} == set(range(20)) and len(done) + len(boss.errors) == 20


@pytest.mark.parametrize("tasks", [1, None])
def test_what_could_never_start_either_is_pending(tasks):
    """Where one set that does not load has stopped everything, another one, and one that asks too much, is told."""
    scheduler = footprints.proxy.scheduler(limit="memory", max_memory=100.0, memory_per_task=1.0)
    boss = taylorism.Boss(scheduler=scheduler, max_tasks_per_child=tasks)
    never = {"deed": "echo", "value": workers.NeverLoads()}
    greedy = {"deed": "echo", "value": 2, "memory": 1e9}
    boss.set_instructions([never, {"deed": "echo", "value": 1}, never, greedy])
    boss.make_them_work()
    with pytest.raises(TypeError, match="never loads"):
        boss.wait_till_finished()
    fine, *others = boss.get_report()["pending"]
    assert fine["value"] == 1 and {each.get("value") for each in others} == {None, 2}
    assert "never loads" in next(each["?"] for each in others if "?" in each)


def test_unknown_attributes_are_ignored():
    """Instructions that are no attribute of the worker are ignored."""
    assert reports(working(*do("echo", 1, nothing_of_the_kind=3))) == [1]


def test_none_stays_none():
    """A None in the instructions arrives as None."""
    assert reports(working(*do("echo", None))) == [None]


def test_shared_instructions_reach_every_worker():
    """Shared instructions are common to all, and not copied."""
    shared = taylorism.util.SharedNumpyArray(numpy.zeros(4))
    boss = taylorism.Boss(sharedmemory_common_instructions={"value": shared}, scheduler=slots(2))
    boss.set_instructions({"deed": "fill_shared"}, {"memory": [0.0, 1.0]})
    boss.make_them_work()
    boss.wait_till_finished()
    assert shared[...].tolist() == [1.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("wrong", [3, None, [("value", 1)], {1: 2}])
def test_shared_instructions_that_are_none_are_refused_before_anything_starts(wrong, monkeypatch):
    """The listener could only say so later, in words that name nobody."""
    monkeypatch.setattr(_link.Link, "start", lambda *args: pytest.fail("it was started"))
    with pytest.raises(taylorism.BadInstructions, match="the sharedmemory_common instructions (are|have)"):
        taylorism.Boss(sharedmemory_common_instructions=wrong)


@workers.deed
def fill_shared(value: Any, worker: Any) -> None:
    """Write to the shared array."""
    value[int(worker.memory)] = worker.memory + 1


# ---------------------------------------------------------------------------------------------------------
# reports
# ---------------------------------------------------------------------------------------------------------


def test_shape_of_the_report():
    """A final report has records with exactly name and report, and the status `finished`."""
    boss = working(*do("echo", "result", name="one"))
    boss.wait_till_finished()
    report = boss.get_report()
    assert report["workers_report"] == [{"name": "one", "report": "result"}]
    assert report["status"] == "finished"


def test_order_of_completion(tmp_path):
    """Records are in order of completion."""
    boss = working({"deed": "wait", "value": str(tmp_path)}, {"name": ["slow"]})
    started(tmp_path)
    boss.set_instructions(*do("echo", 1, name="quick"))
    until(lambda: done_so_far(boss) == 1, "the quick one")
    release(tmp_path)
    boss.wait_till_finished()
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["quick", "slow"]


def test_interim_report(tmp_path):
    """With `interim` there is always a report of what is done, without there is None."""
    boss = working({"deed": "echo"}, {"value": [1]})
    boss.set_instructions(*do("wait", str(tmp_path)))
    started(tmp_path)
    until(lambda: done_so_far(boss) == 1, "the first")
    report = boss.get_report()
    assert report["status"] == "interim" and report["workers_report"][0]["report"] == 1
    assert boss.get_report(interim=False) is None
    assert boss.get_report(interim=True)["status"] == "interim"
    release(tmp_path)
    boss.wait_till_finished()


def test_interim_report_of_a_new_boss():
    """There is an interim report before anything was done."""
    boss = taylorism.Boss()
    report = boss.get_report()
    assert (report["workers_report"], report["status"]) == ([], "interim")
    assert boss.get_report(interim=False) is None
    boss.wait_till_finished()


def test_final_report_any_number_of_times():
    """The final report comes any number of times, the same, and is the caller's."""
    boss = working(*do("echo", 1))
    boss.wait_till_finished()
    boss.get_report()["workers_report"].clear()
    first = boss.get_report(interim=False)
    assert first == boss.get_report() == boss.get_report(interim=True)
    assert len(first["workers_report"]) == 1
    boss.wait_till_finished()
    assert boss.get_report() == first


def test_polling_get_report_sees_the_end_and_leaves_nothing():
    """A caller who only polls gets the final report; a Boss that is dropped then leaves nothing."""
    boss = working(*do("echo", 1, 2))
    boss.end()
    report = until(partial(boss.get_report, interim=False), "the final report")
    assert report["status"] == "finished" and len(report["workers_report"]) == 2
    pid = boss._process.pid
    del boss
    cleared_away(pid)


def test_get_report_does_not_spin(tmp_path):
    """`get_report` returns at once while the worker works, and uses no cpu of the listener's."""
    boss = working(*do("wait", str(tmp_path)))
    started(tmp_path)
    listener = psutil.Process(boss._process.pid)
    before = sum(listener.cpu_times()[:2])
    for _ in range(1000):
        boss.get_report()
    assert sum(listener.cpu_times()[:2]) - before <= 0.05
    release(tmp_path)
    boss.wait_till_finished()


def test_send_report_signal(tmp_path):
    """SEND_REPORT makes an interim report that `get_report(interim=False)` returns once."""
    boss = working(*do("wait", str(tmp_path)))
    started(tmp_path)
    send(boss, "SEND_REPORT")
    assert until(lambda: boss.get_report(interim=False), "the report")["status"] == "interim"
    assert boss.get_report(interim=False) is None
    release(tmp_path)
    boss.wait_till_finished()


# ---------------------------------------------------------------------------------------------------------
# orders
# ---------------------------------------------------------------------------------------------------------


def test_halt_and_resume(tmp_path):
    """HALT starts no more workers until RESUME; what runs goes on."""
    boss = working(*do("wait", str(tmp_path)))
    started(tmp_path)
    send(boss, "HALT")
    boss.set_instructions(*do("echo", "halted"))
    release(tmp_path)
    until(lambda: done_so_far(boss) == 1, "the running one")
    send(boss, "SEND_REPORT")
    until(lambda: boss.get_report(interim=False), "that the listener has turned")
    assert done_so_far(boss) == 1
    send(boss, "RESUME")
    until(lambda: done_so_far(boss) == 2, "the halted one")
    boss.wait_till_finished()


def test_make_them_work_resumes():
    """`make_them_work` goes on after a HALT."""
    boss = taylorism.Boss()
    boss.make_them_work()
    send(boss, "HALT")
    boss.set_instructions(*do("echo", 1))
    boss.make_them_work(terminate=True)
    until(lambda: boss.get_report(interim=False), "the final report")
    assert reports(boss) == [1]


def test_terminate_is_as_if_end_followed():
    """After `make_them_work(terminate=True)` the listener leaves by itself."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("echo", 1))
    boss.make_them_work(terminate=True)
    boss.set_instructions(*do("echo", "ignored"))
    until(lambda: not boss._process.is_alive(), "the listener's end")
    assert reports(boss) == [1]


def test_end_is_not_the_end_of_pending_work(tmp_path):
    """`end` lets everything that was ordered be done; END does the same."""
    for end in (taylorism.Boss.end, lambda boss: send(boss, "END")):
        boss = working(*do("echo", *range(6)), scheduler=slots(1))
        end(boss)
        assert reports(boss) == list(range(6))


def test_wait_without_make_them_work():
    """Work that was never set going is done by `wait_till_finished`."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("echo", 1, 2))
    assert sorted(reports(boss)) == [1, 2]


def test_stop_them_working(tmp_path):
    """Running workers are interrupted and named, the sets that never ran are given back."""
    boss = working({"deed": "wait", "value": str(tmp_path)}, {"name": ["a", "b", "c"]})
    started(tmp_path, 2)
    boss.stop_them_working()
    boss.stop_them_working()
    boss.wait_till_finished()
    report = boss.get_report()
    assert (report["status"], report["workers_report"]) == ("pending", [])
    assert [(p["name"], p["deed"], p["value"]) for p in report["pending"]] == [
        ("c", "wait", str(tmp_path))
    ]
    assert sorted(report["stopped"]) == ["a", "b"]
    assert sorted(path.name for path in tmp_path.glob("*.cleaned")) == ["a.cleaned", "b.cleaned"]
    assert not any(alive(workers.pid_in(path)) for path in tmp_path.glob("*.pid"))


def test_pending_sets_can_be_given_to_another_boss(tmp_path):
    """What is pending in a report has no marks of the scheduler, and can be run again."""
    boss = working({"deed": "wait", "value": str(tmp_path)}, {"name": ["a"]}, scheduler=slots(1))
    started(tmp_path)
    boss.set_instructions({"deed": "echo", "common": "kept"}, {"value": [1, 2]})
    boss.stop_them_working()
    boss.wait_till_finished()
    pending = boss.get_report()["pending"]
    assert pending == [{"deed": "echo", "common": "kept", "value": value} for value in (1, 2)]
    other = taylorism.Boss(scheduler=slots(1))
    other.control_messenger_out.send(pending)
    assert reports(other) == [1, 2]


def test_stop_keeps_what_is_done(tmp_path):
    """What was done before a stop stays in the report."""
    boss = working(*do("echo", 1))
    boss.set_instructions(*do("wait", str(tmp_path)))
    started(tmp_path)
    until(lambda: done_so_far(boss) == 1, "the first")
    boss.stop_them_working()
    boss.wait_till_finished()
    assert [record["report"] for record in boss.get_report()["workers_report"]] == [1]


def test_stop_of_nothing():
    """Stopping a Boss without work is no error, and it is `finished`."""
    boss = taylorism.Boss()
    boss.stop_them_working()
    boss.wait_till_finished()
    assert boss.get_report()["status"] == "finished"
    boss.stop_them_working()
    boss.make_them_work()
    boss.end()
    boss.wait_till_finished()


def test_stop_before_the_start():
    """A Boss that is stopped before it works never starts anything, also when told to work."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("echo", 1))
    boss.stop_them_working()
    boss.make_them_work()
    boss.wait_till_finished()
    report = boss.get_report()
    assert report["status"] == "pending" and len(report["pending"]) == 1


def test_stop_signal_lets_the_running_finish(tmp_path):
    """STOP lets the running ones finish and leaves the rest pending."""
    boss = working({"deed": "wait", "value": str(tmp_path)}, {"name": ["a", "b"]}, scheduler=slots(1))
    started(tmp_path)
    send(boss, "STOP")
    release(tmp_path)
    boss.wait_till_finished()
    report = boss.get_report()
    assert [record["name"] for record in report["workers_report"]] == ["a"]
    assert report["status"] == "pending" and [p["name"] for p in report["pending"]] == ["b"]


@pytest.mark.parametrize("way", ["method", "signal"])
def test_stop_listening(way, tmp_path):
    """Unheard workers go on to their end; what never started is pending."""
    boss = working({"deed": "wait", "value": str(tmp_path)}, {"name": ["a", "b"]}, scheduler=slots(1))
    started(tmp_path)
    if way == "method":
        boss.make_them_work(stop_listening=True)
    else:
        send(boss, "STOP_LISTENING")
    report = until(lambda: boss.get_report(interim=False), "the report of a listener that hears no more")
    assert report["workers_report"] == [] and [p["name"] for p in report["pending"]] == ["b"]
    release(tmp_path)
    boss.wait_till_finished()
    assert (tmp_path / "a.done").exists()
    assert boss.get_report()["workers_report"] == []


def test_stop_listening_starts_what_was_ordered(tmp_path):
    """`make_them_work(stop_listening=True)` on a halted Boss starts what can start."""
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions({"deed": "touch"}, {"value": [str(tmp_path / "a"), str(tmp_path / "b")]})
    boss.make_them_work(stop_listening=True)
    boss.wait_till_finished()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_unheard_failure_harms_nobody(tmp_path):
    """After STOP_LISTENING the failure of one worker, which nobody hears, does not stop the others."""
    place = tmp_path / "good"
    place.mkdir()
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions(
        {}, {"deed": ["wait_then_fail", "wait"], "value": [str(tmp_path), str(place)], "name": ["a", "b"]}
    )
    boss.make_them_work()
    started(tmp_path), started(place)
    boss.make_them_work(stop_listening=True)
    until(lambda: boss.get_report(interim=False), "the last report")
    bad = workers.pid_in(tmp_path / "a.pid")
    release(tmp_path)
    until(lambda: not alive(bad), "the end of the one that fails")
    release(place)
    boss.wait_till_finished()
    assert (place / "b.done").exists()


def test_stop_after_stop_listening_is_bounded(tmp_path):
    """Workers that nobody hears can still be stopped."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    boss.make_them_work(stop_listening=True)
    boss.stop_them_working()
    boss.wait_till_finished()
    assert (tmp_path / "a.cleaned").exists() and not (tmp_path / "a.done").exists()


def test_unknown_order_is_refused():
    """What is no order raises where it is sent."""
    boss = taylorism.Boss()
    for nonsense in ("nonsense", 3, [3], None):
        with pytest.raises(ValueError, match="HALT"):
            boss.control_messenger_out.send(nonsense)
    boss.wait_till_finished()


# ---------------------------------------------------------------------------------------------------------
# failures
# ---------------------------------------------------------------------------------------------------------


def test_the_workers_exception_comes_out():
    """`wait_till_finished` raises the worker's exception: class, arguments, traceback as its cause."""
    boss = working(*do("throw", ValueError("bad", 3), name="guilty"))
    with pytest.raises(ValueError) as info:
        boss.wait_till_finished()
    assert type(info.value) is ValueError and info.value.args == ("bad", 3)
    assert isinstance(info.value.__cause__, taylorism.WorkerTraceback)
    assert "raise value" in str(info.value.__cause__) and "guilty" in str(info.value.__cause__)


def test_the_cause_of_the_cause_is_told():
    """The traceback of the worker has its own causes."""
    boss = working(*do("throw_from", None))
    with pytest.raises(RuntimeError, match="what came") as info:
        boss.wait_till_finished()
    assert "the root of it" in str(info.value.__cause__)


def test_error_and_instructions_go_to_stderr(capfd):
    """The error and the guilty instructions go to stderr."""
    boss = working(*do("throw", ValueError("look here"), name="guilty", memory=3.5))
    with pytest.raises(ValueError):
        boss.wait_till_finished()
    told = capfd.readouterr().err
    assert "ValueError: look here" in told and "Traceback" in told
    assert "'name', 'guilty'" in told and "'memory', 3.5" in told


def test_others_are_stopped(tmp_path):
    """When a worker fails, the others are stopped, cleanly, and named; the rest is pending."""
    boss = working({"deed": "wait", "value": str(tmp_path)}, {"name": ["good"]})
    started(tmp_path)
    boss.set_instructions(
        {}, {"deed": ["throw", "echo"], "value": [ValueError("x"), 1], "name": ["bad", "never"]}
    )
    with pytest.raises(ValueError):
        boss.wait_till_finished()
    assert (tmp_path / "good.cleaned").exists()
    report = boss.get_report()
    assert report["status"] == "workers exception"
    assert isinstance(report["workers_report"], ValueError)
    assert any("ValueError: x" in line for line in report["traceback"])
    assert report["stopped"] == ["good"]
    assert [p["name"] for p in report["pending"]] in ([], ["never"])


def test_results_before_a_failure_stay():
    """Results that had come when a worker failed are in the report under a key of their own."""
    boss = working(*do("echo", 1, 2))
    until(lambda: done_so_far(boss) == 2, "the good ones")
    boss.set_instructions(*do("throw", KeyError("bad")))
    with pytest.raises(KeyError):
        boss.wait_till_finished()
    assert sorted(r["report"] for r in boss.get_report()["workers_done"]) == [1, 2]


@pytest.mark.parametrize("call", ["get_report", "set_instructions"])
def test_whichever_call_comes_first_raises(call):
    """`get_report` and `set_instructions` raise the worker's exception too; then waiting raises it again."""
    boss = working(*do("throw", ValueError("first")))

    def attempt() -> bool:
        if call == "get_report":
            boss.get_report()
        else:
            boss.set_instructions(*do("echo", 1))
        return False

    with pytest.raises(ValueError, match="first"):
        until(attempt, "the failure")
    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            boss.wait_till_finished()
    with pytest.raises(ValueError, match="first"):
        boss.set_instructions(*do("echo", 1))
    assert boss.get_report()["status"] == "workers exception"
    assert boss.get_report(interim=False)["status"] == "workers exception"


def test_the_same_exception_does_not_grow():
    """Raised again and again, an exception does not gather tracebacks without end."""
    boss = working(*do("throw", ValueError("x")))
    lengths = []
    for _ in range(5):
        with pytest.raises(ValueError) as info:
            boss.wait_till_finished()
        lengths.append(len(info.traceback))
    assert lengths[-1] <= lengths[0] + 1


@pytest.mark.usefixtures("through_the_pipe")
def test_100_mib_of_instructions_meet_a_failure():
    """An error is raised by `set_instructions`, even in the middle of 100 MiB of instructions."""
    boss = working(*do("throw", ValueError("early")))
    with pytest.raises(ValueError, match="early"):
        for _ in range(3):
            boss.set_instructions(*do("echo", bytes(50 << 20), bytes(50 << 20)))
        boss.wait_till_finished()


def test_100_mib_of_instructions_after_the_listener_has_ended():
    """If the listener has already ended on an error, that error is raised at once."""
    boss = working(*do("throw", ValueError("early")))
    until(lambda: not boss._process.is_alive(), "the listener's end")
    with pytest.raises(ValueError, match="early"):
        boss.set_instructions(*do("echo", bytes(100 << 20)))


@pytest.mark.usefixtures("through_the_pipe")
def test_100_mib_of_instructions_meet_30_mib_of_exception():
    """Large things may meet on the way."""
    error = ValueError("heavy")
    error.ballast = bytes(30 << 20)
    boss = working(*do("throw", error))
    with pytest.raises(ValueError, match="heavy") as info:
        boss.set_instructions(*do("echo", bytes(100 << 20)))
        boss.wait_till_finished()
    assert len(info.value.ballast) == 30 << 20


def test_two_workers_of_one_name():
    """Two workers of one name are a ValueError that names it."""
    boss = working({"deed": "wait", "value": "/nowhere", "name": "twin"}, {"memory": [1, 2]})
    with pytest.raises(ValueError, match="twin") as info:
        boss.wait_till_finished()
    assert isinstance(info.value, taylorism.DuplicateName)


def test_no_adequate_worker():
    """No class for the instructions is an AttributeError with the instructions in its text."""
    boss = working({"nobody_does_this": "now"}, {"value": [31415]})
    with pytest.raises(AttributeError, match="no adequate Worker was found") as info:
        boss.wait_till_finished()
    assert "nobody_does_this" in str(info.value) and "31415" in str(info.value)


def test_value_that_the_class_refuses():
    """A value out of the allowed ones finds no worker, and does not harm the others."""
    boss = working({}, {"choosy": ["this", "neither"]}, scheduler=slots(1))
    with pytest.raises(AttributeError, match="neither"):
        boss.wait_till_finished()


def test_footprints_itself_throws():
    """What footprints throws while choosing a class is charged to that set of instructions."""
    boss = working({}, {"with_dict": [footprints.FPDict(a={"b": 1})], "name": ["guilty"]})
    with pytest.raises(Exception) as info:
        boss.wait_till_finished()
    assert "guilty" in str(info.value.__cause__)
    assert not isinstance(info.value, taylorism.BossDied)


def test_constructor_raises():
    """A constructor that raises is a failure of that set, and its exception comes whole."""
    boss = working({}, {"init_raises": ["in the constructor"], "name": ["guilty"]})
    with pytest.raises(workers.OddInit) as info:
        boss.wait_till_finished()
    assert (info.value.code, info.value.hint) == (6, "in the constructor")
    assert "guilty" in str(info.value.__cause__)


def test_constructor_exits():
    """A constructor that leaves the interpreter is a failure too, and not the listener's death."""
    boss = working({}, {"init_exits": [3], "name": ["guilty"]})
    with pytest.raises(BaseException) as info:
        boss.wait_till_finished()
    assert not isinstance(info.value, taylorism.BossDied)
    assert "guilty" in str(info.value.__cause__)


def test_prehook_and_hook_raise():
    """A prehook or a hook that raises is a failure of its worker."""
    boss = working({}, {"prehook_raises": ["in the prehook"]})
    with pytest.raises(LookupError, match="in the prehook"):
        boss.wait_till_finished()
    boss = working(*do("echo", 1, scheduler_hooks=[workers.failing_hook]), scheduler=Scheduler(all_of))
    with pytest.raises(LookupError, match="in the hook"):
        boss.wait_till_finished()


def all_of(pending: Any, running: Any, done: Any) -> Any:
    """Launch everything."""
    return pending, []


def test_task_not_implemented():
    """A class without a task is told so."""
    with pytest.raises(RuntimeError, match="_task"):
        reports(working({}, {"no_task": ["x"]}))


def test_work_that_starts_nothing():
    """A class whose work() starts no process is told so."""
    boss = working({}, {"blind": ["x"], "name": ["guilty"]})
    with pytest.raises(taylorism.TaylorismError, match="Blind"):
        boss.wait_till_finished()


# ---------------------------------------------------------------------------------------------------------
# schedulers that go wrong, or watch a clock
# ---------------------------------------------------------------------------------------------------------


def test_scheduler_raises(tmp_path):
    """An exception of a scheduler stops all and comes out; the sets are still there."""

    def decide(pending, running, done):
        if running:
            raise LookupError("in the scheduler")
        return pending[:1], pending[1:]

    boss = working(
        {"deed": "wait", "value": str(tmp_path)}, {"name": ["a", "b"]}, scheduler=Scheduler(decide)
    )
    with pytest.raises(LookupError, match="in the scheduler"):
        boss.wait_till_finished()
    report = boss.get_report()
    assert report["stopped"] == ["a"] and [p["name"] for p in report["pending"]] == ["b"]


def test_scheduler_exits():
    """A scheduler that leaves the interpreter is a failure, and not the listener's death."""
    boss = working(*do("echo", 1), scheduler=Scheduler(lambda *args: sys.exit(3)))
    with pytest.raises(BaseException) as info:
        boss.wait_till_finished()
    assert not isinstance(info.value, taylorism.BossDied)


@pytest.mark.parametrize(
    "answer",
    [
        lambda pending: None,
        lambda pending: 3,
        lambda pending: (pending,),
        lambda pending: (pending, [], []),
        lambda pending: ([1, 2], []),
        lambda pending: (pending[:1], []),
        lambda pending: (pending, pending),
        lambda pending: ([pending[0]], [pending[0]]),
        lambda pending: ("ab", ""),
        lambda pending: (pending, None),
        lambda pending: iter(()),
    ],
)
def test_scheduler_answers_nonsense(answer):
    """Nonsense, lost and doubled sets are a SchedulerError that names the class."""
    boss = working(*do("echo", 1, 2), scheduler=Scheduler(lambda pending, *rest: answer(pending)))
    with pytest.raises(taylorism.SchedulerError, match="Scheduler"):
        boss.wait_till_finished()


def test_scheduler_may_answer_with_other_sequences():
    """Tuples and generators of sets are as good as lists."""

    def decide(pending, running, done):
        return tuple(pending[:1]), (each for each in pending[1:])

    assert sorted(reports(working(*do("echo", 1, 2), scheduler=Scheduler(decide)))) == [1, 2]


def test_scheduler_may_play_with_what_it_is_given():
    """A scheduler that empties the lists and the dict that it was given harms nobody."""

    def decide(pending, running, done):
        launch = [pending.pop()] if not running else []
        answer = launch, list(pending)
        pending.clear(), running.clear(), done.clear()
        return answer

    assert sorted(reports(working(*do("echo", 1, 2, 3), scheduler=Scheduler(decide)))) == [1, 2, 3]


def test_scheduler_may_copy_the_sets():
    """A scheduler may answer with copies, changed as it likes."""

    def decide(pending, running, done):
        return [dict(each, value=each["value"] * 10) for each in pending], []

    assert sorted(reports(working(*do("echo", 1, 2), scheduler=Scheduler(decide)))) == [10, 20]


def test_scheduler_sees_workers_and_records(tmp_path):
    """A scheduler sees the running Worker objects by name, and the records of what is done."""
    log = tmp_path / "seen"

    def decide(pending, running, done):
        seen = {name: (type(w).__name__, w.memory) for name, w in running.items()}
        (tmp_path / "new").write_text(repr((seen, done)))
        (tmp_path / "new").rename(log)
        return (pending[:1], pending[1:]) if not running and len(done) < 2 else ([], pending)

    boss = working(
        {"deed": "echo"},
        {"value": [10, 20], "memory": [1.0, 2.0], "name": ["a", "b"]},
        scheduler=Scheduler(decide),
    )
    boss.set_instructions(*do("echo", 30, name="c"))
    until(lambda: done_so_far(boss) == 2, "the second")
    until(lambda: eval(log.read_text())[1] == [{"name": n, "report": r} for n, r in [("a", 10), ("b", 20)]])
    boss.stop_them_working()
    boss.wait_till_finished()


def test_scheduler_sees_that_one_runs(tmp_path):
    """While a worker runs, the scheduler is shown the object itself."""

    def decide(pending, running, done):
        if running:
            (tmp_path / "seen").write_text(repr([(n, w.name, w.memory) for n, w in running.items()]))
        return (pending[:1], pending[1:]) if not running else ([], pending)

    boss = working(
        {"deed": "wait", "value": str(tmp_path), "memory": 7.0},
        {"name": ["a", "b"]},
        scheduler=Scheduler(decide),
    )
    until(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").read_text())
    assert (tmp_path / "seen").read_text() == "[('a', 'a', 7.0)]"
    release(tmp_path)
    boss.wait_till_finished()


def test_scheduler_that_watches_a_clock(tmp_path):
    """A scheduler that holds work back is asked again at least every 0.1 s."""
    moments = tmp_path / "moments"

    def decide(pending, running, done):
        with moments.open("a") as file:
            file.write(f"{time.monotonic()}\n")
        asked = len(moments.read_text().split())
        return (pending, []) if asked >= 6 else ([], pending)

    assert reports(working(*do("echo", 1), scheduler=Scheduler(decide))) == [1]
    asked = [float(line) for line in moments.read_text().split()][1:]
    assert sorted(b - a for a, b in pairwise(asked))[len(asked) // 2 - 1] <= 0.1


def test_scheduler_that_prints_is_heard_once(capfd):
    """What a scheduler or a constructor prints in the listener is not printed again by every worker."""

    def decide(pending, running, done):
        print(f"asked about {len(pending)}")
        return (pending[:1], pending[1:]) if not running else ([], pending)

    boss = working({}, {"prints_when_made": [1, 2, 3]}, scheduler=Scheduler(decide))
    boss.wait_till_finished()
    lines = capfd.readouterr().out.splitlines()
    assert [lines.count(f"made {n}") for n in (1, 2, 3)] == [1, 1, 1]


def test_set_that_can_never_start():
    """A set that asks for more memory than there will ever be fails before anything waits."""
    scheduler = footprints.proxy.scheduler(limit="memory", max_memory=100.0)
    boss = working(*do("echo", 1, memory=1000.0, name="greedy"), scheduler=scheduler)
    with pytest.raises(taylorism.NeverStartable, match=r"greedy.*1000") as info:
        boss.wait_till_finished()
    assert isinstance(info.value, ValueError)


def test_stuck_scheduler_of_ours(monkeypatch):
    """A scheduler of ours that launches nothing although nothing runs is an error, not a hang."""
    scheduler = slots(1)
    monkeypatch.setattr(type(scheduler), "_all_tickets", lambda self: set())
    scheduler.__dict__["_attributes"]["max_threads"] = 0
    boss = working(*do("echo", 1), scheduler=scheduler)
    with pytest.raises(taylorism.SchedulerError, match="launches none"):
        boss.wait_till_finished()


def test_instructions_of_ten_thousand_sets():
    """Ten thousand sets are taken at once; those that were not run come back in order."""
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions(*do("echo", *range(10_000)))
    boss.make_them_work()
    until(lambda: done_so_far(boss) >= 20, "the first twenty")
    send(boss, "STOP")
    boss.wait_till_finished()
    report = boss.get_report()
    done = [record["report"] for record in report["workers_report"]]
    assert sorted(done) == list(range(len(done)))
    assert [p["value"] for p in report["pending"]] == list(range(len(done), 10_000))


def test_pending_set_that_does_not_load_in_main():
    """A pending set that main cannot load does not keep the report from being read."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("echo", workers.LoadsOnlyInTheListener(os.getpid()), name="odd"))
    boss.stop_them_working()
    boss.wait_till_finished()
    assert len(boss.get_report()["pending"]) == 1


# ---------------------------------------------------------------------------------------------------------
# verbose
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def log_file(tmp_path):
    """Return a file that the logger `taylorism` writes to at INFO."""
    logger = logging.getLogger("taylorism")
    handler, level = logging.FileHandler(tmp_path / "log"), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield tmp_path / "log"
    logger.setLevel(level)
    logger.removeHandler(handler)
    handler.close()


def test_verbose_logs_starts_and_reports(log_file):
    """With `verbose`, starts and reports are logged at INFO; reports are cut."""
    boss = working(*do("echo", "x" * 50, name="told"), verbose=True, maxlenreport=10)
    boss.wait_till_finished()
    lines = log_file.read_text().splitlines()
    assert "Worker told started." in lines
    assert "x" * 10 + " ..." in lines


def test_verbose_does_not_cut_short_reports(log_file):
    """A report of exactly the length is not cut."""
    reports(working(*do("echo", "y" * 10), verbose=True, maxlenreport=10))
    assert "y" * 10 in log_file.read_text().splitlines()


def test_not_verbose_logs_nothing(log_file):
    """Without `verbose` a good run logs nothing."""
    reports(working(*do("echo", "x")))
    assert log_file.read_text() == ""


def test_verbose_with_a_report_that_cannot_be_shown(log_file):
    """A report whose str() raises is still a report."""
    assert isinstance(reports(working(*do("return_no_text", None), verbose=True))[0], workers.NoText)


def test_handler_that_raises_stops_nothing():
    """A log handler of the user's that raises does not stop the work."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("in the handler")

    logger, handler = logging.getLogger("taylorism"), Broken()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        boss = working(*do("echo", 1, 2, 3), verbose=True)
        assert sorted(reports(boss)) == [1, 2, 3]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_failure_is_logged(log_file):
    """A failure is logged with the worker's name."""
    boss = working(*do("throw", ValueError("x"), name="guilty"))
    with pytest.raises(ValueError):
        boss.wait_till_finished()
    assert "guilty" in log_file.read_text()


@pytest.mark.parametrize("stream", ["closed", "none", "raising"])
def test_standard_error_of_main_does_not_hide_the_exception(stream, monkeypatch):
    """The worker's exception comes out also where main has no standard error to tell of it."""

    class Raising:
        def write(self, text):
            raise OSError("no room")

        writelines = flush = write

    closed = open(os.devnull, "w")
    closed.close()
    monkeypatch.setattr(sys, "stderr", {"closed": closed, "none": None, "raising": Raising()}[stream])
    boss = working(*do("throw", KeyError("real")))
    with pytest.raises(KeyError, match="real"):
        boss.wait_till_finished()


# ---------------------------------------------------------------------------------------------------------
# lives of a Boss
# ---------------------------------------------------------------------------------------------------------


def test_fifty_bosses_one_after_another():
    """Fifty Bosses one after another leave nothing."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        assert reports(working(*do("echo", number))) == [number]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_bosses_at_once(tmp_path):
    """Two Bosses work at the same time; one may end before the other."""
    first = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    second = working(*do("echo", 2))
    assert reports(second) == [2]
    third = working(*do("throw", ValueError("third")))
    with pytest.raises(ValueError):
        third.wait_till_finished()
    release(tmp_path)
    assert reports(first) == ["a"]


def test_boss_in_a_thread():
    """A Boss may be made, used and ended in a thread that then ends."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(reports(working(*do("echo", 1)))))
    thread.start()
    thread.join()
    assert found == [1]


def test_boss_outlives_the_thread_that_made_it(tmp_path):
    """The end of the thread that made a Boss does not end its work."""
    made: list[taylorism.Boss] = []
    thread = threading.Thread(target=lambda: made.append(working(*do("wait", str(tmp_path), name="a"))))
    thread.start()
    thread.join()
    started(tmp_path)
    release(tmp_path)
    assert reports(made[0]) == ["a"]


def test_eight_threads_with_a_boss_each():
    """Bosses made by threads at the same time do not harm each other."""
    found: list[Any] = []

    def run(number: int) -> None:
        found.append(sorted(reports(working(*do("echo", number, number + 100)))) == [number, number + 100])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_many_threads_wait_for_one_boss(tmp_path):
    """Any number of threads may wait for one Boss, and all are told."""
    boss = working(*do("wait", str(tmp_path)))
    started(tmp_path)
    told: list[Any] = []

    def listen() -> None:
        try:
            boss.wait_till_finished()
            told.append(boss.get_report()["status"])
        except BaseException as error:
            told.append(error)

    threads = [threading.Thread(target=listen) for _ in range(8)]
    for thread in threads:
        thread.start()
    release(tmp_path)
    for thread in threads:
        thread.join()
    assert told == ["finished"] * 8


def test_orders_from_many_threads():
    """Instructions from several threads all arrive, large ones too."""
    boss = taylorism.Boss(scheduler=slots(4))
    boss.make_them_work()

    def order(number: int) -> None:
        for _ in range(5):
            boss.set_instructions({"deed": "echo", "ballast": bytes(300_000)}, {"value": [number]})

    threads = [threading.Thread(target=order, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reports(boss)) == sorted([0, 1, 2, 3] * 5)


def test_timer_stops_a_waiting_main(tmp_path):
    """A `threading.Timer` may stop the work while main waits."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    timer = threading.Timer(0.05, boss.stop_them_working)
    timer.start()
    boss.wait_till_finished()
    timer.join()
    assert boss.get_report()["stopped"] == ["a"]


def test_alarm_handler_stops_a_waiting_main(tmp_path):
    """A signal handler may stop the work, and ask for a report, while main waits."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    seen: list[Any] = []

    def handler(signum, frame):
        seen.append(boss.get_report()["status"])
        boss.stop_them_working()
        boss.end()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        boss.wait_till_finished()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == ["interim"] and boss.get_report()["stopped"] == ["a"]


def test_handler_that_waits_inside_a_wait(tmp_path):
    """A handler may even wait till finished while main does."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)

    def handler(signum, frame):
        boss.stop_them_working()
        boss.wait_till_finished()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        boss.wait_till_finished()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert boss.get_report()["stopped"] == ["a"]


def test_handler_that_raises_out_of_a_wait(tmp_path):
    """After an exception of a handler came out of the wait, the Boss can be used as before."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)

    def handler(signum, frame):
        raise TimeoutError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(TimeoutError):
                boss.wait_till_finished()
    finally:
        signal.signal(signal.SIGALRM, before)
    release(tmp_path)
    assert reports(boss) == ["a"]


def test_handlers_that_raise_at_any_moment(tmp_path):
    """Exceptions of a handler that come at any moment lose no report and spoil no message."""
    boss = taylorism.Boss(scheduler=slots(2))
    boss.make_them_work()
    for number in range(40):
        boss.set_instructions(*do("big_bytes_of", number))

    def handler(signum, frame):
        raise TimeoutError("enough")

    interrupted = 0
    before = signal.signal(signal.SIGALRM, handler)
    try:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0007)
                boss.wait_till_finished()
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except TimeoutError:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = [record["report"] for record in boss.get_report()["workers_report"]]
    assert interrupted and len(found) == 40
    assert sorted((data[0], len(data), data[-1]) for data in found) == [
        (number, 300_001, number) for number in range(40)
    ]


@workers.deed
def big_bytes_of(value: int, worker: Any) -> bytes:
    """Return many bytes of one kind."""
    return bytes([value]) * 300_001


def test_ctrl_c_caught_then_stop_wait_report(tmp_path):
    """After a Ctrl-C of main alone, caught by the caller, stop, wait and report still work."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        boss.wait_till_finished()
    timer.join()
    boss.stop_them_working()
    boss.wait_till_finished()
    assert boss.get_report()["stopped"] == ["a"]


def test_who_died_of_a_ctrl_c_is_stopped_though_its_program_goes_on(tmp_path):
    """Main says stop after the death of the worker and before that of its program: no failure was first."""
    boss = working(*do("leave_a_deaf_program", str(tmp_path), name="a"), on_error="collect", stop_grace=0.2)
    program, worker = workers.pid_in(tmp_path / "program.pid"), workers.pid_in(tmp_path / "a.pid")
    for pid in (boss._process.pid, worker):
        os.kill(pid, signal.SIGINT)
    until(lambda: not Path(f"/proc/{worker}").exists(), "its end")
    assert alive(program)
    boss.stop_them_working()
    boss.wait_till_finished()
    assert (boss.get_report()["stopped"], boss.errors) == (["a"], {})


def test_forgotten_boss_leaves_nothing(tmp_path):
    """A Boss that is dropped while it works takes its processes with it."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    pids = [boss._process.pid, workers.pid_in(tmp_path / "a.pid")]
    gone = weakref.ref(boss)
    del boss
    gc.collect()
    assert gone() is None
    until(lambda: not any(alive(pid) for pid in pids), "their end")
    assert (tmp_path / "a.cleaned").exists()
    cleared_away(pids[0])


def test_new_forgotten_boss_leaves_nothing():
    """A Boss that is dropped before it did anything leaves nothing."""
    boss = taylorism.Boss()
    pid = boss._process.pid
    del boss
    cleared_away(pid)


@pytest.mark.parametrize("way", ["get_report", "set_instructions"])
def test_failed_boss_that_raised_leaves_nothing(way):
    """A Boss whose error came out of `get_report` or `set_instructions`, and that is dropped, leaves nothing."""
    boss = working(*do("throw", ValueError("x")))
    pid = boss._process.pid

    def attempt(boss: taylorism.Boss) -> None:
        until(lambda: boss.get_report() and False if way == "get_report" else boss.set_instructions())

    try:
        attempt(boss)
    except ValueError:
        pass
    del boss
    gc.collect()
    cleared_away(pid)


@pytest.mark.parametrize("outcome", ["failure", "success", "stop", "unsent"])
def test_used_boss_is_collected(outcome):
    """Whatever its outcome, a Boss that is dropped is freed, with all that its frames and buffers held."""
    boss = working(*do("throw" if outcome in ("failure", "unsent") else "echo", ValueError("x")))
    if outcome == "stop":
        boss.stop_them_working()
    try:
        if outcome == "unsent":
            boss.set_instructions(*do("echo", bytes(50 << 20)))
        boss.wait_till_finished()
    except ValueError:
        pass
    gone = weakref.ref(boss), weakref.ref(boss._link)
    del boss
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_failed_forgotten_boss_leaves_nothing():
    """A Boss that failed and was dropped unheard leaves nothing."""
    boss = working(*do("throw", ValueError("x")))
    pid = boss._process.pid
    until(lambda: not alive(pid), "the listener's end")
    del boss
    cleared_away(pid)


def test_forgotten_boss_in_a_cycle(tmp_path):
    """The garbage collector may end a Boss at any time, also inside another Boss's work."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    boss.myself = boss
    pid = boss._process.pid
    del boss
    other = working(*do("echo", *range(5)))
    gc.collect()
    assert sorted(reports(other)) == list(range(5))
    cleared_away(pid)


def test_forgotten_boss_with_end_finishes_its_work(tmp_path):
    """A Boss that is forgotten after `end` finishes what was ordered, and is then cleared away."""
    boss = working(*do("touch", *(str(tmp_path / str(n)) for n in range(4))))
    boss.end()
    pid = boss._process.pid
    del boss
    until(lambda: len(os.listdir(tmp_path)) == 4, "the work")
    until(lambda: not alive(pid), "the listener's end")
    reports(working(*do("echo", 1)))  # another Boss sweeps
    assert not psutil.pid_exists(pid), "the listener of a forgotten Boss was not reaped"


def test_a_copy_of_a_boss_in_a_fork_does_nothing(tmp_path):
    """In a fork of main, a copy of a Boss says so, and its end does nothing to the work."""
    boss = working(*do("wait", str(tmp_path), name="a"))
    started(tmp_path)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"nothing"
        try:
            boss.get_report()
        except taylorism.TaylorismError as error:
            said = str(error).encode()
        finally:
            del boss
            gc.collect()
            os.write(writer, said)
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert "fork" in file.read()
    assert boss._process.is_alive()
    release(tmp_path)
    assert reports(boss) == ["a"]


def test_boss_in_a_child_of_multiprocessing(tmp_path):
    """A Boss works in a `multiprocessing.Process`, daemonic or not."""
    import multiprocessing

    context = multiprocessing.get_context("fork")

    def run(place: Path) -> None:
        place.write_text(repr(sorted(reports(working(*do("echo", 1, 2))))))

    for daemon in (False, True):
        place = tmp_path / str(daemon)
        child = context.Process(target=run, args=(place,), daemon=daemon)
        child.start()
        child.join()
        assert child.exitcode == 0 and place.read_text() == "[1, 2]"
        child.close()


def test_boss_left_to_the_exit_of_a_child_of_multiprocessing(tmp_path):
    """The end of a multiprocessing child finishes a Boss that was ended, and stops one that was not."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    kept = []

    def run(place: Path, end: bool) -> None:
        boss = working(*do("touch", *(str(place / str(n)) for n in range(4))))
        (place / "listener").write_text(f"{boss._process.pid}\n")
        kept.append(boss)
        if end:
            boss.end()

    for end in (True, False):
        place = tmp_path / str(end)
        place.mkdir()
        child = context.Process(target=run, args=(place, end))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert not alive(workers.pid_in(place / "listener"))
        assert not end or len(os.listdir(place)) == 5
        child.close()


def test_nested_bosses():
    """A task may have a Boss of its own."""
    assert reports(working(*do("nested", 3))) == [[0, 1, 2]]


def test_nested_boss_left_to_the_exit_of_the_worker(tmp_path):
    """The work of an inner Boss that was ended is done before its worker leaves."""
    assert reports(working(*do("nested_left_to_exit", str(tmp_path)))) == ["left a Boss"]
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_stop_reaches_inner_bosses(tmp_path):
    """Stopping a Boss stops the Bosses inside its workers and their workers."""
    boss = working(*do("nested_waiting", str(tmp_path)))
    pids = [workers.pid_in(path) for path in started(tmp_path, 2)]
    boss.stop_them_working()
    boss.wait_till_finished()
    assert not any(alive(pid) for pid in pids)


def test_boss_cannot_be_made_when_fork_is_refused(monkeypatch):
    """If the system refuses a process, Boss() raises its error and leaves nothing."""

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError):
        taylorism.Boss()


@pytest.mark.usefixtures("through_the_pipe")
def test_exception_in_the_middle_of_an_order_does_no_harm():
    """A handler that raises while 100 MiB are being sent leaves a Boss that can be used."""
    boss = taylorism.Boss(scheduler=slots(1))
    os.kill(boss._process.pid, signal.SIGSTOP)

    def handler(signum, frame):
        raise TimeoutError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TimeoutError):
            boss.set_instructions({"deed": "length"}, {"value": [bytes(20 << 20)]})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.kill(boss._process.pid, signal.SIGCONT)
    boss.set_instructions({"deed": "length"}, {"value": [bytes(10)]})
    assert reports(boss) in ([10], [20 << 20, 10])


@workers.deed
def length(value: Any, worker: Any) -> int:
    """Return how long the value is."""
    return len(value)
