"""Processes that are forked ahead: when they are made, who has them, and what becomes of those that nobody has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import footprints
import psutil
import pytest
import workers
from workers import Scheduler, alive, deed, pid_in, reports, slots, until, working

import taylorism
from taylorism import _arrivals, _listener, _reserve


@deed
def gate(value: Any, worker: Any) -> int:
    """Wait in the directory that is given, if one is; tell of our process."""
    if value:
        workers.DEEDS["wait"](value, worker)
    return os.getpid()


@deed
def descriptors(value: Any, worker: Any) -> set[str]:
    """Tell what our descriptors lead to, but for the listing itself."""
    found = (os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return {path.rpartition("/")[2].partition(":")[0] for path in found if not path.endswith("/fd")}


@deed
def stay_with_parent(value: Any, worker: Any) -> tuple[int, int, int]:
    """Tell of our parent in three ways."""
    return os.getppid(), worker._parent_pid, os.getpid()


@deed
def fail_and_leave(value: Any, worker: Any) -> None:
    """Wait, leave a program behind, and fail."""
    gate(value, worker)
    subprocess.Popen(["/bin/sleep", "60"])
    raise ValueError("as it was told")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Have them made as soon as nothing is to be done."""
    monkeypatch.setattr(_reserve, "QUIET", 0.001)


def instructions(place: Path, behind: int, deed: str = "gate") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the instructions of two that wait in a directory, w0 and w1, and of others behind them, from w2 on."""
    count = 2 + behind
    values = [str(place)] * 2 + [None] * behind
    deeds = ["gate"] * 2 + [deed] * behind
    return {}, {"deed": deeds, "value": values, "name": [f"w{i}" for i in range(count)]}


def two_that_wait(
    place: Path, behind: int = 4, deed: str = "gate", ready: int = 2, **options: Any
) -> taylorism.Boss:
    """Return a Boss with two slots, whose first two wait, as soon as so many processes are ready."""
    boss = working(*instructions(place, behind, deed), **options)
    pid_in(place / "w0.pid"), pid_in(place / "w1.pid")
    if ready:
        in_reserve(boss, place, ready)
    return boss


def in_reserve(boss: taylorism.Boss, place: Path, count: int) -> list[int]:
    """Return the processes that wait, as soon as they are so many."""

    def waiting() -> list[int]:
        at_work = {pid_in(path) for path in place.rglob("w?.pid")}
        there = [child.pid for child in psutil.Process(boss._process.pid).children()]
        return [pid for pid in there if pid not in at_work]

    until(lambda: len(waiting()) == count, f"{count} processes in reserve")
    return waiting()


def release(place: Path) -> None:
    """Let those go on that wait."""
    (place / "release").touch()


def of_those_behind(boss: taylorism.Boss) -> list[Any]:
    """Wait, and return the reports of all but the two that wait, which need not be the first to end."""
    boss.wait_till_finished()
    records = sorted(boss.get_report()["workers_report"], key=lambda record: record["name"])
    return [record["report"] for record in records[2:]]


# ---------------------------------------------------------------------------------------------------------
# who has them
# ---------------------------------------------------------------------------------------------------------


def test_there_are_none_for_a_scheduler_of_the_user_s(tmp_path):
    """What it changes in the listener as it decides, in a module or the environment, its worker has to find."""

    def decide(pending: Any, running: Any, report: Any) -> Any:
        chosen = pending[: 1 - len(running)]
        for each in chosen:
            os.environ["CHOSEN"] = each["name"]
        return chosen, pending[len(chosen) :]

    scheduler = Scheduler(decide)
    names = [f"n{i}" for i in range(5)]
    boss = working({"deed": "slow_look"}, {"value": ["CHOSEN"] * 5, "name": names}, scheduler=scheduler)
    assert reports(boss) == names


@deed
def slow_look(value: str, worker: Any) -> str:
    """Take a moment, in which others may be made ready; then look into the environment."""
    time.sleep(0.04)
    return os.environ[value]


def test_those_that_follow_have_processes_that_were_ready(tmp_path):
    """There is one for each that may end, each runs one Worker, and none is left."""
    boss = two_that_wait(tmp_path)
    ready = in_reserve(boss, tmp_path, 2)
    release(tmp_path)
    found = dict(zip(names_of(boss), reports(boss), strict=True))
    assert len(set(found.values())) == 6 and {found["w2"], found["w3"]} == set(ready)
    infos = boss.get_report()["workers_info"]
    assert {name: info["pid"] for name, info in infos.items()} == found
    assert {(info["trials"], info["exitcode"]) for info in infos.values()} == {(1, 0)}
    assert all(info["peak_memory"] < 50 for info in infos.values())


def test_no_more_than_there_are_sets(tmp_path):
    """For one set that is pending, one process is ready."""
    boss = two_that_wait(tmp_path, behind=1, ready=1)
    release(tmp_path)
    assert len(set(reports(boss))) == 3


def test_none_where_nothing_is_pending(tmp_path):
    """Nothing is forked for nobody: the loop sleeps."""
    boss = two_that_wait(tmp_path, behind=0, ready=0)
    boss.cancel()
    before = psutil.Process(boss._process.pid).num_ctx_switches().voluntary
    assert len(psutil.Process(boss._process.pid).children()) == 2
    assert psutil.Process(boss._process.pid).num_ctx_switches().voluntary <= before + 1
    release(tmp_path)
    boss.wait_till_finished()


def test_a_process_that_was_ready_is_as_any_other(tmp_path, monkeypatch):
    """It has no more open than one that was forked for its Worker."""
    found = []
    for ready in (2, 0):
        place = tmp_path / str(ready)
        place.mkdir()
        boss = two_that_wait(place, 2, "descriptors", ready)
        release(place)
        found += of_those_behind(boss)
        monkeypatch.setattr(_reserve, "MOST", 0)
    assert found[1:] == found[:1] * 3


def test_its_parent_is_the_listener(tmp_path):
    """Also as the Worker knows it, which is built in its own process."""
    boss = two_that_wait(tmp_path, 2, "stay_with_parent")
    ready, listener = in_reserve(boss, tmp_path, 2), boss._process.pid
    release(tmp_path)
    found = of_those_behind(boss)
    assert [each[:2] for each in found] == [(listener, listener)] * 2 and {each[2] for each in found} == set(ready)


def test_hooks_are_called_in_it(tmp_path):
    """What a scheduler adds to the instructions arrives: here the binding to a cpu."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=2, binded=True)
    boss = two_that_wait(tmp_path, 2, "tell_binding", scheduler=scheduler)
    release(tmp_path)
    assert all(len(cpus) == 1 for cpus in of_those_behind(boss))


