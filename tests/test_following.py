"""What the caller can do while the work goes on: wait, look, stream, cancel, halt, stop; end to end."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest
import workers
from workers import do, slots, until, working

import taylorism
from taylorism import UnknownWorker, WaitTimeout, WorkersFailed


def waiting(tmp_path, *names, **options):
    """Return a Boss at work, whose workers of these names wait to be released."""
    boss = taylorism.Boss(**options)
    boss.set_instructions({"deed": "wait", "value": str(tmp_path)}, {"name": list(names)})
    boss.make_them_work()
    return boss


def release(tmp_path):
    """Let them end."""
    (tmp_path / "release").touch()


def begun(tmp_path, *names):
    """Wait till they are at their task, and return their process numbers."""
    return [workers.pid_in(tmp_path / f"{name}.pid") for name in names]


# ---------------------------------------------------------------------------------------------------------
# ids
# ---------------------------------------------------------------------------------------------------------


def test_every_set_has_an_id():
    """In order, over all calls; a list of dicts does as well, with common ones or alone."""
    boss = taylorism.Boss(scheduler=slots(2))
    assert boss.set_instructions({"deed": "echo"}, {"value": [1, 2]}) == [0, 1]
    assert boss.set_instructions({"deed": "echo"}, [{"value": 3}]) == [2]
    assert boss.set_instructions([{"deed": "echo", "value": 4}, {"deed": "echo", "value": 5}]) == [3, 4]
    assert boss.set_instructions(common={"deed": "echo"}, individual=[{"value": 6}]) == [5]
    assert boss.set_instructions({"deed": "echo"}, []) == []
    boss.wait_till_finished()
    assert sorted(record["report"] for record in boss.get_report()["workers_report"]) == [1, 2, 3, 4, 5, 6]
    assert boss.set_instructions(*do("echo", 7)) == []


def test_ids_of_many_threads_are_all_different():
    """Each thread has the ids of its own sets."""
    boss = taylorism.Boss(scheduler=slots(2))
    found = []

    def order(start):
        for number in range(20):
            found.extend((boss.set_instructions(*do("echo", start + number)), start + number) for _ in range(1))

    threads = [threading.Thread(target=order, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids[0] for ids, _ in found) == list(range(80))
    boss.wait_till_finished()
    infos = boss.get_report()["workers_info"]
    reports = {record["name"]: record["report"] for record in boss.get_report()["workers_report"]}
    expected = {ids[0]: value for ids, value in found}
    assert {info["id"]: reports[name] for name, info in infos.items()} == expected


# ---------------------------------------------------------------------------------------------------------
# waiting and looking
# ---------------------------------------------------------------------------------------------------------


def test_wait_does_not_end_the_boss(tmp_path):
    """It takes more work afterwards; a time limit is kept; poll never waits."""
    boss = waiting(tmp_path, "a")
    begun(tmp_path, "a")
    assert not boss.wait(0.05) and not boss.wait(timeout=0) and not boss.poll()
    release(tmp_path)
    assert boss.wait() and boss.poll()
    boss.set_instructions(*do("echo", 2, name="b"))
    assert boss.wait()
    boss.wait_till_finished()
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["a", "b"]
    assert boss.wait() and boss.poll()


def test_wait_sets_a_new_boss_to_work():
    """Else it would never end."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("echo", 1))
    assert not boss.poll()
    assert boss.wait()
    boss.wait_till_finished()


def test_wait_of_a_halted_boss_waits_for_what_runs(tmp_path):
    """And says that not all is settled."""
    boss = waiting(tmp_path, "a", "b", scheduler=slots(1))
    begun(tmp_path, "a")
    boss.halt()
    assert not boss.wait(0.05)
    release(tmp_path)
    assert not boss.wait() and boss.status().pending == ("b",) and boss.status().done == ("a",)
    boss.make_them_work()
    assert boss.wait()
    boss.wait_till_finished()


def test_wait_till_finished_within_a_time(tmp_path):
    """The time over, an error that is a TimeoutError; the work goes on."""
    boss = waiting(tmp_path, "a")
    for error in (WaitTimeout, TimeoutError, taylorism.TaylorismError):
        with pytest.raises(error, match="goes on"):
            boss.wait_till_finished(0.05)
    release(tmp_path)
    boss.wait_till_finished(timeout=30)
    assert boss.get_report()["status"] == "finished"


