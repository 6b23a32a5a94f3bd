"""Batches of short workers: all that may happen to one of them, to its process, and to what is behind it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import footprints
import pytest
import workers
from workers import Scheduler, deed, do, pid_in, reports, slots, until, working

import taylorism
from taylorism import _arrivals, _batches, _channel, _crew, _hands, _listener
from taylorism._channel import Frame
from taylorism._messages import Done
from taylorism.schedulers import NewMaxThreadsScheduler


@deed
def timed(value: float, worker: Any) -> tuple[int, float, float]:
    """Take so many seconds, and tell when that was, and where."""
    began = time.time()
    time.sleep(value)
    return os.getpid(), began, time.time()


@deed
def gated(value: Any, worker: Any) -> str:
    """Wait in the directory that is given, if one is; else do nothing."""
    return workers.DEEDS["wait"](value, worker) if value else str(worker.name)


@deed
def sort_of(value: Any, worker: Any) -> Any:
    """Do another deed with its value, or tell of our process."""
    return os.getpid() if value is None else workers.DEEDS[value[0]](value[1], worker)


@pytest.fixture(autouse=True)
def large_batches(monkeypatch):
    """Have batches as large as there may be, however slow the machine is."""
    monkeypatch.setattr(_batches, "AMOUNT", 10.0)


def reusing(*order: Any, number: int = 1, **options: Any) -> taylorism.Boss:
    """Return a Boss at work on one order, with processes that run any number."""
    options = {"max_tasks_per_child": None, "scheduler": slots(number), **options}
    return working(*order, **options)


def behind_one_that_waits(place: Path, count: int = 20, **options: Any) -> taylorism.Boss:
    """Return a Boss one of whose workers waits in a batch, with others before it and behind it.

    Names are n0, n1, ...; the third one waits.
    """
    common, individual = do("gated", *[str(place) if i == 3 else None for i in range(count)])
    boss = reusing(common, individual | {"name": [f"n{i}" for i in range(count)]}, **options)
    pid_in(place / "n3.pid")
    return boss


def names_of(boss: taylorism.Boss) -> list[str]:
    """Wait, and return the names of those that are done, in order of completion."""
    boss.wait_till_finished()
    return [record["name"] for record in boss.get_report()["workers_report"]]


# ---------------------------------------------------------------------------------------------------------
# who travels, and with whom
# ---------------------------------------------------------------------------------------------------------


def test_order_is_kept_and_all_is_reported():
    """Each set is done once, in order where there is one slot."""
    boss = reusing(*do("echo", *range(500)))
    assert reports(boss) == list(range(500))
    report = boss.get_report()
    assert report["status"] == "finished" and len(report["workers_info"]) == 500
    assert {info["status"] for info in report["workers_info"].values()} == {"done"}
    assert len({info["pid"] for info in report["workers_info"].values()}) == 1
    assert all(info["started"] <= info["ended"] for info in report["workers_info"].values())


def test_what_is_added_is_done():
    """Orders that come while batches run, each with its own common part, are done too."""
    boss = reusing(*do("echo", *range(100)), number=2)
    for i in range(1, 6):
        boss.set_instructions(*do("echo", *range(100 * i, 100 * i + 100), extra=i))
    assert sorted(reports(boss)) == list(range(600))


def test_a_name_that_cannot_be_hashed_is_what_footprints_makes_of_it():
    """It makes a string of it, when the Worker is made; until then the set is known by its number."""
    common, individual = do("echo", *range(60))
    odd = [["a", "list"] if i == 30 else f"n{i}" for i in range(60)]
    assert names_of(reusing(common, individual | {"name": odd}))[29:32] == ["n29", "['a', 'list']", "n31"]


class Devices(NewMaxThreadsScheduler):
    """Gives each set a hook and an attribute of its own."""

    _footprint = dict(attr=dict(devices_test=dict(values=[True], type=bool)))

    def _assign_tickets(self, workers: Any, launchable: Any) -> Any:
        for each in super()._assign_tickets(workers, launchable):
            each["scheduler_hooks"] = footprints.FPList([Note(each["value"])])
            each["memory"] = float(each["value"])
        return launchable


class Note:
    """A hook that notes a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, worker: Any) -> None:
        worker.noted = self.number


