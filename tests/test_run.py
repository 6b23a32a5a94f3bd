"""`run_as_server` and `batch_main`: the two one-call ways in."""

from __future__ import annotations

import inspect
import itertools
import os
import signal
import sys
import threading
from typing import Any

import psutil
import pytest
import workers
from bronx.system.interrupt import SignalInterruptError
from forked import interrupted
from workers import do, laxist, reports, slots

import taylorism
from taylorism import _run

_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGCHLD, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP),
)


_there_before: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def _note_who_is_there():
    """Note which processes were left by other tests, which have failed for it."""
    _there_before.update(psutil.Process().children(recursive=True))


def children() -> set[psutil.Process]:
    """Return the processes that came below this one during the test."""
    return set(psutil.Process().children(recursive=True)) - _there_before


def signature(function: Any) -> list[tuple[str, Any]]:
    """Return names and defaults of what may be given by position."""
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def test_signatures_are_those_of_1_1():
    """Names, order and defaults of the old parameters are as ever; additions are keyword-only."""
    common = [("common_instructions", {}), ("individual_instructions", {})]
    middle = [("scheduler", None), ("verbose", False), ("maxlenreport", 1024)]
    shared = [("sharedmemory_common_instructions", {})]
    assert signature(taylorism.run_as_server) == common + middle + shared
    assert signature(taylorism.batch_main) == common + middle + [("print_report", print)] + shared
    options = [("scheduler", None), ("name", None), ("verbose", False), ("maxlenreport", 1024)]
    assert signature(taylorism.Boss) == options + shared


def test_run_as_server_sets_to_work():
    """`run_as_server` returns a Boss at work, which takes more instructions."""
    boss = taylorism.run_as_server(*do("echo", 1), scheduler=slots(1))
    assert isinstance(boss, taylorism.Boss)
    workers.until(lambda: workers.done_so_far(boss) == 1)
    boss.set_instructions(*do("echo", 2))
    assert reports(boss) == [1, 2]


def test_run_as_server_without_instructions():
    """All instructions may come later."""
    boss = taylorism.run_as_server()
    boss.set_instructions(*do("echo", 2))
    assert reports(boss) == [2]


def test_run_as_server_by_position():
    """The old parameters may be given by position."""
    boss = taylorism.run_as_server(*do("echo", 1), slots(1), True, 5, {})
    assert (boss.verbose, boss.maxlenreport) == (True, 5)
    assert reports(boss) == [1]


def test_failed_run_as_server_leaves_no_boss():
    """If the instructions are refused, no Boss is left behind, even while the error is being looked at."""
    with pytest.raises(AssertionError) as info:
        taylorism.run_as_server({}, {"one": [1], "two": [1, 2]})
    assert info.value is not None and not children()


def test_batch_main_prints_and_returns(capfd):
    """For each record: a rule, the name, a rule, and what `print_report` prints; the report is returned."""
    report = taylorism.batch_main(
        {"deed": "echo"}, {"value": ["first", "second"], "name": ["a", "bcd"]}, scheduler=slots(1)
    )
    assert report["status"] == "finished"
    assert report["workers_report"] == [
        {"name": "a", "report": "first"},
        {"name": "bcd", "report": "second"},
    ]
    assert capfd.readouterr().out == (
        "==============\nWORKER NAME: a\n--------------\nfirst\n"
        "================\nWORKER NAME: bcd\n----------------\nsecond\n"
    )


def test_batch_main_calls_print_report():
    """`print_report` is called with each report in the order of completion."""
    seen: list[Any] = []
    taylorism.batch_main(*do("echo", 1, None, [2]), scheduler=slots(1), print_report=seen.append)
    assert seen == [1, None, [2]]


def test_batch_main_prints_to_the_present_stdout(capsys):
    """The rules go to what `sys.stdout` is at that time."""
    taylorism.batch_main(*do("echo", 1, name="x"))
    assert "WORKER NAME: x" in capsys.readouterr().out


def test_batch_main_without_work(capfd):
    """Nothing to do is no error."""
    assert taylorism.batch_main()["workers_report"] == []
    assert capfd.readouterr().out == ""


def test_tasks_prints_come_before_the_reports(capfd):
    """What tasks print has come out when the reports are printed."""
    taylorism.batch_main(*do("print_it", "from the task", name="x"))
    out = capfd.readouterr().out
    assert out.index("from the task") < out.index("WORKER NAME")


def test_batch_main_lets_the_workers_exception_out(capfd):
    """The exception of a worker comes out, and nothing is left or printed."""
    with pytest.raises(KeyError, match="bad") as info:
        taylorism.batch_main({}, {"deed": ["throw", "echo"], "value": [KeyError("bad"), 1]})
    assert info.value is not None and not children()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, workers.Rude])
