"""The crash table: every way in which a worker, the listener or what they use can die or answer wrongly."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import workers
from workers import Scheduler, alive, do, done_so_far, laxist, reports, until, working

import taylorism
from taylorism import _crew, _listener, _usage


def failure_of(*order: Any, **options: Any) -> BaseException:
    """Return what comes out of `wait_till_finished`."""
    boss = working(*order, **options)
    with pytest.raises(BaseException) as info:
        boss.wait_till_finished()
    return info.value


# ---------------------------------------------------------------------------------------------------------
# ends of a worker
# ---------------------------------------------------------------------------------------------------------

DEATHS = [
    ("die_by", signal.SIGKILL, -9, "killed by SIGKILL: out of memory"),
    ("die_by", signal.SIGSEGV, -11, "killed by SIGSEGV"),
    ("die_by", signal.SIGTERM, -15, "killed by SIGTERM"),
    ("die_by", signal.SIGINT, -2, "killed by SIGINT"),
    ("die_by", signal.SIGUSR1, -10, "killed by SIGUSR1"),
    ("die_by", signal.SIGALRM, -14, "killed by SIGALRM"),
    ("die_by", signal.SIGRTMIN, -signal.SIGRTMIN, "killed by"),
    ("segfault", None, -11, "killed by SIGSEGV"),
    ("abort", None, -6, "killed by SIGABRT"),
    ("os_exit", 0, 0, "exited with status 0"),
    ("os_exit", 3, 3, "exited with status 3"),
    ("close_everything", None, None, "exited with status"),
]


@pytest.mark.parametrize(("deed", "value", "code", "words"), DEATHS)
def test_death_without_a_report(deed, value, code, words):
    """A worker that dies without reporting is a WorkerDied: name, instructions, and its end in words."""
    error = failure_of(*do(deed, value, name="victim", memory=17))
    assert isinstance(error, taylorism.WorkerDied)
    assert error.name == "victim" and error.exitcode == (error.exitcode if code is None else code)
    assert "victim" in str(error) and words in str(error)
    assert "'memory': 17" in str(error) and "'memory': 17" in error.instructions


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_killed_from_outside(signum, tmp_path):
    """A worker that somebody else kills is a WorkerDied; its clean-up is done where the signal allows it."""
    boss = working(*do("wait", str(tmp_path), name="w"))
    os.kill(workers.pid_in(tmp_path / "w.pid"), signum)
    with pytest.raises(taylorism.WorkerDied, match=signum.name):
        boss.wait_till_finished()
    assert (tmp_path / "w.cleaned").exists() == (signum != signal.SIGKILL)


def test_death_stops_the_others_and_keeps_the_results(tmp_path):
    """After a death, the others are stopped, and results are kept."""
    boss = working(*do("echo", 1), scheduler=laxist())
    until(lambda: done_so_far(boss) == 1)
    boss.set_instructions({"deed": "wait", "value": str(tmp_path)}, {"name": ["a", "b"]})
    victim, _ = (workers.pid_in(tmp_path / f"{name}.pid") for name in "ab")  # both have begun
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(taylorism.WorkerDied, match="'a'"):
        boss.wait_till_finished()
    report = boss.get_report()
    assert [record["report"] for record in report["workers_done"]] == [1]
    assert report["stopped"] == ["b"] and report["status"] == "workers exception"
    assert not alive(workers.pid_in(tmp_path / "b.pid"))


def test_killed_while_it_reports():
    """A worker that is killed in the middle of its report has not reported."""
    error = failure_of(*do("die_in_the_report", None, name="victim"))
    assert isinstance(error, taylorism.WorkerDied) and "SIGKILL" in str(error)


class _Killer:
    """Kills the process that pickles it."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        return list, ()


@workers.deed
def die_in_the_report(value: Any, worker: Any) -> Any:
    """Return what kills."""
    return [bytes(1 << 20), _Killer()]


def test_killed_with_half_of_a_report_written(tmp_path):
    """Half of a frame is no report."""
    error = failure_of(*do("half_a_report", None, name="victim"))
    assert isinstance(error, taylorism.WorkerDied)


@workers.deed
def half_a_report(value: Any, worker: Any) -> None:
    """Write the beginning of a frame, by the means of the package itself, and die."""
    from taylorism import _channel, _messages

    notice = _messages.Notice(_messages.Outcome.REPORT)
    buffers = _channel.encode(notice, [b"x" * 1000])
    os.write(worker.messenger.fd, bytes(buffers[0][:-500]))
    os.kill(os.getpid(), signal.SIGKILL)