@deed
def marks(value: Any, worker: Any) -> tuple[int, int]:
    """Tell what the scheduler has given."""
    return worker.noted, int(worker.memory)


def test_no_set_runs_with_the_marks_of_another():
    """Where a scheduler of the user's, derived from one of ours, marks each in its own way."""
    scheduler = Devices(limit="threads", max_threads=1, devices_test=True)
    assert reports(reusing(*do("marks", *range(40)), scheduler=scheduler)) == [(i, i) for i in range(40)]


def test_a_name_made_of_attributes_is_not_known_before_its_worker(tmp_path):
    """A running one goes by its number until then, as one without a name; its template means nobody."""
    common, individual = do("gated", *[str(tmp_path) if i == 3 else None for i in range(20)])
    boss = reusing(common | {"name": "n-[memory]"}, individual | {"memory": [float(i) for i in range(20)]})
    pid_in(tmp_path / "n-3.0.pid")
    until(lambda: boss.status().running, "the news")
    assert boss.status().running == (3,)
    with pytest.raises(taylorism.UnknownWorker):
        boss.cancel("n-[memory]")
    (tmp_path / "release").touch()
    assert names_of(boss) == [f"n-{float(i)}" for i in range(20)]


def test_no_one_waits_behind_a_long_one(tmp_path):
    """While one is long, others that were given to its process are done by another."""
    common, individual = do("gated", *[str(tmp_path) if i == 5 else None for i in range(200)])
    boss = reusing(common, individual | {"name": [f"n{i}" for i in range(200)]}, number=2)
    until(lambda: workers.done_so_far(boss) == 199, "all others")
    assert boss.status().running == ("n5",)
    (tmp_path / "release").touch()
    assert names_of(boss)[-1] == "n5"


def test_all_that_runs_at_a_time_is_what_the_scheduler_allows():
    """A batch takes one slot."""
    found = reports(reusing(*do("timed", *[0.001] * 120), number=2))
    starts = [(began, 1) for _, began, _ in found] + [(ended, -1) for _, _, ended in found]
    running = highest = 0
    for _, change in sorted(starts):
        running += change
        highest = max(highest, running)
    assert highest == 2 and len({pid for pid, _, _ in found}) == 2


@pytest.mark.parametrize("limit", ["threads+memory", "memory", "single"])
def test_schedulers_that_count_are_asked_for_each(limit):
    """Memory, and values that one may hold, are respected with reuse."""
    keys = {
        "threads+memory": {"limit": "threads+memory", "max_threads": 4, "max_memory": 100.0},
        "memory": {"limit": "memory", "max_memory": 100.0, "memory_per_task": 1.0},
        "single": {"limit": "threads", "max_threads": 4, "singlefile": True},
    }[limit]
    scheduler = footprints.proxy.scheduler(**keys)
    common, individual = do("timed", *[0.001] * 30, memory=70.0, fileA="the one")
    found = sorted(each[1:] for each in reports(reusing(common, individual, scheduler=scheduler)))
    assert all(before[1] <= after[0] for before, after in pairwise(found))


def test_scheduler_of_the_users_sees_workers_and_records():
    """It decides on each, sees Worker objects with their attributes and what is done, and may change sets."""

    def decide(pending: Any, running: Any, report: Any) -> Any:
        assert all(isinstance(each, taylorism.Worker) and each.memory == 3 for each in running.values())
        assert [record["report"] for record in report] == [f"changed {i}" for i in range(len(report))]
        launch = [{**each, "value": f"changed {each['value']}"} for each in pending[: 1 - len(running)]]
        return launch, pending[len(launch) :]

    boss = reusing(*do("echo", *range(30), memory=3), scheduler=Scheduler(decide))
    assert reports(boss) == [f"changed {i}" for i in range(30)]


def test_hooks_of_a_queue_that_cannot_be_sent():
    """Lambda functions as hooks of a scheduler with a queue cost a process for each Worker, and work."""
    scheduler = footprints.proxy.scheduler(lambda_hooks="yes", limit="threads", max_threads=1)
    assert type(scheduler) is LambdaHooks
    assert reports(reusing(*do("variable", *["HOOKED"] * 6), scheduler=scheduler)) == ["yes"] * 6


