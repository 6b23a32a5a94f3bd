"""What the caller decides, end to end: on failure, trials, time, output."""

from __future__ import annotations

import logging
import os
import signal
import time

import numpy as np
import psutil
import pytest
import workers
from workers import alive, do, slots, until, working

import taylorism
from taylorism import (
    TransmissionError,
    WorkerDied,
    WorkersFailed,
    WorkerTimeout,
    _usage,
    batch_main,
    run_as_server,
)


def sets(*deeds):
    """Return a list of sets: ``name=(deed, value)`` pairs."""
    return [{"name": name, "deed": deed, "value": value} for name, deed, value in deeds]


#: three that die and two that do not
FIVE = sets(
    ("exits", "os_exit", 7),
    ("good", "echo", 1),
    ("killed", "die_by", signal.SIGKILL),
    ("odd", "return_unpicklable", "lambda"),
    ("better", "echo", 2),
)


# ---------------------------------------------------------------------------------------------------------
# on_error
# ---------------------------------------------------------------------------------------------------------


def check_the_three(errors):
    """Three errors that name 7, SIGKILL and the object."""
    assert sorted(errors) == ["exits", "killed", "odd"]
    assert isinstance(errors["exits"], WorkerDied) and errors["exits"].exitcode == 7
    assert "7" in str(errors["exits"]) and "SIGKILL" in str(errors["killed"])
    assert isinstance(errors["odd"], TransmissionError) and "lambda" in str(errors["odd"])


def test_collect_gives_what_was_done_and_what_failed(capfd):
    """Two records and three errors, and nothing is raised."""
    report = batch_main({}, FIVE, scheduler=slots(2), on_error="collect", print_report=lambda report: None)
    assert sorted(record["report"] for record in report["workers_report"]) == [1, 2]
    assert report["status"] == "finished"
    check_the_three(report["errors"])
    states = {name: info["status"] for name, info in report["workers_info"].items()}
    assert states == {"exits": "failed", "good": "done", "killed": "failed", "odd": "failed", "better": "done"}
    assert capfd.readouterr().err.count("Instructions of guilty worker") == 3


def test_finish_raises_all_when_all_are_done():
    """One error with all three, after the other two are done; it is raised each time, then the report has it."""
    boss = working({}, FIVE, on_error="finish")
    with pytest.raises(WorkersFailed, match="3 of the workers failed, the others are done") as info:
        boss.wait_till_finished()
    check_the_three(info.value.errors)
    for again in (boss.wait, boss.poll, boss.wait_till_finished):
        with pytest.raises(WorkersFailed):
            again()
    report = boss.get_report()
    assert report["workers_report"] is info.value and report["status"] == "workers exception"
    assert sorted(record["report"] for record in report["workers_done"]) == [1, 2]
    check_the_three(report["errors"])


def test_stop_raises_at_once_and_keeps_what_was_done(tmp_path):
    """The first failure stops the others within a second; the finished record is in `workers_done`."""
    boss = working({}, sets(("good", "echo", 1)))
    assert boss.wait()
    start = time.monotonic()
    boss.set_instructions({}, sets(("waits", "wait", str(tmp_path)), ("exits", "os_exit", 7)))
    with pytest.raises(WorkerDied, match="7"):
        boss.wait_till_finished()
    assert time.monotonic() - start < 5.0  # far below the 60 s of a hang, far above what a busy machine takes
    report = boss.get_report()
    assert report["workers_done"] == [{"name": "good", "report": 1}]
    assert list(report["errors"]) == ["exits"] and report["stopped"] in (["waits"], [])
    assert report["workers_info"]["exits"]["exitcode"] == 7


def test_what_cannot_be_hired_costs_only_itself():
    """No class, a constructor that raises, a name in use, a set that does not load: the others run."""
    odd = [{"name": "odd", "no_such_attribute": 1}, {"name": "raises", "init_raises": 1}]
    boss = taylorism.Boss(scheduler=slots(2), on_error="collect")
    fine = sets(("a", "echo", 1), ("b", "echo", 2))
    boss.set_instructions({}, [fine[0], *odd, fine[1], *sets(("b", "nap", 3), ("b", "nap", 4))])
    boss.wait_till_finished()
    errors = boss.errors
    assert isinstance(errors["odd"], taylorism.NoAdequateWorker)
    assert {1, 2} <= {record["report"] for record in boss.get_report()["workers_report"]}
    assert set(errors) >= {"odd", "raises"}