def test_death_is_seen_although_children_hold_the_pipe(tmp_path):
    """A killed worker is noticed although its children, which hold all its descriptors, live on."""
    boss = working(*do("fork_a_waiter_and_die", str(tmp_path), name="victim"))
    with pytest.raises(taylorism.WorkerDied, match="victim"):
        boss.wait_till_finished()
    assert not alive(workers.pid_in(tmp_path / "waiter.pid"))


@workers.deed
def fork_a_waiter_and_die(value: str, worker: Any) -> None:
    """Leave a forked child behind that waits."""
    if os.fork() == 0:
        workers.write_pid(Path(value) / "waiter.pid")
        signal.pause()
        os._exit(0)
    workers.pid_in(Path(value) / "waiter.pid")
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------------
# exceptions
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", sorted(workers.ODD))
def test_exceptions_come_whole(which):
    """Whatever is raised comes out: same class, same arguments, attributes and text."""
    expected, error = workers.ODD[which](), failure_of(*do("throw_odd", which, name="guilty"))
    assert type(error) is type(expected)
    assert error.args == expected.args
    assert error.__dict__ == expected.__dict__
    if which != "no string":
        assert str(error) == str(expected)
    if isinstance(expected, OSError):
        assert (error.errno, error.filename) == (expected.errno, expected.filename)
    assert "guilty" in str(error.__cause__)


def test_exception_with_slots():
    """What an exception has in slots comes too, or at least its class and arguments."""
    error = failure_of(*do("throw_slotted", 5))
    assert type(error) is workers.Slotted and error.args == ("slots",)


@pytest.mark.parametrize("code", [3, "a text", -1, [1]])
def test_sys_exit_is_a_failure(code):
    """`sys.exit` with anything but 0 and None is a failure, which comes out as SystemExit."""
    error = failure_of(*do("sys_exit", code, name="guilty"))
    assert type(error) is SystemExit and error.code == code
    assert "guilty" in str(error.__cause__)


@pytest.mark.parametrize("deed", ["throw_local", "throw_unpicklable", "throw_not_loadable"])
def test_exception_that_cannot_be_carried(deed):
    """An exception that cannot be pickled, or not loaded, is told with the worker's name and traceback."""
    error = failure_of(*do(deed, None, name="guilty"))
    assert isinstance(error, taylorism.TransmissionError)
    assert "guilty" in str(error)
    assert "Traceback" in str(error.__cause__) and f"in {deed}" in str(error.__cause__)
    told = {"throw_local": "Local", "throw_unpicklable": "it holds a lock", "throw_not_loadable": "Loads"}
    assert told[deed] in str(error)


def test_a_real_error_after_a_signal_is_not_lost():
    """A task that handled a signal and then fails for another reason is told by that reason."""
    error = failure_of(*do("fail_after_a_signal", None))
    assert isinstance(error, ValueError) and "the real reason" in str(error)


def test_memory_error():
    """A MemoryError under an address-space limit comes out as such."""
    assert type(failure_of(*do("out_of_memory", None, name="guilty"))) is MemoryError


def test_no_memory_for_the_report():
    """A report for whose pickle there is no memory is an error that names the worker."""
    error = failure_of(*do("no_memory_to_pickle", None, name="guilty"))
    assert isinstance(error, (MemoryError, taylorism.TransmissionError))
    assert "guilty" in str(error) + str(error.__cause__)


# ---------------------------------------------------------------------------------------------------------
# reports
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which", ["lambda", "lock", "local object", "generator", "file", "deep", "raising reduce"]
)
def test_report_that_cannot_be_pickled(which):
    """A report that cannot be pickled names the worker and the object."""
    boss = working(*do("return_unpicklable", which, name="guilty"))
    with pytest.raises(taylorism.TransmissionError) as info:
        boss.wait_till_finished()
    told = {"local object": "Local", "deep": "list", "file": "TextIOWrapper", "raising reduce": "RaisingReduce"}
    assert "guilty" in str(info.value) and told.get(which, which) in str(info.value)
    assert "Traceback" in str(info.value.__cause__)
    assert boss.get_report()["status"] == "transmission exception"