class LambdaHooks(NewMaxThreadsScheduler):
    """Its hook cannot be pickled."""

    _footprint = dict(attr=dict(lambda_hooks=dict()), priority=dict(level=footprints.priorities.top.TOOLBOX))

    def _workers_hooks(self) -> Any:
        return footprints.FPList([lambda worker: os.environ.update(HOOKED="yes")])


@deed
def variable(value: str, worker: Any) -> str | None:
    """Tell the value of a variable of the environment."""
    return os.environ.get(value)


def test_bound_workers():
    """With binded=True each is bound to the cpu of its ticket, which is that of its process's slot."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=1, binded=True)
    common, individual = do("bound_to", *range(40))
    found = reports(reusing(common, individual, scheduler=scheduler))
    assert len(found) == 40 and len(set(found)) == 1 and found[0][0] == 0 and len(found[0][1]) == 1


@deed
def bound_to(value: Any, worker: Any) -> tuple[int, tuple[int, ...]]:
    """Tell our ticket and our cpus."""
    return worker.scheduler_ticket, tuple(os.sched_getaffinity(0))


def test_worker_with_a_work_of_its_own_in_a_batch():
    """Who says himself how he is set to work is hired by the listener, in whatever batch it came."""
    boss = working(*do("echo", *range(5)), max_tasks_per_child=None, scheduler=slots(1))
    boss.set_instructions({}, {"works_so": [1, 2]})
    boss.set_instructions(*do("echo", *range(5, 9)))
    found = reports(boss)
    assert sorted(map(str, found)) == sorted(map(str, [*range(9), "so", "so"]))


class WorksSo(taylorism.Worker):
    """Notes that its `work` was called, which is in the listener."""

    _footprint = dict(attr=dict(works_so=dict(type=int)))
    how = "not called"

    def work(self) -> None:
        """Start the process, as ever."""
        self.how = "so"
        super().work()

    def _task(self, **kwargs: Any) -> str:
        return self.how


# ---------------------------------------------------------------------------------------------------------
# names
# ---------------------------------------------------------------------------------------------------------


def test_same_name_one_after_the_other():
    """Names may be used again by those that do not run at the same time."""
    common, individual = do("echo", *range(50))
    boss = reusing(common, individual | {"name": ["a", "b"] * 25})
    assert reports(boss) == list(range(50)) and len(boss.get_report()["workers_info"]) == 50


def test_same_name_at_the_same_time():
    """Two workers of one name at the same time are a ValueError, as without reuse."""
    boss = reusing(*do("echo", *range(6), name="one"), number=2)
    with pytest.raises(ValueError, match="one"):
        boss.wait_till_finished()


def test_default_name_of_a_class():
    """A class that names all its workers alike cannot have two at a time."""
    boss = reusing({}, {"always_named": list(range(6))}, number=2)
    with pytest.raises(ValueError, match="fixed"):
        boss.wait_till_finished()


class AlwaysNamed(taylorism.Worker):
    """Its workers have one name."""

    _footprint = dict(attr=dict(always_named=dict(type=int), name=dict(optional=True, default="fixed")))

    def _task(self, **kwargs: Any) -> None:
        pass


def test_nameless_failure_has_one_name():
    """Who fails without having been given a name is the same in errors and in workers_info."""
    boss = reusing(*do("sort_of", None, None, ("throw", ValueError(1)), None), on_error="collect")
    boss.wait_till_finished()
    report = boss.get_report()
    (name,) = report["errors"]
    assert report["workers_info"][name]["status"] == "failed" and not name.startswith("#")


# ---------------------------------------------------------------------------------------------------------
# failures
# ---------------------------------------------------------------------------------------------------------

ENDS: list[Any] = [
    ("throw", ValueError("x")), ("os_exit", 3), ("die_by", signal.SIGKILL), ("return_unpicklable", "lock"),
    ("report_not_loadable", None), ("throw_odd", "memory"), ("close_everything", None), ("sys_exit", "no"),
]  # fmt: skip


@pytest.mark.parametrize("policy", ["collect", "finish"])
def test_failures_among_many(policy):
    """Each failure costs itself alone, wherever in a batch it is."""
    values = [ENDS[(i // 7) % len(ENDS)] if i % 7 == 4 else None for i in range(120)]
    common, individual = do("sort_of", *values)
    boss = reusing(common, individual | {"name": [f"n{i}" for i in range(120)]}, number=2, on_error=policy)
    with pytest.raises(taylorism.WorkersFailed) if policy == "finish" else nullcontext():
        boss.wait_till_finished()
    report = boss.get_report()
    guilty = {f"n{i}" for i in range(4, 120, 7)}
    assert set(report["errors"]) == guilty
    assert {each["name"] for each in report["workers_done"]} == {f"n{i}" for i in range(120)} - guilty
    assert {info["trials"] for info in report["workers_info"].values()} == {1}


@pytest.mark.parametrize("end", [("throw", ValueError("x")), ("os_exit", 3)])
def test_first_failure_stops_everything(end):
    """What was not begun then is pending, what was done stays."""
    boss = reusing(*do("sort_of", *[None] * 20, end, *[None] * 20))
    with pytest.raises((ValueError, taylorism.WorkerDied)):
        boss.wait_till_finished()
    report = boss.get_report()
    assert len(report["workers_done"]) == 20 and len(report["pending"]) == 20 and report["stopped"] == []


def test_trials_in_batches(tmp_path):
    """What fails is tried again by itself; the others are tried once."""
    boss = reusing(*do("sort_of", *[None] * 5, ("fail_till", (tmp_path / "t", 3)), *[None] * 5), max_trials=3)
    assert len(reports(boss)) == 11
    trials = [info["trials"] for info in boss.get_report()["workers_info"].values()]
    assert sorted(trials) == [1] * 10 + [3]
    assert len(set((tmp_path / "t").read_text().split())) == 1


def test_killed_from_outside_in_a_batch(tmp_path):
    """The one that the process was at is charged, and what was behind it is done."""
    boss = behind_one_that_waits(tmp_path, on_error="collect")
    os.kill(pid_in(tmp_path / "n3.pid"), signal.SIGKILL)
    assert names_of(boss) == [f"n{i}" for i in range(20) if i != 3]
    report = boss.get_report()
    assert isinstance(report["errors"]["n3"], taylorism.WorkerDied) and "SIGKILL" in str(report["errors"]["n3"])
    assert report["workers_info"]["n3"]["exitcode"] == -9


def test_last_report_and_death_come_together(monkeypatch):
    """Where the death of a process tells of its last report, the scheduler is asked for the next."""
    monkeypatch.setattr(_batches.Batches, "ready", lambda self: set())  # never heard but when they die
    monkeypatch.setattr(_batches, "SILENCE", 60.0)
    monkeypatch.setattr(_batches.Batches, "_size", lambda self: 100)
    assert reports(reusing(*do("echo", *range(20)), max_tasks_per_child=4)) == list(range(20))


def test_process_that_has_closed_its_pipe(tmp_path):
    """It is waited for, without the listener going round all the time, and charged when it ends."""
    boss = reusing(*do("sort_of", None, None, None, ("close_and_wait", str(tmp_path)), None), on_error="collect")
    pid_in(tmp_path / "closed.pid")
    until(lambda: workers.done_so_far(boss) == 3)
    before = _cpu_of(boss._process.pid)
    time.sleep(0.1)
    assert _cpu_of(boss._process.pid) - before < 0.06
    (tmp_path / "release").touch()
    assert len(names_of(boss)) == 4
    assert [type(each) for each in boss.get_report()["errors"].values()] == [taylorism.WorkerDied]


def _cpu_of(pid: int) -> float:
    import psutil

    return sum(psutil.Process(pid).cpu_times()[:2])


@deed
def close_and_wait(value: str, worker: Any) -> None:
    """Close all descriptors, and wait."""
    os.closerange(3, 1000)
    workers.write_pid(Path(value) / "closed.pid")
    workers._wait_for(Path(value) / "release")


# ---------------------------------------------------------------------------------------------------------
# orders
# ---------------------------------------------------------------------------------------------------------


def test_cancel_what_is_behind(tmp_path):
    """What a process was given and has not begun is cancelled without harm to what it is at."""
    boss = behind_one_that_waits(tmp_path)
    assert boss.cancel("n5", "n7", 9) == ["n5", "n7", 9]
    (tmp_path / "release").touch()
    assert names_of(boss) == [f"n{i}" for i in range(20) if i not in (5, 7, 9)]
    assert boss.get_report()["status"] == "finished"


def test_cancel_the_one_that_runs(tmp_path):
    """It is stopped, with its clean-up, and its process is replaced."""
    boss = behind_one_that_waits(tmp_path)
    assert boss.cancel("n3", "n0") == ["n3"]
    assert (tmp_path / "n3.cleaned").exists()
    assert names_of(boss) == [f"n{i}" for i in range(20) if i != 3]


def test_cancel_of_one_that_is_just_done(monkeypatch):
    """Whatever is cancelled while it reports is either done or cancelled."""
    boss = reusing(*do("echo", *range(400)), number=2)
    cancelled = [each for i in range(0, 400, 20) for each in boss.cancel(i, i + 1)]
    done = reports(boss)
    assert len(done) == len(set(done)) and sorted([*done, *cancelled]) == list(range(400))


def go_on_when_taken_back(monkeypatch, place: Path) -> None:
    """Have the one that waits in `place` end, and the next that waits begin, just when the listener takes back."""
    original = _hands.Hand.take_back

    def late(hand: _hands.Hand) -> int:
        (place / "first" / "release").touch()
        pid_in(place / "second" / "n6.pid")
        return original(hand)

    monkeypatch.setattr(_hands.Hand, "take_back", late)


@pytest.mark.parametrize("order", ["cancel", "halt"])
def test_what_a_process_does_while_it_is_taken_back_is_not_lost(order, monkeypatch, tmp_path):
    """A process may have done with several, and be at another, before what it has not begun is taken back."""
    monkeypatch.setattr(_batches, "SILENCE", 60.0)
    go_on_when_taken_back(monkeypatch, tmp_path)
    waiting = {3: tmp_path / "first", 6: tmp_path / "second"}
    [place.mkdir() for place in waiting.values()]
    common, individual = do("gated", *[str(waiting[i]) if i in waiting else None for i in range(20)])
    boss = reusing(common, individual | {"name": [f"n{i}" for i in range(20)]})
    pid_in(tmp_path / "first" / "n3.pid")
    if order == "halt":
        boss.halt()
    assert boss.cancel("n3") == []
    (tmp_path / "second" / "release").touch()
    boss.make_them_work()
    assert names_of(boss) == [f"n{i}" for i in range(20)]


def test_halt_and_resume(tmp_path):
    """Under a halt the one that runs ends, and nothing is begun; then all goes on."""
    boss = behind_one_that_waits(tmp_path)
    boss.control_messenger_out.send(boss.control_signals["HALT"])
    boss.cancel("n0")  # the listener has obeyed when it answers
    (tmp_path / "release").touch()
    until(lambda: workers.done_so_far(boss) == 4)
    assert len(boss.status().pending) == 16
    time.sleep(0.05)
    assert workers.done_so_far(boss) == 4
    boss.make_them_work()
    assert names_of(boss) == [f"n{i}" for i in range(20)]


@pytest.mark.parametrize("how", ["STOP", "STOP_RIGHTNOW"])
def test_stop(how, tmp_path):
    """What runs ends, or is stopped; what is behind it never ran."""
    boss = behind_one_that_waits(tmp_path)
    boss.control_messenger_out.send(boss.control_signals[how])
    if how == "STOP":
        boss.cancel("n0")
        (tmp_path / "release").touch()
    done = names_of(boss)
    report = boss.get_report()
    assert done == [f"n{i}" for i in range(4 if how == "STOP" else 3)]
    assert report["status"] == "pending"
    assert [each["name"] for each in report["pending"]] == [f"n{i}" for i in range(4, 20)]
    assert report["stopped"] == ([] if how == "STOP" else ["n3"])
    assert (tmp_path / "n3.cleaned").exists()


def test_stop_listening(tmp_path):
    """The report is made at once, and what runs finishes unheard; nothing more is begun."""
    boss = behind_one_that_waits(tmp_path)
    boss.make_them_work(stop_listening=True)
    until(lambda: boss.get_report()["status"] != "interim")
    (tmp_path / "release").touch()
    assert names_of(boss) == ["n0", "n1", "n2"]
    until((tmp_path / "n3.done").exists)
    assert len(boss.get_report()["pending"]) == 16
    until(lambda: not workers.alive(boss._process.pid))


def test_end_and_terminate():
    """After `end` nothing is taken, and all that was ordered is done."""
    boss = reusing(*do("echo", *range(100)))
    boss.end()
    boss.set_instructions(*do("echo", 1000))
    assert reports(boss) == list(range(100))


def test_interim_reports_grow():
    """`get_report` tells what is done so far, without waiting."""
    boss = reusing(*do("nap", *range(12)))
    until(lambda: 0 < workers.done_so_far(boss) < 12)
    assert boss.get_report()["status"] == "interim"
    assert reports(boss) == list(range(12))


def test_as_completed():
    """Records come as they are done."""
    boss = reusing(*do("echo", *range(100)), number=2)
    boss.end()
    assert sorted(record["report"] for record in boss.as_completed()) == list(range(100))
    boss.wait_till_finished()


def test_what_comes_from_one_that_was_just_taken_out():
    """A record is read as the notice of one; a number that was declined is none."""
    record = _channel.pack_record(7, "seven", b"report", 1.0, 2.0)
    ready = {0: Frame(6), 1: Frame([7], (record,)), 2: Frame([8], (b"",))}
    notice = _crew._first(ready)
    assert notice is not None and list(ready) == [2]
    assert notice.head == Done(True, "seven", 1.0, 2.0, None, None, 0)
    assert [bytes(each) for each in notice.segments] == [b"report"]
    assert _crew._first({0: Frame(6)}) is None


# ---------------------------------------------------------------------------------------------------------
# orders that are taken in while the first of them run
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_at_once(monkeypatch):
    """Have three sets taken in at each turn."""
    monkeypatch.setattr(_listener, "AT_ONCE", 3)


def test_a_long_order_is_done_in_order(few_at_once):
    """Whatever the number of turns that it takes, and with what follows it."""
    boss = reusing(*do("echo", *range(100)))
    boss.set_instructions(*do("echo", *range(100, 150)))
    assert reports(boss) == list(range(150)) and boss.get_report()["status"] == "finished"


def test_the_first_may_run_before_the_last_is_taken_in(monkeypatch, tmp_path):
    """A long order is begun at once."""
    monkeypatch.setattr(_listener, "AT_ONCE", 1)
    unpacked = _arrivals._unpacked

    def slowly(*args: Any) -> Any:
        for number, each in enumerate(unpacked(*args)):
            if number == 2:
                workers.until((tmp_path / "n0.pid").exists, "the first runs")
            yield each

    monkeypatch.setattr(_arrivals, "_unpacked", slowly)
    (tmp_path / "release").touch()
    common, individual = do("wait", *[str(tmp_path)] * 4)
    assert names_of(reusing(common, individual | {"name": [f"n{i}" for i in range(4)]})) == ["n0", "n1", "n2", "n3"]


def test_a_failure_leaves_pending_what_was_not_taken_in(few_at_once):
    """What was ordered before something failed is told, none of it twice."""
    boss = reusing(*do("sort_of", ("throw", OSError("x")), *[None] * 50))
    with pytest.raises(OSError, match="x"):
        boss.wait_till_finished()
    report = boss.get_report()
    assert len(report["pending"]) + len(report["workers_done"]) == 50 and len(report["errors"]) == 1


def test_a_cancel_reaches_what_was_not_taken_in(few_at_once, tmp_path):
    """What is ordered after an order finds all of it."""
    boss = behind_one_that_waits(tmp_path, 40)
    numbers = boss.set_instructions(*do("echo", *range(40)))
    assert boss.cancel(*numbers, *[f"n{i}" for i in range(20, 40)]) == [*numbers, *[f"n{i}" for i in range(20, 40)]]
    (tmp_path / "release").touch()
    assert sorted(names_of(boss)) == sorted(f"n{i}" for i in range(20))


def test_a_halt_comes_after_what_was_ordered_before(few_at_once):
    """What is halted runs when it is set to work again, and an end waits for all of it."""
    boss = taylorism.Boss(scheduler=slots(1), max_tasks_per_child=None)
    boss.set_instructions(*do("echo", *range(20)))
    boss.make_them_work()
    boss.halt()
    boss.set_instructions(*do("echo", *range(20, 40)))
    boss.make_them_work(terminate=True)
    assert reports(boss) == list(range(40))


@pytest.mark.parametrize("on_error", ["stop", "collect"])
def test_what_does_not_load_is_charged_when_it_is_taken_in(few_at_once, on_error):
    """A set that the listener cannot rebuild has failed, and no other."""
    boss = reusing(*do("echo", *range(10), workers.NeverLoads(), *range(10)), on_error=on_error)
    if on_error == "stop":
        with pytest.raises(taylorism.InstructionsNotPicklable):
            boss.wait_till_finished()
    else:
        assert reports(boss) == [*range(10), *range(10)]
    assert len(boss.errors) == 1


def test_stopped_while_an_order_is_taken_in(few_at_once, tmp_path):
    """Nothing that was ordered is lost from the report."""
    boss = behind_one_that_waits(tmp_path, 40)
    boss.set_instructions(*do("echo", *range(100)))
    boss.stop_them_working()
    boss.wait_till_finished()
    report = boss.get_report()
    assert report["status"] == "pending" and report["stopped"] == ["n3"]
    assert len(report["pending"]) + len(report["workers_report"]) + 1 == 140


# ---------------------------------------------------------------------------------------------------------
# sizes
# ---------------------------------------------------------------------------------------------------------


def test_long_tasks_are_given_one_at_a_time(monkeypatch):
    """Who takes longer than a batch should is alone in it."""
    monkeypatch.setattr(_batches, "AMOUNT", 0.001)
    given: list[int] = []
    several = _hands.Hands.give_several
    path = os.memfd_create("given")

    def note(self: Any, hand: Any, jobs: Any, marks: Any) -> bool:
        os.write(path, bytes([len(jobs)]))
        return several(self, hand, jobs, marks)

    monkeypatch.setattr(_hands.Hands, "give_several", note)
    assert reports(reusing(*do("nap", *range(5)))) == list(range(5))
    given.extend(os.pread(path, 100, 0))
    assert given == []
    monkeypatch.setattr(_batches, "AMOUNT", 10.0)
    # On a busy machine a process may be silent for a while: what is taken back from it is given, and noted, again.
    monkeypatch.setattr(_batches, "SILENCE", 60.0)
    assert reports(reusing(*do("echo", *range(300)))) == list(range(300))
    given.extend(os.pread(path, 100, 0))
    os.close(path)
    assert 290 < sum(given) < 300 and max(given) > 20


def test_one_long_task_among_many_short_ones_is_soon_forgotten():
    """A time counts for as many tasks as took it."""
    batches = object.__new__(_batches.Batches)
    batches._seconds = float("inf")
    batches._expect(0.0001)
    batches._expect(0.03)
    assert batches._seconds == pytest.approx(0.0001 + 0.3 * 0.0299)
    batches._expect(0.0001, 20)
    assert batches._seconds < 0.0002


@pytest.mark.parametrize("option", ["verbose", "timeout", "memory_guard", "log_dir"])
def test_who_is_watched_is_given_by_itself(option, monkeypatch, tmp_path):
    """Where something looks at each worker, there are no batches."""
    monkeypatch.setattr(_hands.Hands, "give_several", None)
    values = {"verbose": True, "timeout": 60.0, "memory_guard": "warn", "log_dir": tmp_path}
    options = {option: values[option]}
    assert reports(reusing(*do("echo", *range(10)), **options)) == list(range(10))