def test_what_can_never_start_costs_only_itself():
    """It fails at once, and the rest runs."""
    import footprints

    scheduler = footprints.proxy.scheduler(limit="memory", max_memory=100.0, memory_per_task=10.0)
    individual = [*sets(("a", "echo", 1)), {**sets(("big", "echo", 2))[0], "memory": 1e6}]
    boss = working({}, individual, scheduler=scheduler, on_error="collect")
    boss.wait_till_finished()
    assert isinstance(boss.errors["big"], taylorism.NeverStartable)
    assert [record["report"] for record in boss.get_report()["workers_report"]] == [1]


def test_a_scheduler_that_fails_stops_everything_whatever_is_said():
    """No worker is to blame."""

    def decide(pending, running, done):
        raise RuntimeError("a scheduler of the user's")

    boss = working({}, FIVE, scheduler=workers.Scheduler(decide), on_error="collect")
    with pytest.raises(RuntimeError, match="of the user's"):
        boss.wait_till_finished()
    assert boss.get_report()["status"] == "workers exception"


def test_programs_of_a_failed_worker_go_with_it(tmp_path):
    """Though the others go on; what a successful worker leaves is spared."""
    boss = taylorism.Boss(scheduler=slots(1), on_error="collect", stop_grace=0.2)
    both = sets(("leaves", "leave_a_program", str(tmp_path)), ("bad", "os_system", str(tmp_path)))
    boss.set_instructions({}, both)
    boss.make_them_work()
    program = workers.pid_in(tmp_path / "program.pid")
    until(lambda: boss.status().running == ("bad",), "the second worker")
    other = until(lambda: _child_of(boss, program), "its program")
    os.kill(boss.get_report()["workers_info"]["bad"]["pid"], signal.SIGKILL)
    assert boss.wait() and "bad" in boss.errors
    assert not alive(other) and alive(program)
    os.kill(program, signal.SIGKILL)
    boss.wait_till_finished()


def _child_of(boss, *others):
    """Return a program below the running worker."""
    pid = boss.get_report()["workers_info"]["bad"]["pid"]
    found = [child.pid for child in psutil.Process(pid).children(recursive=True) if child.pid not in others]
    return found[0] if found else None


# ---------------------------------------------------------------------------------------------------------
# trials
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_a_worker_is_tried_again_under_its_name(tmp_path, delay):
    """A third trial that succeeds is a success; a worker without a name keeps the one that it got."""
    path = tmp_path / "trials"
    boss = working(*do("fail_till", (str(path), 3)), max_trials=3, retry_delay=delay)
    boss.wait_till_finished()
    (record,) = boss.get_report()["workers_report"]
    assert record["report"] == "at last" and path.read_text() == f"{record['name']}\n" * 3
    info = boss.get_report()["workers_info"][record["name"]]
    assert (info["trials"], info["status"]) == (3, "done") and boss.errors == {}


def test_only_the_last_failure_counts(tmp_path):
    """And it is raised when there are no trials left."""
    boss = working(*do("fail_till", (str(tmp_path / "trials"), 9), name="w"), max_trials=3)
    with pytest.raises(ValueError, match="trial 3"):
        boss.wait_till_finished()
    assert list(boss.errors) == ["w"] and boss.get_report()["workers_info"]["w"]["trials"] == 3


def test_a_retry_comes_first(tmp_path):
    """It goes to the head of the queue."""
    boss = taylorism.Boss(scheduler=slots(1), max_trials=2)
    path = str(tmp_path / "trials")
    boss.set_instructions({}, sets(("again", "fail_till", (path, 2)), ("next", "echo", 1)))
    boss.wait_till_finished()
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["again", "next"]


def test_a_death_is_tried_again_too():
    """A worker that is killed may do better the next time."""
    boss = working(*do("die_by", signal.SIGKILL, name="w"), max_trials=2, on_error="collect")
    boss.wait_till_finished()
    assert boss.get_report()["workers_info"]["w"]["trials"] == 2 and isinstance(boss.errors["w"], WorkerDied)


def test_what_is_stopped_while_it_waits_for_a_trial_is_pending(tmp_path):
    """It is told in the report, with the others that never ran."""
    boss = working(*do("fail_till", (str(tmp_path / "trials"), 9), name="w"), max_trials=2, retry_delay=60)
    until((tmp_path / "trials").exists, "the first trial")
    until(lambda: not psutil.Process(boss._process.pid).children(), "its end")
    boss.stop_them_working()
    boss.wait_till_finished()
    assert [each["name"] for each in boss.get_report()["pending"]] == ["w"]


# ---------------------------------------------------------------------------------------------------------
# timeout
# ---------------------------------------------------------------------------------------------------------