def test_report_that_main_cannot_load(tmp_path):
    """A report that loads everywhere but in main stops all, names the worker, and says so."""
    boss = working(*do("report_not_loadable", None, name="guilty"))
    boss.set_instructions(*do("wait", str(tmp_path), name="other"))
    with pytest.raises(taylorism.TransmissionError, match="guilty.*does not load here") as info:
        boss.wait_till_finished()
    assert "Traceback" in str(info.value.__cause__)
    report = boss.get_report()
    assert report["status"] == "transmission exception"
    assert isinstance(report["workers_report"], taylorism.TransmissionError)


def test_report_that_main_cannot_load_keeps_the_others():
    """The other reports stay."""
    boss = working(*do("echo", 1, 2))
    until(lambda: done_so_far(boss) == 2)
    boss.set_instructions(*do("report_not_loadable", None))
    with pytest.raises(taylorism.TransmissionError):
        boss.wait_till_finished()
    assert sorted(r["report"] for r in boss.get_report()["workers_done"]) == [1, 2]


@pytest.mark.parametrize(
    ("deed", "cls"), [("return_exception", ValueError), ("return_interrupt", KeyboardInterrupt)]
)
def test_returned_exception_is_a_report(deed, cls):
    """A task that returns an exception object has succeeded."""
    boss = working(*do(deed, None))
    (found,) = reports(boss)
    assert type(found) is cls and found.args == ("returned, not raised",)
    assert boss.get_report()["status"] == "finished"


@pytest.mark.usefixtures("both_ways")
def test_report_of_300_mib():
    """A report of 300 MiB comes whole."""
    (found,) = reports(working(*do("big", 300)))
    assert found.nbytes == 300 << 20 and (found[0], found[-1]) == (1, 2)
    found[0] = 5  # writable


@pytest.mark.usefixtures("both_ways")
def test_large_reports_of_several_workers_at_once():
    """Large reports of several workers do not mix; bytes as well as arrays."""
    boss = working({}, {"deed": ["big", "big_bytes"] * 3, "value": [20] * 6}, scheduler=laxist())
    assert sorted(len(found) for found in reports(boss)) == [20 << 17] * 3 + [20 << 20] * 3


@pytest.mark.usefixtures("both_ways")
def test_stop_in_the_middle_of_a_large_report():
    """A worker that is writing a report of 100 MiB can be stopped, main need not read."""
    boss = working(*do("big", 100, 100, 100), scheduler=laxist())
    until(lambda: len(psutil.Process(boss._process.pid).children()) > 0)
    boss.stop_them_working()
    boss.wait_till_finished()
    report = boss.get_report()
    assert len(report["workers_report"]) + len(report.get("stopped", ())) + len(report.get("pending", ())) == 3


# ---------------------------------------------------------------------------------------------------------
# stops
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["ignore", "swallow"])
def test_task_that_ignores_sigterm(deed, tmp_path):
    """A task that ignores SIGTERM, or swallows what it raises, is killed after the grace time."""
    boss = working(*do(deed, str(tmp_path), name="w"), stop_grace=0.2)
    pid = workers.pid_in(tmp_path / "w.pid")
    boss.stop_them_working()
    boss.wait_till_finished()
    assert boss.get_report()["stopped"] == ["w"] and not psutil.pid_exists(pid)


def test_task_that_finishes_when_interrupted(tmp_path):
    """A task that handles the interruption and returns has its report."""
    boss = working(*do("swallow_once", str(tmp_path), name="w"))
    workers.pid_in(tmp_path / "w.pid")
    boss.stop_them_working()
    assert reports(boss) == ["finished all the same"]


def test_task_that_fails_while_it_is_stopped(tmp_path):
    """What is raised while a worker is stopped is no failure: it was interrupted."""
    boss = working(*do("turn_into_another", str(tmp_path), name="w"))
    workers.pid_in(tmp_path / "w.pid")
    boss.stop_them_working()
    boss.wait_till_finished()
    report = boss.get_report()
    assert (report["status"], report["stopped"]) == ("pending", ["w"])


def test_stopped_worker_can_be_stopped(tmp_path):
    """A worker under SIGSTOP is waken to clean up."""
    boss = working(*do("wait", str(tmp_path), name="w"))
    os.kill(workers.pid_in(tmp_path / "w.pid"), signal.SIGSTOP)
    boss.stop_them_working()
    boss.wait_till_finished()
    assert (tmp_path / "w.cleaned").exists()