@deed
def tell_binding(value: Any, worker: Any) -> list[int | None]:
    """Tell of our cpus."""
    return worker.binding()


def test_what_a_scheduler_prints_is_said_once(tmp_path, monkeypatch):
    """What waits in the buffer of the listener is not inherited by its workers."""
    path = tmp_path / "said"

    def decide(pending: Any, running: Any, report: Any) -> Any:
        room = 2 - len(running)
        for each in pending[: max(room, 0)]:
            sys.stdout.write(f"{each['name']}\n")
        return pending[:room], pending[room:]

    with open(path, "a") as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", open(1, "w", closefd=False))
            boss = two_that_wait(tmp_path, 4, ready=0, scheduler=Scheduler(decide))
            release(tmp_path)
            boss.wait_till_finished()
        os.dup2(kept, 1)
        os.close(kept)
    assert sorted(path.read_text().split()) == [f"w{i}" for i in range(6)]


# ---------------------------------------------------------------------------------------------------------
# who has not
# ---------------------------------------------------------------------------------------------------------


class Built(taylorism.Worker):
    """Notes each time that one is built."""

    _footprint = dict(attr=dict(noted_in=dict(type=str), waits_in=dict(type=str, optional=True, default="")))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with open(self.noted_in, "a") as file:
            file.write(f"{self.name}\n")

    def _task(self, **kwargs: Any) -> int:
        return gate(self.waits_in, self)


