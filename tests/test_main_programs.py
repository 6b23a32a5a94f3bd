"""What happens when main itself ends, is killed, or lives in odd surroundings, in programs of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import workers
from workers import until

SCENARIOS = workers.HERE / "programs" / "scenarios.py"
#: seconds within which nothing may be left of a program that was killed
SOON = 3.0


class Program:
    """A main program in a process group of its own; all that it starts carries a mark in its environment."""

    def __init__(self, place: Path, *arguments: str, **options: Any) -> None:
        self.place = place
        self.mark = str(uuid.uuid4())
        environment = {**os.environ, "TEST_MARK": self.mark, "PYTHONFAULTHANDLER": ""}
        options.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=place,
            env={**environment, **options.pop("env", {})},
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )

    def end(self, seconds: float = 20.0) -> tuple[int, str, str]:
        """Wait for main alone; return its exit status and what came out."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, (out or b"").decode(), err.decode()

    def said(self) -> str:
        """Wait for what it has to say."""
        path = self.place / "said"
        until(lambda: path.exists() or self.process.poll() is not None, "a word", 20)
        assert path.exists(), self.process.communicate()
        return path.read_text().strip()

    def left(self) -> list[psutil.Process]:
        """Return what is left of it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TEST_MARK") == self.mark:
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def leaves_nothing(self, seconds: float = SOON) -> None:
        """Check that nothing is left soon after the end of main."""
        deadline = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left, [(process.pid, process.cmdline()) for process in left]

    def close(self) -> None:
        """Clear up after a test that failed."""
        self.process.kill()
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait()


@pytest.fixture
def program(tmp_path) -> Iterator[Any]:
    """Return a function that starts a scenario."""
    programs = []

    def start(name: str, **options: Any) -> Program:
        flags = options.pop("flags", [])
        programs.append(Program(tmp_path, *flags, str(SCENARIOS), name, str(tmp_path), **options))
        return programs[-1]

    yield start
    for each in programs:
        each.close()


def done(place: Path) -> int:
    """Return how many of the six things are done."""
    return len(list(place.glob("done*")))


# ---------------------------------------------------------------------------------------------------------
# the import
# ---------------------------------------------------------------------------------------------------------

_IMPORT = """
import sys, logging, signal, threading, os
handlers = [signal.getsignal(n) for n in range(1, 32)]
import footprints
before = {name: list(logging.getLogger(name).handlers) for name in (None, "footprints", "bronx")}
level = logging.getLogger().level
import taylorism
from taylorism import *
assert [signal.getsignal(n) for n in range(1, 32)] == handlers
assert not {"numpy", "matplotlib", "multiprocessing.process"} & set(sys.modules), "heavy imports"
assert threading.active_count() == 1
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    assert not file.read()
assert {name: list(logging.getLogger(name).handlers) for name in before} == before
assert logging.getLogger().level == level
assert [type(h) for h in logging.getLogger("taylorism").handlers] == [logging.NullHandler]
assert taylorism.taylorism_log is logging.getLogger("taylorism")
assert taylorism.communications_timeout == 0.01
taylorism.communications_timeout = 1
from bronx.fancies import loggers
assert loggers.getLogger("taylorism") is taylorism.taylorism_log
taylorism.taylorism_log.setLevel("DEBUG")
loggers.setGlobalLevel("ERROR")
assert taylorism.taylorism_log.getEffectiveLevel() == logging.ERROR
"""


def test_import_does_nothing(tmp_path):
    """The import prints nothing, starts nothing, installs nothing, and is light."""
    program = Program(tmp_path, "-W", "error", "-c", _IMPORT)
    assert program.end() == (0, "", "")


# ---------------------------------------------------------------------------------------------------------
# exits
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("exit_without_end", 0),
        ("exit_unused", 0),
        ("exit_with_program", 0),
        ("exit_uncaught", 1),
        ("exit_with_code", 3),
        ("exit_hard", 4),
        ("exit_by_exec", 0),
        ("exit_after_failure", 0),
        ("exit_after_interrupted_wait", 0),
    ],
)
def test_exits_that_stop_the_work(name, status, program, tmp_path):
    """The interpreter always exits with its own status, and stops what was not ended."""
    main = program(name)
    code, _, err = main.end()
    assert code == status, err
    main.leaves_nothing()
    assert not (tmp_path / "w.done").exists()
    assert (tmp_path / "w.cleaned").exists() == (tmp_path / "w.pid").exists()
    assert "Exception ignored" not in err


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("exit_with_end", 0),
        ("exit_with_end_forgotten", 0),
        ("exit_with_terminate_unused", 0),
        ("exit_uncaught_after_end", 1),
        ("exit_after_stop_listening", 0),
        ("exit_while_a_thread_waits", 0),
    ],
)
def test_exits_that_finish_the_work(name, status, program, tmp_path):
    """If `end()` was called, the work that was ordered is finished before the program leaves."""
    main = program(name)
    code, _, err = main.end()
    assert code == status and done(tmp_path) == 6, err
    main.leaves_nothing(1.0)


def test_exit_of_a_fork_does_nothing(program):
    """A fork of main that exits does not touch the work of its parent."""
    main = program("exit_of_a_fork")
    assert main.end()[0] == 0 and main.said() == "['w']"
    main.leaves_nothing()


@pytest.mark.parametrize("name", ["exit_slow", "exit_slow_after_end"])
def test_second_ctrl_c_during_the_exit(name, program):
    """Ctrl-C while the exit waits for tasks that swallow everything ends it at once, again and again."""
    main = program(name)
    assert main.said() == "leaving"
    deadline = time.monotonic() + 20
    while main.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        main.process.send_signal(signal.SIGINT)
    main.end(1)
    main.leaves_nothing()


# ---------------------------------------------------------------------------------------------------------
# killed
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("target", ["main", "group"])
def test_main_is_killed_with_all_sorts_of_workers(signum, target, program):
    """Main, or its group, is killed while programs, deaf tasks and inner Bosses run: nothing is left soon."""
    main = program("wait_with_all_sorts")
    assert main.said() == "ready"
    (os.kill if target == "main" else os.killpg)(main.process.pid, signum)
    # after a Ctrl-C, main has the grace time of 5 s for the task that is deaf
    code, _, err = main.end()
    main.leaves_nothing()
    assert code == -signum, err
    assert "WorkerDied" not in err, err
    if (target, signum) == ("group", signal.SIGINT):
        assert "error encountered" not in err, err  # nor does the listener of an inner Boss complain


def test_main_is_killed_while_others_hold_its_channel(program):
    """Other children of main, which hold copies of its descriptors, do not hide its death."""
    main = program("killed_with_copies_of_the_channel")
    assert main.said() == "ready"
    workers_pid = workers.pid_in(main.place / "w.pid")
    os.kill(main.process.pid, signal.SIGKILL)
    main.process.wait()
    until(lambda: not workers.alive(workers_pid), "the worker's end", SOON)


@pytest.mark.parametrize("when", ["before_it_ends", "as_it_ends", "in_end", "after_its_end"])
def test_ctrl_c_around_the_end(when, program):
    """Main that a Ctrl-C ends stops its workers, though it has said, or was about to, that no more will come."""
    main = program(f"interrupted_{when}")
    code, _, err = main.end()
    assert code == -signal.SIGINT, err
    assert (main.place / "w.cleaned").exists()
    main.leaves_nothing()


@pytest.mark.parametrize("target", ["main", "group"])
def test_ctrl_c_caught_by_main(target, program, tmp_path):
    """After a Ctrl-C that main catches, stop, wait and report work; interrupted workers are no error."""
    main = program("wait_and_catch")
    assert main.said() == "ready"
    (tmp_path / "said").unlink()
    (os.kill if target == "main" else os.killpg)(main.process.pid, signal.SIGINT)
    assert main.said() == "('pending', ['w'])"
    code, _, err = main.end()
    assert code == 0 and "Traceback" not in err
    assert (tmp_path / "w.cleaned").exists()
    main.leaves_nothing()


def test_ctrl_c_of_a_main_that_has_not_come_to_it_yet(program):
    """However long a busy machine keeps main from stopping everything, what died of the Ctrl-C is no error."""
    main = program("wait_and_be_busy")
    assert main.said() == "ready"
    os.killpg(main.process.pid, signal.SIGINT)
    code, _, err = main.end()
    assert code == -signal.SIGINT and "WorkerDied" not in err
    main.leaves_nothing()


def test_ctrl_c_of_a_main_that_goes_on(program):
    """When main has had its time, and sleeps over it, what died of the Ctrl-C is an error like any other."""
    main = program("wait_and_think")
    assert main.said() == "ready"
    os.killpg(main.process.pid, signal.SIGINT)
    code, _, err = main.end()
    assert code == 1 and "WorkerDied" in err and "killed by SIGINT" in err
    main.leaves_nothing()


@pytest.mark.parametrize("target", ["main", "group"])
@pytest.mark.parametrize(
    ("signum", "told"), [(signal.SIGTERM, "SignalInterruptError"), (signal.SIGINT, "KeyboardInterrupt")]
)
def test_batch_main_is_interrupted(target, signum, told, program, tmp_path):
    """A SIGTERM or Ctrl-C of a batch, or of its whole group, comes out; the workers were stopped."""
    main = program("batch")
    workers.pid_in(tmp_path / "w.pid")
    (os.kill if target == "main" else os.killpg)(main.process.pid, signum)
    code, _, err = main.end()
    assert code != 0 and told in err and "WorkerDied" not in err
    assert (tmp_path / "w.cleaned").exists()
    main.leaves_nothing()


def test_batch_main_sigterm_can_be_caught(program, tmp_path):
    """The caller can catch it, and has his handler back."""
    main = program("batch_catching")
    workers.pid_in(tmp_path / "w.pid")
    main.process.terminate()
    assert main.said() == "('caught', True)" and main.end()[0] == 0


def test_timer_thread_stops_while_main_is_busy(program):
    """A Timer thread stops the workers while main does something else."""
    main = program("blocked_main_and_timer")
    assert main.said() == "['w']" and main.end()[0] == 0


# ---------------------------------------------------------------------------------------------------------
# surroundings
# ---------------------------------------------------------------------------------------------------------


def test_threads_that_hold_locks(program):
    """Threads that print and log without a pause, hence hold these locks at the fork, block nothing."""
    with open(os.devnull, "w") as nowhere:
        main = program("threads_that_print_and_log", stdout=nowhere)
        assert main.end(50)[0] == 0 and main.said() == "done"


def test_thread_blocked_in_print(program):
    """A thread that holds the lock of stdout for ever does not block a Boss."""
    main = program("thread_blocked_in_print")
    assert main.said() == "[1]" and main.end()[0] == 0


def test_full_standard_error(program):
    """A standard error that nobody reads does not stop the listener."""
    main = program("full_standard_error")
    assert main.said() == "('told', 1)"
    main.end()
    main.leaves_nothing()


def test_closed_streams(program):
    """With 0, 1 and 2 closed before the Boss is made, no descriptor of ours takes their place."""
    main = program("closed_streams")
    assert main.said() == "(['5', 'w'], 'told')"
    main.end()
    main.leaves_nothing()


def test_started_with_closed_streams(tmp_path, program):
    """The same in a program that was started without them, whose `sys.stdout` is None."""
    command = f"exec {sys.executable} {SCENARIOS} closed_streams {tmp_path} <&- >&- 2>&-"
    subprocess.run(["sh", "-c", command], check=True, timeout=30)
    assert (tmp_path / "said").read_text().strip() == "(['5', 'None', 'w'], 'told')"


def test_unbuffered_output_of_a_worker(program):
    """Under ``python -u``, what a worker printed before it was killed has come out."""
    main = program("print_and_be_killed", flags=["-u"])
    assert main.end()[:2] == (0, "said before its death\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("worker_alone_with_buffered_text", ["from the worker", "once"]),
        ("boss_with_buffered_text", ["after", "from the worker", "once"]),
    ],
)
def test_buffered_text_comes_out_once(name, expected, program):
    """What main has printed and not flushed comes out once."""
    code, out, err = program(name).end()
    assert code == 0 and sorted(out.split("\n")[:-1]) == expected, err


def test_log_handlers(program, tmp_path):
    """Handlers for a file and for standard error work in main, listener and workers."""
    main = program("file_handler")
    code, _, err = main.end()
    assert code == 0 and main.said() == "done"
    for text in ((tmp_path / "log").read_text(), err):
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert [line for line in lines if "main" in line] == ["from main", "main again"]
        assert lines.count("from the task") == 1 and lines.count("Worker w started.") == 1