@pytest.mark.parametrize("deed", ["os_system", "programs"])
def test_programs_of_a_stopped_worker(deed, tmp_path):
    """What a stopped worker had started is stopped too, the whole tree."""
    boss = working(*do(deed, str(tmp_path), name="w"), stop_grace=0.2)
    names = ["program.pid"] if deed == "os_system" else ["deep.pid", "shell.pid"]
    pids = [workers.pid_in(tmp_path / name) for name in names]
    boss.stop_them_working()
    boss.wait_till_finished()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert boss.get_report()["stopped"] == ["w"]


def test_programs_of_a_killed_worker(tmp_path):
    """What a killed worker had started is stopped too."""
    boss = working(*do("os_system", str(tmp_path), name="w"))
    program = workers.pid_in(tmp_path / "program.pid")
    (worker,) = psutil.Process(boss._process.pid).children()
    worker.kill()
    with pytest.raises(taylorism.WorkerDied, match="'w'"):
        boss.wait_till_finished()
    assert not psutil.pid_exists(program)


def test_daemon_left_on_purpose_holds_nothing_up(tmp_path):
    """A double-forked daemon that a successful worker left lives on, and the run is over without it."""
    boss = working(*do("daemonize", str(tmp_path)))
    assert reports(boss) == ["left a daemon"]
    daemon = workers.pid_in(tmp_path / "daemon.pid")
    assert alive(daemon)
    (tmp_path / "release").touch()
    until(lambda: not alive(daemon))


def test_program_left_by_a_successful_worker_holds_nothing_up(tmp_path):
    """The same holds for a program that was not waited for."""
    (pid,) = reports(working(*do("leave_a_program", str(tmp_path))))
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_daemon_is_stopped_after_a_failure(tmp_path):
    """After a failure, what was left is stopped as well."""
    boss = working(*do("daemonize", str(tmp_path)), stop_grace=0.2)
    until(lambda: done_so_far(boss) == 1)
    daemon = workers.pid_in(tmp_path / "daemon.pid")
    boss.set_instructions(*do("throw", ValueError("x")))
    with pytest.raises(ValueError):
        boss.wait_till_finished()
    assert not alive(daemon)


def test_exit_that_lingers_is_bounded(tmp_path, monkeypatch):
    """A worker whose exit waits for ever, for a thread of its own, is ended after its report."""
    monkeypatch.setattr(_crew, "LINGER", 0.2)
    assert reports(working(*do("leave_an_endless_thread", str(tmp_path)))) == ["reported"]


@workers.deed
def leave_an_endless_thread(value: str, worker: Any) -> str:
    """Leave a thread that never ends, for which the interpreter waits at its exit."""
    threading.Thread(target=threading.Event().wait).start()
    return "reported"


def test_stop_of_a_listener_that_hangs_is_bounded(tmp_path, monkeypatch):
    """A listener that hangs in a scheduler of the user's is killed when main wants to stop."""
    from taylorism import _link

    monkeypatch.setattr(_link, "_MARGIN", 0.3)

    def hang(pending, running, done):
        (tmp_path / "hangs").touch()
        threading.Event().wait()

    boss = working(*do("echo", 1), scheduler=Scheduler(hang), stop_grace=0.1)
    until((tmp_path / "hangs").exists)
    boss.stop_them_working()
    with pytest.raises(taylorism.BossDied):
        boss.wait_till_finished()


# ---------------------------------------------------------------------------------------------------------
# the listener
# ---------------------------------------------------------------------------------------------------------


