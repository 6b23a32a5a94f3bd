"""The blame: what is said of a failure names who, how, why and what to do, and says it whatever the handlers do."""

from __future__ import annotations

import io
import logging
import pickle
import sys
from types import SimpleNamespace

import pytest
from test_errors import BadRepr

from taylorism import _blame
from taylorism._errors import (
    InstructionsNotPicklable,
    NeverStartable,
    SchedulerError,
    WorkerDied,
    WorkerNotStarted,
    WorkerTimeout,
)
from taylorism._ledger import Job
from taylorism._messages import Failure


def a_member(exitcode=7, seconds=2.5, instructions=None):
    """Return what is known of a worker that has ended."""
    job = Job(3, {"name": "w", "number": 42} if instructions is None else instructions)
    process, worker = SimpleNamespace(exitcode=exitcode), SimpleNamespace(memory=10.0)
    facts = dict(out_of_memory=False, overdrawn=33.0)
    return SimpleNamespace(name="w", job=job, worker=worker, process=process, seconds=seconds, **facts)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (7, "exited with status 7"),
        (0, "exited with status 0"),
        (-9, "killed by SIGKILL: out of memory?"),
        (-11, "killed by SIGSEGV"),
        (None, "its exit status is unknown"),
    ],
)
def test_a_death_is_told_in_words(code, how):
    """With the name, the instructions, what to look for, and the end of the log."""
    error = _blame.died(a_member(code), "the last lines of w.err:\n    killed\n")
    text = str(error)
    assert isinstance(error, WorkerDied) and how in text and "'w'" in text and "42" in text
    assert text.endswith("the last lines of w.err:\n    killed\n")
    assert (error.name, error.exitcode) == ("w", code) and "42" in error.instructions
    assert ("os._exit?" in text) == (code is not None and code >= 0)


def test_a_worker_that_took_too_long_is_told_what_it_was_allowed():
    """With the name, the instructions, what to do, and the end of the log; it is a `TimeoutError`."""
    error = _blame.overdue(a_member(), "the last lines of w.out:\n    step 3\n")
    text = str(error)
    assert isinstance(error, WorkerTimeout) and isinstance(error, TimeoutError)
    assert "'w'" in text and "2.5 s" in text and "42" in text and text.endswith("step 3\n")
    assert (error.name, error.seconds) == ("w", 2.5) and "42" in error.instructions