class Noted(str):
    """A kind of text that tells each time that one is made."""

    __slots__ = ()

    def __new__(cls, path: str) -> Noted:
        with open(path, "a") as file:
            file.write("made\n")
        return super().__new__(cls, path)


class Converted(taylorism.Worker):
    """Has an attribute whose value is made by the user's code."""

    _footprint = dict(attr=dict(made_in=dict(type=Noted), waits_in=dict(type=str, optional=True, default="")))

    def _task(self, **kwargs: Any) -> int:
        return gate(self.waits_in, self)


@pytest.mark.parametrize("attribute", ["noted_in", "made_in"])
def test_code_of_the_user_s_runs_once(attribute, tmp_path):
    """Who has an `__init__` of his own, or attributes of his own kind, is built in the listener alone."""
    names = [f"w{i}" for i in range(5)]
    individual = {"name": names, "waits_in": [str(tmp_path)] * 2 + [""] * 3}
    boss = working({attribute: str(tmp_path / "built")}, individual)
    pid_in(tmp_path / "w0.pid"), pid_in(tmp_path / "w1.pid")
    boss.cancel()
    in_reserve(boss, tmp_path, 0)
    release(tmp_path)
    assert len(set(reports(boss))) == 5
    told = (tmp_path / "built").read_text().split()
    assert told == (names if attribute == "noted_in" else ["made"] * 5)


def test_instructions_that_are_a_burden_are_not_sent_again(tmp_path):
    """What is large comes with the fork."""
    common, individual = instructions(tmp_path, 3)
    individual["value"][3] = [bytes(_arrivals.LIGHT + 1)]
    individual["deed"][3] = "how_much"
    boss = working(common, individual)
    pid_in(tmp_path / "w0.pid"), pid_in(tmp_path / "w1.pid")
    ready = in_reserve(boss, tmp_path, 2)
    release(tmp_path)
    found = dict(zip(names_of(boss), reports(boss), strict=True))
    assert found["w3"][0] == _arrivals.LIGHT + 1 and found["w3"][1] not in ready


@deed
def how_much(value: Any, worker: Any) -> tuple[int, int]:
    """Tell how much we were given, and of our process."""
    return len(value[0]), os.getpid()


def names_of(boss: taylorism.Boss) -> list[str]:
    """Wait, and return the names of those that are done, in order of completion."""
    boss.wait_till_finished()
    return [record["name"] for record in boss.get_report()["workers_report"]]


def test_hooks_that_cannot_be_sent(tmp_path):
    """They come with the fork."""

    def decide(pending: Any, running: Any, report: Any) -> Any:
        launch = pending[: 2 - len(running)]
        for each in launch:
            each["scheduler_hooks"] = footprints.FPList([lambda worker: os.environ.update(HOOKED="yes")])
        return launch, pending[len(launch) :]

    boss = two_that_wait(tmp_path, 2, "hooked", ready=0, scheduler=Scheduler(decide))
    release(tmp_path)
    assert of_those_behind(boss) == ["yes", "yes"]


@deed
def hooked(value: Any, worker: Any) -> str | None:
    """Tell what the hook has left."""
    return os.environ.get("HOOKED")


# ---------------------------------------------------------------------------------------------------------
# what may happen to them
# ---------------------------------------------------------------------------------------------------------


def test_one_that_is_killed_is_missed_by_nobody(tmp_path):
    """Its death is no failure, and no other is made: whoever killed it would kill that, too."""
    boss = two_that_wait(tmp_path)
    for pid in in_reserve(boss, tmp_path, 2):
        os.kill(pid, signal.SIGKILL)
    in_reserve(boss, tmp_path, 0)
    boss.cancel("w5")
    assert len(psutil.Process(boss._process.pid).children()) == 2
    release(tmp_path)
    assert len(set(reports(boss))) == 5