def test_a_worker_has_its_time_and_no_more(tmp_path):
    """It dies with the program that it started; the five others finish."""
    individual = sets(*((f"w{n}", "echo", n) for n in range(5)), ("slow", "os_system", str(tmp_path)))
    boss = working({}, individual, timeout=1.0, on_error="collect", stop_grace=1.0)
    program = workers.pid_in(tmp_path / "program.pid")
    boss.wait_till_finished()
    error = boss.errors["slow"]
    assert isinstance(error, WorkerTimeout) and isinstance(error, TimeoutError) and error.seconds == 1.0
    assert "slow" in str(error) and "1 s" in str(error) and not psutil.pid_exists(program)
    assert sorted(record["report"] for record in boss.get_report()["workers_report"]) == [0, 1, 2, 3, 4]
    info = boss.get_report()["workers_info"]["slow"]
    assert 1.0 <= info["ended"] - info["started"] < 10.0


@pytest.mark.parametrize("deed", ["ignore", "swallow", "programs"])
def test_who_ignores_the_first_step_has_the_second(tmp_path, deed):
    """SIGKILL after the grace time, for the whole tree."""
    boss = working(*do(deed, str(tmp_path), name="w"), timeout=0.2, stop_grace=0.2, on_error="finish")
    with pytest.raises(WorkersFailed):
        boss.wait_till_finished()
    assert isinstance(boss.errors["w"], WorkerTimeout)
    texts = [path.read_text() for path in tmp_path.glob("*.pid")]  # one may be killed while it writes
    assert not any(psutil.pid_exists(int(text)) for text in texts if text.endswith("\n"))


def test_the_time_may_depend_on_the_instructions(tmp_path):
    """A callable says how long; None is as long as it takes."""

    def limit(instructions):
        return 0.2 if instructions["name"] == "short" else None

    both = sets(("short", "wait", str(tmp_path)), ("long", "wait", str(tmp_path)))
    boss = working({}, both, timeout=limit, on_error="collect")
    until(lambda: boss.status().failed == ("short",), "the end of the short one")
    (tmp_path / "release").touch()
    boss.wait_till_finished()
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["long"]


@pytest.mark.parametrize(("answer", "expected"), [("soon", taylorism.BadOption), (KeyError("k"), KeyError)])
def test_a_callable_that_fails_is_charged_to_the_set(answer, expected):
    """Nonsense that it returns, and what it raises."""

    def limit(instructions):
        if instructions["name"] != "bad":
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    boss = working({}, sets(("bad", "echo", 1), ("good", "echo", 2)), timeout=limit, on_error="collect")
    boss.wait_till_finished()
    assert isinstance(boss.errors["bad"], expected)
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["good"]


def test_a_report_that_comes_too_late_is_none(tmp_path):
    """A task that swallows the interruption and returns had its time all the same."""
    boss = working(*do("swallow_once", str(tmp_path), name="w"), timeout=0.2, on_error="collect")
    boss.wait_till_finished()
    assert isinstance(boss.errors["w"], WorkerTimeout) and boss.get_report()["workers_report"] == []


def test_a_timeout_stops_everything_by_default(tmp_path):
    """As any failure does."""
    boss = working({}, sets(("slow", "wait", str(tmp_path)), ("other", "wait", str(tmp_path))), timeout=0.3)
    with pytest.raises(WorkerTimeout):
        boss.wait_till_finished()
    assert list(boss.errors) in (["slow"], ["other"])


# ---------------------------------------------------------------------------------------------------------
# stop_grace, log_dir
# ---------------------------------------------------------------------------------------------------------


def test_the_grace_is_what_was_asked_for(tmp_path):
    """A task that ignores everything is gone right after it."""
    boss = working(*do("ignore", str(tmp_path), name="w"), stop_grace=0.3)
    pid = workers.pid_in(tmp_path / "w.pid")
    start = time.monotonic()
    boss.stop_them_working()
    boss.wait_till_finished()
    assert time.monotonic() - start >= 0.3 and not psutil.pid_exists(pid)


def test_each_worker_has_its_log(tmp_path, capfd):
    """What it and its programs write; an always failing one leaves three runs; the failure quotes the last one."""
    logs = tmp_path / "made" / "logs"
    individual = sets(("bad", "say", "fail"), ("a/b", "say", "nothing"))
    boss = working({}, individual, log_dir=logs, max_trials=3, on_error="collect")
    boss.wait_till_finished()
    assert (logs / "bad.out").read_text() == "bad says fail\n" * 3
    assert (logs / "bad.err").read_text() == "a program of bad\n" * 3
    assert (logs / "a%2Fb.out").read_text() == "a/b says nothing\n"
    assert boss.get_report()["workers_info"]["bad"]["trials"] == 3
    cause = str(boss.errors["bad"].__cause__)
    assert cause.count("bad says fail") == 1 and "a program of bad" in cause and "bad.out" in cause
    assert "says" not in capfd.readouterr().out