def test_a_report_that_is_waited_for(tmp_path):
    """`block` waits till all is settled, within the time; it does not end the Boss."""
    boss = waiting(tmp_path, "a")
    with pytest.raises(WaitTimeout):
        boss.get_report(block=True, timeout=0.05)
    assert boss.get_report(interim=False) is None
    release(tmp_path)
    report = boss.get_report(block=True)
    assert [record["name"] for record in report["workers_report"]] == ["a"]
    boss.set_instructions(*do("echo", 1, name="b"))
    assert len(boss.get_report(interim=False, block=True)["workers_report"]) == 2
    boss.wait_till_finished()


@pytest.mark.parametrize("bad", ["1", float("nan"), [1]])
def test_times_that_are_none(bad):
    """Are refused at once, with what is accepted."""
    boss = taylorism.Boss()
    for call in (boss.wait, boss.wait_till_finished, boss.as_completed):
        with pytest.raises(taylorism.BadOption, match="seconds"):
            call(bad)
    boss.wait_till_finished()


def test_a_failure_stays():
    """Each call raises it again; once it was raised, the report holds it."""
    boss = working(*do("throw", ValueError("x"), name="w"))
    for call in (boss.wait, boss.wait, boss.wait_till_finished, boss.wait_till_finished):
        with pytest.raises(ValueError, match="x"):
            call()
    with pytest.raises(ValueError, match="x"):
        boss.poll()
    assert isinstance(boss.get_report()["workers_report"], ValueError) and list(boss.errors) == ["w"]


def test_more_work_after_a_wait_that_raised():
    """With 'finish', the Boss takes more; the next wait raises all the failures so far."""
    boss = working(*do("throw", ValueError("x"), name="w"), on_error="finish")
    with pytest.raises(WorkersFailed, match="1 of the workers failed"):
        boss.wait()
    boss.set_instructions(*do("throw", KeyError("y"), name="v"))
    with pytest.raises(WorkersFailed, match="2 of the workers failed"):
        boss.wait()
    boss.set_instructions(*do("echo", 1))
    with pytest.raises(WorkersFailed, match="2 of the workers failed"):
        boss.wait_till_finished()


def test_status_names_everybody(tmp_path):
    """Pending, running, done, failed, cancelled; it prints."""
    boss = taylorism.Boss(scheduler=slots(1), on_error="collect")
    failing = {"deed": "throw", "value": ValueError(), "name": "failed"}
    boss.set_instructions([{"deed": "echo", "name": "done"}, failing])
    assert boss.wait()
    boss.set_instructions({"deed": "wait", "value": str(tmp_path)}, {"name": ["running", "off", "later"]})
    nameless = boss.set_instructions(*do("echo", 1))
    begun(tmp_path, "running")
    until(lambda: boss.status().running, "the news")
    boss.cancel("off")
    status = boss.status()
    assert (status.pending, status.running) == (("later", *nameless), ("running",))
    assert (status.done, status.failed, status.cancelled) == (("done",), ("failed",), ("off",))
    assert "running        1  running" in str(status) and "<table>" in status._repr_html_()
    release(tmp_path)
    boss.wait_till_finished()


# ---------------------------------------------------------------------------------------------------------
# streaming
# ---------------------------------------------------------------------------------------------------------


def test_records_come_as_the_work_goes_on(tmp_path):
    """Each as soon as it is there, of work added meanwhile too; those that are there come first."""
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions([{"deed": "echo", "value": 1, "name": "a"}])
    boss.set_instructions({"deed": "wait", "value": str(tmp_path)}, {"name": ["b"]})
    seen = []
    for record in boss.as_completed():
        seen.append(record["name"])
        if record["name"] == "a":
            boss.set_instructions(*do("echo", 3, name="c"))
        if record["name"] == "c":
            release(tmp_path)
    assert seen == ["a", "c", "b"]
    assert [record["name"] for record in boss.as_completed()] == seen
    boss.wait_till_finished()