def test_one_that_is_killed_as_it_is_given_a_worker(tmp_path, monkeypatch):
    """A set that was not begun goes back to the queue, and is no trial."""
    give = _listener.Crew._give

    def kill_and_give(crew: Any, hand: Any, worker: Any, job: Any) -> bool:
        os.kill(hand.process.pid, signal.SIGKILL)
        return give(crew, hand, worker, job)

    monkeypatch.setattr(_listener.Crew, "_give", kill_and_give)
    boss = two_that_wait(tmp_path)
    release(tmp_path)
    assert len(set(reports(boss))) == 6
    assert {info["trials"] for info in boss.get_report()["workers_info"].values()} == {1}


@pytest.mark.parametrize("how", ["kill", "os_exit"])
def test_the_death_of_a_worker_in_it(how, tmp_path):
    """It is that of a worker like any other, with its name."""
    deeds = {"kill": "die", "os_exit": "leave"}
    boss = two_that_wait(tmp_path, 2, deeds[how], on_error="collect")
    release(tmp_path)
    assert len(set(reports(boss))) == 2
    assert sorted(boss.errors) == ["w2", "w3"]
    assert all(isinstance(error, taylorism.WorkerDied) for error in boss.errors.values())


@deed
def die(value: Any, worker: Any) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


@deed
def leave(value: Any, worker: Any) -> None:
    """Leave without a word."""
    os._exit(3)


def test_a_failure_does_them_no_harm(tmp_path):
    """What a worker that failed has left behind is ended; they are not of it."""
    (tmp_path / "apart").mkdir()
    common, individual = instructions(tmp_path, 5)
    individual["deed"][2], individual["value"][2] = "fail_and_leave", str(tmp_path / "apart")
    boss = working(common, individual, on_error="collect", scheduler=slots(3))
    pid_in(tmp_path / "apart" / "w2.pid"), pid_in(tmp_path / "w0.pid"), pid_in(tmp_path / "w1.pid")
    ready = in_reserve(boss, tmp_path, 3)
    release(tmp_path / "apart")
    until(lambda: len(boss.get_report()["workers_report"]) == 4)
    release(tmp_path)
    pids = reports(boss)
    assert list(boss.errors) == ["w2"] and len(set(pids)) == 6 and set(ready) <= set(pids)


@pytest.mark.parametrize("order", ["stop", "cancel", "halt"])
def test_none_stays_that_nobody_is_left_for(order, tmp_path):
    """Where what is pending is cancelled, they go; where all is stopped, with all."""
    boss = two_that_wait(tmp_path)
    ready = in_reserve(boss, tmp_path, 2)
    if order == "stop":
        boss.stop_them_working()
    elif order == "cancel":
        boss.cancel(*(f"w{i}" for i in range(2, 6)))
        until(lambda: not any(map(alive, ready)))
    else:
        boss.halt()
        boss.stop_them_working(right_now=False)
    release(tmp_path)
    boss.wait_till_finished()
    assert not any(map(alive, ready))


_MAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_reserve
from taylorism import _reserve
_reserve.QUIET = 0.001
boss = test_reserve.two_that_wait(Path(sys.argv[2]))
ready = test_reserve.in_reserve(boss, Path(sys.argv[2]), 2)
print(boss._process.pid, *ready, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("victim", ["main", "listener"])
def test_none_outlives_main_or_the_listener(victim, tmp_path):
    """They end with whom they wait for."""
    command = [sys.executable, "-c", _MAIN, str(workers.HERE), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout
        listener, *ready = map(int, main.stdout.readline().split())
        os.kill(main.pid if victim == "main" else listener, signal.SIGKILL)
        until(lambda: not any(map(alive, ready)), "their end", 5)
        main.kill()


def test_a_system_that_refuses_one_is_not_asked_again(tmp_path, monkeypatch):
    """What room there is is for those that have something to do."""
    asked = tmp_path / "asked"

    def refuse(crew: Any) -> None:
        with open(asked, "a") as file:
            file.write("!")
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(_listener.Crew, "fork_ahead", refuse)
    boss = two_that_wait(tmp_path, ready=0)
    until(asked.exists)
    release(tmp_path)
    assert len(set(reports(boss))) == 6 and asked.read_text() == "!"