def test_the_message_of_a_death_quotes_the_log(tmp_path):
    """It is all there is to know."""
    boss = working(*do("print_and_die", "\n".join(["last words"] * 20), name="w"), log_dir=tmp_path)
    with pytest.raises(WorkerDied) as info:
        boss.wait_till_finished()
    assert "w.out" in str(info.value) and str(info.value).count("    last words\n") == 10


def test_a_relative_directory_is_that_of_main(tmp_path, monkeypatch):
    """Wherever a worker goes."""
    monkeypatch.chdir(tmp_path)
    batch_main(*do("say", "x", name="w"), log_dir="logs", print_report=lambda report: None)
    assert (tmp_path / "logs" / "w.out").read_text() == "w says x\n"


def test_a_log_that_cannot_be_opened_is_a_failure_of_that_worker(tmp_path):
    """It names the file."""
    (tmp_path / "w.out").mkdir()
    boss = working({}, sets(("w", "echo", 1), ("v", "echo", 2)), log_dir=tmp_path, on_error="collect")
    boss.wait_till_finished()
    assert isinstance(boss.errors["w"], IsADirectoryError) and "w.out" in str(boss.errors["w"])
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["v"]


# ---------------------------------------------------------------------------------------------------------
# what is known of each worker
# ---------------------------------------------------------------------------------------------------------


def test_what_is_known_of_a_worker():
    """Id, state, trials, pid, exit code, ticket, times, processor time, memory."""
    before = time.time()
    boss = working(*do("burn", 0.1, name="w"), scheduler=slots(2))
    boss.wait_till_finished()
    info = boss.get_report()["workers_info"]["w"]
    assert (info["id"], info["status"], info["trials"], info["exitcode"], info["ticket"]) == (0, "done", 1, 0, 0)
    assert before <= info["submitted"] <= info["started"] <= info["ended"] <= time.time()
    assert info["pid"] not in (None, os.getpid()) and info["unknown"] == ""
    assert info["cpu_user"] + info["cpu_system"] >= 0.09
    assert 0 < info["peak_memory"] < 50


def test_an_empty_worker_of_a_large_main_looks_small():
    """Below 50 MiB, beside 600 MiB in main; one that uses 100 MiB has them."""
    block = np.ones(600 * 2**17)
    boss = working({}, sets(("small", "echo", 1), ("large", "allocate", 100)))
    boss.wait_till_finished()
    info = boss.get_report()["workers_info"]
    assert info["small"]["peak_memory"] < 50 and 100 <= info["large"]["peak_memory"] < 200
    assert block[-1] == 1.0


def test_what_never_started_says_so():
    """No pid, no times, and the reason."""
    boss = working({}, [{"name": "odd", "no_such_attribute": 1}], on_error="collect")
    boss.wait_till_finished()
    info = boss.get_report()["workers_info"]["odd"]
    assert info["status"] == "failed" and info["pid"] is None and info["peak_memory"] is None and info["unknown"]


def test_records_are_as_ever():
    """A name and a report, and nothing else, whatever the options."""
    order = do("echo", 1, name="w")
    report = batch_main(*order, print_report=lambda report: None, on_error="collect", max_trials=2)
    assert report["workers_report"] == [{"name": "w", "report": 1}] == report["workers_done"]


# ---------------------------------------------------------------------------------------------------------
# bad values
# ---------------------------------------------------------------------------------------------------------

BAD = [
    ("on_error", "ignore", "'stop', 'finish' or 'collect'"),
    ("on_error", None, "'stop', 'finish' or 'collect'"),
    ("max_trials", 0, "from 1 on"),
    ("max_trials", 1.5, "from 1 on"),
    ("max_trials", True, "from 1 on"),
    ("retry_delay", -1, "0 or more"),
    ("retry_delay", "1", "0 or more"),
    ("timeout", 0, "greater than 0"),
    ("timeout", float("nan"), "greater than 0"),
    ("timeout", "1", "greater than 0"),
    ("stop_grace", -0.1, "0 or more"),
    ("stop_grace", float("inf"), "0 or more"),
    ("log_dir", 3, "directory"),
    ("log_dir", "", "directory"),
    ("progress", "yes", "True or False"),
    ("memory_guard", "kill", "'warn', 'stop' or None"),
    *(("max_tasks_per_child", bad, "a whole number from 1 on, or None") for bad in (0, -1, 1.5, True, "all")),
]