@pytest.mark.parametrize("make", [_blame.died, _blame.overdue])
def test_without_a_log_nothing_is_quoted(make):
    """No empty lines at the end of the message; it survives the way to main."""
    error = make(a_member(), "")
    assert str(error) == str(error).rstrip()
    came = pickle.loads(pickle.dumps(error))
    assert (type(came), str(came), vars(came)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("make", [_blame.died, _blame.overdue])
def test_instructions_that_cannot_be_shown_or_are_huge_are_no_obstacle(make):
    """The error is about something else."""
    assert "repr raised" in str(make(a_member(instructions={"bad": BadRepr()}), ""))
    assert len(str(make(a_member(instructions={"x": "y" * 10**6}), ""))) < 10_000


def test_a_set_that_can_never_start_is_told_why():
    """In the words of the scheduler; where it has no objection there is nothing to tell."""
    job = Job(3, {"name": "w", "memory": 1e9})
    error = _blame.judged(lambda instructions: f"too much: {instructions['memory']:g}.", job)
    assert isinstance(error, NeverStartable) and "'w'" in str(error) and "too much: 1e+09." in str(error)
    assert _blame.judged(lambda instructions: None, job) is None
    assert _blame.judged(lambda instructions: "", job) is None


def test_what_a_scheduler_raises_while_it_judges_is_the_error():
    """It cannot make sense of this set: that is the fault of the set."""
    trouble = ZeroDivisionError("of the scheduler")

    def judge(instructions):
        raise trouble

    assert _blame.judged(judge, Job(0, {})) is trouble


def test_no_room_is_told_with_the_limit_to_raise():
    """It is an OSError as well."""
    trouble = BlockingIOError(11, "Resource temporarily unavailable")
    error = _blame.no_room(SimpleNamespace(name="w"), Job(0, {"number": 42}), trouble)
    assert isinstance(error, WorkerNotStarted) and isinstance(error, OSError)
    text = str(error)
    assert all(word in text for word in ("'w'", "Resource temporarily unavailable", "ulimit -u", "42"))


def test_a_scheduler_that_launches_nothing_is_named():
    """With the number of the sets that wait, and the first of them."""

    class Lazy:
        pass

    error = _blame.stuck(Lazy(), [{"number": 42}, {"number": 43}])
    text = str(error)
    assert isinstance(error, SchedulerError) and "Lazy" in text and "2 pending" in text
    assert "42" in text and "43" not in text


def test_instructions_that_do_not_load_are_told_with_the_cause():
    """The trouble is the cause, and is described."""
    trouble = AttributeError("no such class")
    error = _blame.not_rebuilt(trouble)
    assert isinstance(error, InstructionsNotPicklable) and error.__cause__ is trouble
    assert "no such class" in str(error) and "before the Boss is made" in str(error)


# -- saying it --------------------------------------------------------------------------------------------

FAILURE = Failure("w", "workers exception", ("Traceback\n", "KeyError: 1\n"), "('number', 42)\n", "the log\n")


def test_a_failure_is_announced_whole(capfd, caplog):
    """Who, on the log; how, with which instructions and which last words, on standard error."""
    _blame.announce(FAILURE)
    err = capfd.readouterr().err
    parts = ("Traceback\nKeyError: 1\n", "guilty worker", "('number', 42)", "the log\n")
    order = [err.index(each) for each in parts]
    assert order == sorted(order)
    assert "worker w" in caplog.text


def test_a_failure_of_nobody_s_is_announced_as_the_listener_s(capfd, caplog):
    """Without instructions, and without a heading for them."""
    _blame.announce(Failure("", "workers exception", ("Traceback\n",)))
    assert "the listener" in caplog.text
    assert "Traceback" in capfd.readouterr().err
    assert "guilty" not in caplog.text


def test_neither_a_broken_standard_error_nor_a_broken_handler_stops_the_listener(monkeypatch, capfd):
    """Main is told anyhow."""

    class Handler(logging.Handler):
        def handle(self, record):
            raise RuntimeError("a handler of the user's")

    handler = Handler()
    log = logging.getLogger("taylorism")
    log.addHandler(handler)
    try:
        for stream in (None, io.TextIOWrapper(io.BytesIO())):
            if stream is not None:
                stream.close()
            monkeypatch.setattr(sys, "stderr", stream)
            _blame.announce(FAILURE)
            _blame.say(logging.ERROR, "nothing %s", BadRepr())
    finally:
        log.removeHandler(handler)


def test_what_is_said_is_said_where_it_was_said(caplog):
    """The line in the log is that of the caller, not of the module that says it."""
    with caplog.at_level(logging.INFO, "taylorism"):
        _blame.say(logging.INFO, "Worker %s started.", "w")
    (record,) = caplog.records
    said = (record.name, record.getMessage(), record.filename)
    assert said == ("taylorism", "Worker w started.", "test_blame.py")


def test_the_kernel_is_named_where_it_was_the_kernel():
    """It is known by its count of kills."""
    dead = a_member(exitcode=-9)
    dead.out_of_memory = True
    assert "killed by SIGKILL: by the kernel, out of memory" in str(_blame.died(dead, ""))


def test_who_used_too_much_is_told_both_figures():
    """What it had declared, and what it was seen to use."""
    error = _blame.overdrawn(a_member(exitcode=-15), "the last lines")
    assert (error.declared, error.used, error.name) == (10.0, 33.0, "w")
    assert "33 MiB" in str(error) and "memory=10 MiB" in str(error) and "the last lines" in str(error)