def test_batch_main_lets_any_base_exception_out(error):
    """The same holds for what is no Exception."""
    with pytest.raises(error):
        taylorism.batch_main(*do("throw", error("x")))
    assert not children()


@pytest.mark.parametrize(
    "order",
    [({}, {"one": [1], "two": [1, 2]}), ({"deed": "echo"}, {"value": [lambda: 1]}), ({}, {"value": 3})],
)
def test_batch_main_with_impossible_instructions(order):
    """Instructions that are refused come out at once, and no Boss is left behind."""
    with pytest.raises(Exception) as info:
        taylorism.batch_main(*order)
    assert isinstance(info.value, taylorism.TaylorismError) and not children()


def test_batch_main_when_print_report_fails():
    """An exception of `print_report` comes out after the work was done."""

    def fail(report):
        raise LookupError("in print_report")

    with pytest.raises(LookupError):
        taylorism.batch_main(*do("echo", 1), print_report=fail)
    assert not children()


def signalled(tmp_path, signum: int, how: Any = os.kill) -> threading.Thread:
    """Signal this process as soon as the worker waits."""

    def send() -> None:
        workers.pid_in(tmp_path / "w.pid")
        how(os.getpid(), signum)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("signum", "error"),
    [
        (signal.SIGTERM, SignalInterruptError),
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGUSR1, SignalInterruptError),
    ],
)
def test_batch_main_interrupted(signum, error, tmp_path):
    """SIGTERM and Ctrl-C stop the workers, which clean up, and come out."""
    thread = signalled(tmp_path, signum)
    with pytest.raises(error):
        taylorism.batch_main(*do("wait", str(tmp_path), name="w"))
    thread.join()
    assert (tmp_path / "w.cleaned").exists() and not (tmp_path / "w.done").exists()
    assert not children()


@pytest.mark.parametrize("outcome", ["success", "failure", "signal"])
def test_handlers_of_the_caller_are_restored(outcome, tmp_path):
    """The signal handlers of the caller are the same before and after."""

    def mine(signum, frame):
        raise AssertionError("not while batch_main runs")

    original = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    try:
        for signum in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(signum, mine)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        before = [signal.getsignal(signum) for signum in _SIGNALS]
        if outcome == "success":
            taylorism.batch_main(*do("echo", 1))
        elif outcome == "failure":
            with pytest.raises(ValueError):
                taylorism.batch_main(*do("throw", ValueError("x")))
        else:
            thread = signalled(tmp_path, signal.SIGTERM)
            with pytest.raises(SignalInterruptError):
                taylorism.batch_main(*do("wait", str(tmp_path), name="w"))
            thread.join()
        assert [signal.getsignal(signum) for signum in _SIGNALS] == before
    finally:
        for signum, handler in original.items():
            signal.signal(signum, handler)


def test_handlers_are_restored_wherever_another_handler_raises():
    """That of an alarm of the caller's, for instance, while his handlers are put back."""

    def enter_and_leave():
        with _run._interruptible():
            pass

    before = [signal.getsignal(signum) for signum in _SIGNALS]
    for at in itertools.count(1):
        steps, _ = interrupted((_run,), enter_and_leave, at)
        assert [signal.getsignal(signum) for signum in _SIGNALS] == before, f"step {at}"
        if steps < at:
            break
    assert at > 20


def test_ignored_hangup_stays_ignored(tmp_path):
    """Under nohup, a hangup does not end the batch."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    thread = signalled(tmp_path, signal.SIGHUP)
    release = threading.Timer(0.2, (tmp_path / "release").touch)
    release.start()
    try:
        report = taylorism.batch_main(*do("wait", str(tmp_path), name="w"))
        assert report["status"] == "finished"
    finally:
        thread.join()
        release.join()
        signal.signal(signal.SIGHUP, before)


def test_batch_main_in_a_thread(capfd):
    """`batch_main` works outside the main thread, and leaves no Boss behind."""
    found: list[Any] = []

    def run() -> None:
        found.append(taylorism.batch_main(*do("echo", 1, name="x")))
        try:
            taylorism.batch_main(*do("throw", ValueError("in a thread")))
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0]["workers_report"] == [{"name": "x", "report": 1}]
    assert isinstance(found[1], ValueError) and not children()


def test_batch_main_leaves_stdout_alone():
    """The standard streams of main are the same objects before and after."""
    before = (sys.stdout, sys.stderr, sys.stdin)
    taylorism.batch_main(*do("echo", 1, 2), scheduler=laxist())
    assert (sys.stdout, sys.stderr, sys.stdin) == before


@pytest.mark.parametrize("function", [taylorism.run_as_server, taylorism.batch_main, taylorism.Boss])
def test_unknown_start_method(function):
    """An unknown start method is a ValueError that names those that exist, and leaves nothing."""
    with pytest.raises(ValueError, match="forkserver"):
        function(start_method="spoon")
    assert not children()