@pytest.mark.parametrize("start", [taylorism.Boss, run_as_server, batch_main])
@pytest.mark.parametrize(("option", "value", "accepted"), BAD)
def test_bad_values_are_refused_at_once(start, option, value, accepted):
    """With the accepted ones in the message, and nothing started."""
    with pytest.raises(ValueError, match=option) as info:
        start(**{option: value})
    assert accepted in str(info.value) and isinstance(info.value, taylorism.BadOption)


def test_a_log_directory_that_cannot_be_is_refused_at_once(tmp_path):
    """A file is in its place."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        taylorism.Boss(log_dir=tmp_path / "file")


# ---------------------------------------------------------------------------------------------------------
# memory_guard
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def watchful(monkeypatch):
    """Have the memory of workers looked at often; the listener is a fork and has it too."""
    monkeypatch.setattr(_usage, "_WATCHFUL_PAUSE", 0.05)
    monkeypatch.setattr(_usage, "_WATCHFUL_THRIFT", 0.0)


def hungry(tmp_path, declared, needed):
    """Return a set whose worker uses so many MiB, and says when it is there."""
    return dict(deed="hold", value=(str(tmp_path), needed), name="w", memory=declared)


def test_a_worker_that_uses_too_much_is_stopped(tmp_path, watchful):
    """Alone, and the error says what it had declared, and used."""
    boss = working({}, [hungry(tmp_path, 20.0, 200)], memory_guard="stop", on_error="collect", stop_grace=0.2)
    boss.wait_till_finished()
    error = boss.errors["w"]
    assert isinstance(error, taylorism.MemoryExceeded) and isinstance(error, MemoryError)
    assert error.declared == 20.0 and error.used > 24.0 and "memory=20 MiB" in str(error)


def test_it_is_tried_again_with_more_memory(tmp_path, watchful):
    """1.5 times as much each time, until it is enough."""
    boss = working({}, [hungry(tmp_path, 40.0, 80)], memory_guard="stop", max_trials=5, stop_grace=0.2)
    until((tmp_path / "there").exists, "the block")
    until(lambda: boss.get_report()["workers_info"].get("w", {}).get("trials") == 3, "the third trial")
    (tmp_path / "release").touch()
    boss.wait_till_finished()
    assert boss.get_report()["workers_report"] == [{"name": "w", "report": 90.0}]


def test_a_warning_leaves_it_alone(tmp_path, watchful):
    """It is said once, in the log."""
    log = tmp_path / "log"
    handler = logging.FileHandler(log)
    taylorism.taylorism_log.addHandler(handler)
    try:
        boss = working({}, [hungry(tmp_path, 20.0, 100)], memory_guard="warn")
    finally:
        taylorism.taylorism_log.removeHandler(handler)
        handler.close()
    until((tmp_path / "there").exists, "the block")
    until(lambda: "has declared memory=20 MiB" in log.read_text(), "the warning")
    (tmp_path / "release").touch()
    boss.wait_till_finished()
    assert log.read_text().count("has declared memory=20 MiB") == 1 and boss.errors == {}


def test_who_declares_nothing_is_not_guarded(tmp_path, watchful):
    """There is nothing to compare with."""
    boss = working({}, [hungry(tmp_path, 0.0, 100)], memory_guard="stop")
    until((tmp_path / "there").exists, "the block")
    (tmp_path / "release").touch()
    boss.wait_till_finished()
    assert boss.errors == {}


def test_a_worker_that_uses_more_than_it_declared_holds_others_back(tmp_path, watchful, monkeypatch):
    """With `measured`, it counts what it is seen to use."""
    import footprints

    look = _usage.Lookout.look

    def look_and_tell(self, now, workers):
        pairs = list(workers)
        looked = look(self, now, pairs)
        if any(usage.now > 100.0 for _, usage in pairs):
            (tmp_path / "seen").touch()
        return looked

    monkeypatch.setattr(_usage.Lookout, "look", look_and_tell)
    keys = dict(limit="memory", max_memory=150.0, memory_per_task=10.0, measured=True)
    boss = taylorism.Boss(scheduler=footprints.proxy.scheduler(**keys))
    boss.set_instructions([hungry(tmp_path, 10.0, 120)])
    boss.make_them_work()
    until((tmp_path / "seen").exists, "the block, and a look at it")
    boss.set_instructions([dict(deed="echo", value=1, name="late", memory=60.0)])
    assert not boss.wait(0.3) and boss.status().pending == ("late",)
    (tmp_path / "release").touch()
    boss.wait_till_finished()
    # In either order: once the block is freed, `late` may run before `w` has ended.
    assert {record["name"] for record in boss.get_report()["workers_report"]} == {"w", "late"}