def test_work_that_is_added_with_the_last_record_is_streamed_too():
    """Though all was settled when it was given out."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("echo", 0))
    assert boss.wait()
    seen = []
    for record in boss.as_completed():
        seen.append(record["report"])
        if len(seen) < 4:
            boss.set_instructions(*do("echo", len(seen)))
    assert seen == [0, 1, 2, 3]
    boss.wait_till_finished()


def test_streaming_within_a_time(tmp_path):
    """The time is from the call to the end; the records that came are given first."""
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions([{"deed": "echo", "name": "a"}, {"deed": "wait", "value": str(tmp_path), "name": "b"}])
    stream = boss.as_completed(timeout=1.0)
    assert next(stream)["name"] == "a"
    with pytest.raises(WaitTimeout):
        next(stream)
    release(tmp_path)
    boss.wait_till_finished()


@pytest.mark.parametrize(
    ("on_error", "raised"), [("stop", ValueError), ("finish", WorkersFailed), ("collect", ())]
)
def test_streaming_what_fails(on_error, raised):
    """The records before, then what `wait` would raise."""
    boss = taylorism.Boss(scheduler=slots(1), on_error=on_error)
    failing = {"deed": "throw", "value": ValueError("x"), "name": "b"}
    boss.set_instructions([{"deed": "echo", "name": "a"}, failing])
    stream = boss.as_completed()
    assert next(stream)["name"] == "a"
    with pytest.raises(raised or StopIteration):
        next(stream)
    boss._abandon()


# ---------------------------------------------------------------------------------------------------------
# cancelling, halting, stopping
# ---------------------------------------------------------------------------------------------------------


def test_cancel_by_name_and_by_id(tmp_path):
    """One that runs, with its program, and one that waits; a third is untouched, and nothing has failed."""
    boss = taylorism.Boss(scheduler=slots(2), stop_grace=1.0)
    (first,) = boss.set_instructions(*do("os_system", str(tmp_path), name="runs"))
    (third,) = boss.set_instructions(*do("wait", str(tmp_path), name="third"))
    (queued,) = boss.set_instructions(*do("wait", str(tmp_path), name="queued"))
    boss.make_them_work()
    program = workers.pid_in(tmp_path / "program.pid")
    begun(tmp_path, "third")
    until(lambda: len(boss.status().running) == 2, "the news")
    assert boss.cancel("runs", queued) == ["runs", queued]
    assert not psutil.pid_exists(program) and boss.status().running == ("third",)
    assert set(boss.status().cancelled) == {"runs", "queued"} and boss.errors == {}
    assert boss.cancel("runs") == [] and boss.cancel() == []
    release(tmp_path)
    boss.wait_till_finished()
    report = boss.get_report()
    assert (report["status"], [record["name"] for record in report["workers_report"]]) == ("finished", ["third"])
    assert report["workers_info"]["runs"]["status"] == "cancelled" and first == 0 and third == 1


@pytest.mark.parametrize("deed", ["ignore", "swallow", "programs"])
def test_cancel_of_who_ignores_it(tmp_path, deed):
    """SIGKILL after the grace time; the call returns when they are gone."""
    boss = working(*do(deed, str(tmp_path), name="w"), stop_grace=0.2, max_trials=3)
    files = ["deep.pid", "shell.pid"] if deed == "programs" else ["w.pid"]
    pids = [workers.pid_in(tmp_path / name) for name in files]
    until(lambda: boss.status().running, "the news")
    assert boss.cancel("w") == ["w"]
    assert not any(map(psutil.pid_exists, pids))
    assert boss.wait() and boss.status().cancelled == ("w",)
    boss.wait_till_finished()


def test_cancel_of_what_waits_for_its_next_trial(tmp_path):
    """It is not tried again."""
    boss = working(*do("fail_till", (str(tmp_path / "trials"), 9), name="w"), max_trials=9, retry_delay=60)
    until((tmp_path / "trials").exists, "the first trial")
    until(lambda: not psutil.Process(boss._process.pid).children(), "its end")
    assert boss.cancel("w") == ["w"] and boss.wait()
    assert boss.errors == {}
    boss.wait_till_finished()


@pytest.mark.parametrize("wanted", ["nobody", 99])
def test_cancel_of_who_does_not_exist(tmp_path, wanted):
    """An error that says where names are to be found; nothing is cancelled."""
    boss = waiting(tmp_path, "a")
    with pytest.raises(UnknownWorker, match="status"):
        boss.cancel("a", wanted)
    with pytest.raises(taylorism.BadOption):
        boss.cancel(1.5)
    release(tmp_path)
    boss.wait_till_finished()
    assert len(boss.get_report()["workers_report"]) == 1


def test_cancel_after_the_end_is_nothing():
    """Whatever it names has ended."""
    boss = working(*do("echo", 1, name="w"))
    boss.wait_till_finished()
    assert boss.cancel("w", 0) == []


def test_cancel_from_another_thread_while_main_waits(tmp_path):
    """The wait ends, too."""
    boss = waiting(tmp_path, "a", "b", scheduler=slots(2))
    begun(tmp_path, "a", "b")
    until(lambda: len(boss.status().running) == 2, "the news")
    found = []
    thread = threading.Thread(target=lambda: found.extend(boss.cancel("a", "b")))
    thread.start()
    assert boss.wait(30)
    thread.join()
    assert found == ["a", "b"]
    boss.wait_till_finished()


def test_cancel_from_a_signal_handler_while_main_waits(tmp_path):
    """A handler may come in at any moment."""
    boss = waiting(tmp_path, "a")
    begun(tmp_path, "a")
    until(lambda: boss.status().running, "the news")
    before = signal.signal(signal.SIGALRM, lambda signum, frame: boss.cancel("a"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert boss.wait(30) and boss.status().cancelled == ("a",)
    finally:
        signal.signal(signal.SIGALRM, before)
    boss.wait_till_finished()


def test_stop_that_lets_the_running_ones_finish(tmp_path):
    """`right_now=False`: the rest never runs."""
    boss = waiting(tmp_path, "a", "b", scheduler=slots(1))
    begun(tmp_path, "a")
    boss.stop_them_working(right_now=False)
    release(tmp_path)
    boss.wait_till_finished()
    report = boss.get_report()
    assert report["status"] == "pending" and [each["name"] for each in report["pending"]] == ["b"]
    assert [record["name"] for record in report["workers_report"]] == ["a"]


def test_what_is_stopped_is_told_apart(tmp_path):
    """Interrupted workers are neither failed nor cancelled."""
    boss = waiting(tmp_path, "a", "b", scheduler=slots(1))
    begun(tmp_path, "a")
    boss.stop_them_working()
    boss.wait_till_finished()
    status = boss.status()
    assert (status.stopped, status.pending, status.failed) == (("a",), ("b",), ())
    assert boss.get_report()["workers_info"]["a"]["status"] == "stopped"


# ---------------------------------------------------------------------------------------------------------
# as a context
# ---------------------------------------------------------------------------------------------------------


def test_a_with_block_finishes_the_work():
    """The normal exit waits."""
    with taylorism.Boss(scheduler=slots(2)) as boss:
        boss.set_instructions(*do("echo", 1, 2))
    assert boss.get_report()["status"] == "finished" and len(boss.get_report()["workers_report"]) == 2


def test_a_with_block_raises_what_failed():
    """At its end."""
    with pytest.raises(ValueError, match="x"), taylorism.Boss() as boss:
        boss.set_instructions(*do("throw", ValueError("x")))
    assert boss.get_report()["status"] == "workers exception"


def test_an_exception_in_a_with_block_stops_the_work(tmp_path):
    """And is the one that comes out."""
    with pytest.raises(KeyError, match="mine"), taylorism.Boss(on_error="finish") as boss:
        boss.set_instructions(*do("wait", str(tmp_path), name="w"))
        boss.make_them_work()
        (pid,) = begun(tmp_path, "w")
        raise KeyError("mine")
    assert not psutil.pid_exists(pid) and boss.status().stopped == ("w",)


def test_a_with_block_hides_no_exception_behind_a_failure():
    """A failure of a worker that comes on top of it."""
    with pytest.raises(KeyError, match="mine"), taylorism.Boss() as boss:
        boss.set_instructions(*do("throw", ValueError("x")))
        boss.make_them_work()
        until(lambda: boss.errors, "the failure")
        raise KeyError("mine")


def test_a_with_block_that_is_interrupted_while_it_waits(tmp_path):
    """A Ctrl-C at its end stops the work."""

    def interrupt():
        begun(tmp_path, "w")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), taylorism.Boss() as boss:
        boss.set_instructions(*do("wait", str(tmp_path), name="w"))
        boss.make_them_work()
        thread.start()
    thread.join()
    assert boss.status().stopped == ("w",)


# ---------------------------------------------------------------------------------------------------------
# nothing stops a stop
# ---------------------------------------------------------------------------------------------------------


def test_a_stop_though_main_has_a_handler_that_raises(tmp_path):
    """A worker that swallows everything, and a SIGTERM to main whose handler raises: all ends after the grace."""
    boss = working(*do("swallow", str(tmp_path), name="w"), stop_grace=0.3)
    pid = workers.pid_in(tmp_path / "w.pid")

    def raising(signum, frame):
        raise RuntimeError("out of the handler")

    before = signal.signal(signal.SIGTERM, raising)
    start = time.monotonic()
    try:
        with pytest.raises(RuntimeError, match="out of the handler"), boss:
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: False, "the signal", 5.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not psutil.pid_exists(pid) and time.monotonic() - start < 5.0