def test_listener_killed_while_main_waits(tmp_path):
    """If the listener is killed while main waits, main gets BossDied, and no worker is left."""
    boss = working(*do("wait", str(tmp_path), name="w"))
    worker = workers.pid_in(tmp_path / "w.pid")
    timer = threading.Timer(0.05, os.kill, (boss._process.pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(taylorism.BossDied, match="SIGKILL"):
        boss.wait_till_finished()
    timer.join()
    until(lambda: not alive(worker), seconds=3)
    with pytest.raises(taylorism.BossDied):
        boss.wait_till_finished()
    assert boss.get_report()["status"] == "workers exception"


@pytest.mark.parametrize("call", ["get_report", "set_instructions", "wait_till_finished"])
def test_listener_killed_between_two_calls(call, tmp_path):
    """If the listener is killed between two calls, the next one raises BossDied; what came stays."""
    boss = working(*do("echo", 1))
    until(lambda: done_so_far(boss) == 1)
    boss.set_instructions(*do("wait", str(tmp_path), name="w"))
    worker = workers.pid_in(tmp_path / "w.pid")
    os.kill(boss._process.pid, signal.SIGKILL)
    until(lambda: not alive(boss._process.pid))
    boss.make_them_work(), boss.end(), boss.stop_them_working()
    with pytest.raises(taylorism.BossDied):
        if call == "set_instructions":
            boss.set_instructions(*do("echo", bytes(10 << 20)))
        else:
            getattr(boss, call)()
    with pytest.raises(taylorism.BossDied):
        boss.wait_till_finished()
    assert [record["report"] for record in boss.get_report()["workers_done"]] == [1]
    until(lambda: not alive(worker), seconds=3)


def assert_ends_with_its_listener(program: int, boss: taylorism.Boss) -> None:
    """Demand that main sees the death of the listener, and that a program below it is ended."""
    try:
        with pytest.raises(taylorism.BossDied):
            boss.wait_till_finished()
        until(lambda: not alive(program), "the end of the program", 3)
    finally:
        if alive(program):
            os.kill(program, signal.SIGKILL)


def test_programs_of_a_listener_that_is_killed_at_its_first_launch(tmp_path, monkeypatch):
    """Before it has said anything else, main knows by what they are found."""
    launch = _listener.Launcher.launch

    def launch_and_die(self: Any, chosen: Any) -> bool:
        launch(self, chosen)
        workers.pid_in(tmp_path / "program.pid")
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    monkeypatch.setattr(_listener.Launcher, "launch", launch_and_die)
    boss = working(*do("os_system", str(tmp_path), name="w"))
    program = workers.pid_in(tmp_path / "program.pid")
    assert_ends_with_its_listener(program, boss)


def test_programs_of_a_killed_listener(tmp_path):
    """If the listener is killed, the programs that its workers had started are not left either."""
    boss = working(*do("os_system", str(tmp_path), name="w"))
    program = workers.pid_in(tmp_path / "program.pid")
    os.kill(boss._process.pid, signal.SIGKILL)
    assert_ends_with_its_listener(program, boss)


def test_listener_terminated(tmp_path):
    """`boss._process.terminate()` stops all; SignalInterruptError comes out of the wait."""
    from bronx.system.interrupt import SignalInterruptError

    boss = working(*do("wait", str(tmp_path), name="w"))
    workers.pid_in(tmp_path / "w.pid")
    boss._process.terminate()
    with pytest.raises(SignalInterruptError):
        boss.wait_till_finished()
    assert (tmp_path / "w.cleaned").exists()
    report = boss.get_report()
    assert report["stopped"] == ["w"] and isinstance(report["workers_report"], SignalInterruptError)


def test_listener_terminated_and_joined(tmp_path):
    """The process of the listener can be terminated, joined and asked for its end by the caller."""
    boss = working(*do("wait", str(tmp_path), name="w"))
    workers.pid_in(tmp_path / "w.pid")
    boss._process.terminate()
    boss._process.join(10)
    assert not boss._process.is_alive()
    boss._process.terminate()
    with pytest.raises(taylorism._compat.SignalInterruptError):
        boss.wait_till_finished()


def test_new_listener_terminated():
    """A listener without work can be terminated; orders that follow at once do not hide it."""
    for _ in range(20):
        boss = taylorism.Boss()
        boss._process.terminate()
        with pytest.raises(taylorism._compat.SignalInterruptError):
            boss.wait_till_finished()


def test_message_of_the_bosses_death_reads_well():
    """The text of BossDied is a sentence, whatever the end of the listener was."""
    for end in (lambda pid: os.kill(pid, signal.SIGKILL), None):
        boss = taylorism.Boss(scheduler=Scheduler(lambda *args: os._exit(3)))
        if end:
            end(boss._process.pid)
        with pytest.raises(taylorism.BossDied) as info:
            boss.set_instructions(*do("echo", 1))  # which may know already
            boss.wait_till_finished()
        assert "was exited" not in str(info.value) and "task was over" not in str(info.value)


# ---------------------------------------------------------------------------------------------------------
# a poor system
# ---------------------------------------------------------------------------------------------------------


def test_descriptors_limited_to_64():
    """With 64 descriptors, 200 sets that may all start at once are all done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert sorted(reports(working(*do("nap", *range(200)), scheduler=laxist()))) == list(range(200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_failure_among_64_descriptors(tmp_path):
    """With no descriptor left, a failure still stops all, programs included."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        boss = working(*do("os_system", str(tmp_path)), scheduler=laxist())
        program = workers.pid_in(tmp_path / "program.pid")
        boss.set_instructions(*do("wait", *[str(tmp_path)] * 100))
        until(lambda: len(list(tmp_path.glob("*.pid"))) > 20)
        os.kill(workers.pid_in(next(tmp_path.glob("*-*.pid"))), signal.SIGKILL)
        with pytest.raises(taylorism.WorkerDied):
            boss.wait_till_finished()
        assert not psutil.pid_exists(program)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refusing(limit: int) -> Scheduler:
    """Return a scheduler that launches everything, in a listener that may have `limit` children at a time."""
    fork = os.fork

    def limited() -> int:
        if len(psutil.Process().children()) >= limit:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    def decide(pending, running, done):
        os.fork = limited
        return pending, []

    return Scheduler(decide)


def test_fork_refused_now_and_then():
    """If the system refuses a process while others run, the set waits for the end of one."""
    boss = working(*do("nap", *range(10)), scheduler=refusing(2))
    assert sorted(reports(boss)) == list(range(10))


def test_fork_refused_for_good():
    """If it refuses while none runs, that is an error that names the worker and the reason."""
    boss = working(*do("echo", 1, name="unlucky"), scheduler=refusing(0))
    with pytest.raises(taylorism.WorkerNotStarted, match="unlucky.*temporarily unavailable") as info:
        boss.wait_till_finished()
    assert isinstance(info.value, OSError)
    assert boss.get_report()["errors"] == {"unlucky": info.value}


def test_deleted_working_directory(tmp_path):
    """A Boss can be made and used in a directory that is no more."""
    before, gone = os.getcwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        assert reports(working(*do("echo", 1))) == [1]
    finally:
        os.chdir(before)


def test_sigchld_ignored_in_main():
    """With SIGCHLD ignored in main, all goes its way; a death is still told."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert sorted(reports(working(*do("echo", 1, 2, 3)))) == [1, 2, 3]
        assert isinstance(failure_of(*do("os_exit", 3)), taylorism.WorkerDied)
        boss = taylorism.Boss()
        os.kill(boss._process.pid, signal.SIGKILL)
        with pytest.raises(taylorism.BossDied):
            boss.wait_till_finished()
        assert reports(working(*do("child_process", 7))) == [7]
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_somebody_else_reaps_the_listener():
    """If main waits for any child, as `os.wait` does, the listener's end is still noticed."""
    boss = working(*do("echo", 1))
    boss.end()
    assert os.wait()[0] == boss._process.pid
    assert reports(boss) == [1]


def test_signals_blocked_in_main(tmp_path):
    """Signals that the thread of main blocks reach listener and workers all the same."""
    blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        boss = working(*do("wait", str(tmp_path), name="w"))
        workers.pid_in(tmp_path / "w.pid")
        boss.stop_them_working()
        boss.wait_till_finished()
        assert (tmp_path / "w.cleaned").exists()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_handlers_of_main_do_not_run_elsewhere(tmp_path):
    """Handlers of main, also those that raise, are not called in the listener or in workers."""

    def mine(signum, frame):
        (tmp_path / f"called in {os.getpid()}").touch()
        raise RuntimeError("a handler of main")

    before = {n: signal.signal(n, mine) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)}
    try:
        boss = working(*do("wait", str(tmp_path), name="w"))
        workers.pid_in(tmp_path / "w.pid")
        boss.stop_them_working()
        while True:
            try:
                boss.wait_till_finished()
                break
            except RuntimeError:  # SIGCHLD of the listener, in main
                pass
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert {path.name for path in tmp_path.glob("called*")} <= {f"called in {os.getpid()}"}
    assert (tmp_path / "w.cleaned").exists()


def test_idle_boss_uses_no_cpu(tmp_path, monkeypatch):
    """While workers run and nothing happens, the listener does not wake up, but to look at their memory."""
    monkeypatch.setattr(_usage, "_PAUSE", 1000.0)
    monkeypatch.setattr(_crew, "_LATER", 1000.0)  # one look at a count of the kernel, soon after the start
    boss = working(*do("wait", str(tmp_path), name="w"))
    workers.pid_in(tmp_path / "w.pid")
    listener = psutil.Process(boss._process.pid)
    until(lambda: boss.status().running, "the news of the start")

    def sleeps_on():
        before = listener.num_ctx_switches().voluntary
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        return listener.num_ctx_switches().voluntary == before

    until(sleeps_on, "the end of what follows the start")
    assert sleeps_on() and sleeps_on()
    (tmp_path / "release").touch()
    boss.wait_till_finished()
