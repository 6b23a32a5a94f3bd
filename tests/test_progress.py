"""Progress: a bar or lines that say how far the work is, and nothing else that happens for it."""

from __future__ import annotations

import errno
import importlib.util
import io
import logging
import math
import pickle
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from forked import Injector

from taylorism import _progress
from taylorism._channel import Frame, pack_record
from taylorism._messages import Cancelled, End, Movements, Over, Several, Start, State
from taylorism._progress import seconds_left, watcher
from taylorism._results import Results


class Clock:
    """Stands in for `time`; it is moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        """Return the time of this clock."""
        return self.now

    time = monotonic


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self):
        """Say so."""
        return True

    @property
    def last(self):
        """What the line that is drawn over and over shows now."""
        return [line for line in self.getvalue().replace("\n", "\r").split("\r") if line.strip()][-1]


class Bar:
    """Stands in for tqdm's: keeps what it was told."""

    made = ()

    def __init__(self, total, unit):
        self.total, self.unit, self.n, self.closed, self.drawn = total, unit, 0, False, []
        type(self).made = (*self.made, self)

    def set_postfix_str(self, text, refresh=True):
        """Draw; one that is closed draws nothing, as tqdm's."""
        if not self.closed:
            self.drawn.append((self.n, self.total, text))

    def close(self):
        """Be closed."""
        self.closed = True


@pytest.fixture
def clock(monkeypatch):
    """Have this test move the clock."""
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    return clock


@pytest.fixture
def at_terminal(monkeypatch):
    """Return what makes a terminal of standard error, which pytest sets anew between a fixture and its test."""

    def make():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return make


@pytest.fixture
def bars(monkeypatch):
    """Have bars that keep what they are told; return how to look at them."""
    monkeypatch.setattr(Bar, "made", ())
    monkeypatch.setattr(_progress, "_on_terminal", lambda: True)
    monkeypatch.setattr(_progress, "_bar_class", lambda: Bar)
    return lambda: Bar.made


@pytest.fixture
def lines(monkeypatch, caplog):
    """Have no terminal; return how to look at what was logged."""
    monkeypatch.setattr(_progress, "_on_terminal", lambda: False)
    caplog.set_level(logging.INFO, "taylorism")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "taylorism"]


def ordered(*expected, on_error="collect"):
    """Make results that expect a worker for each expected time."""
    results = Results(on_error)
    sets = [{} if seconds is None else {"expected_time": seconds} for seconds in expected]
    results.expect(range(len(sets)), sets, 1000.0)
    return results


def start(number, when=1000.0):
    """Make a start."""
    return Start(number, f"w{number}", 4000, None, 1, when)


def end(number, state=State.DONE):
    """Make an end."""
    return End(number, state, 1001.0)


def move(results, *moves):
    """Note some movements."""
    results.note(0, Frame(Movements(moves)))
    return results


# -- lines ------------------------------------------------------------------------------------------------


def test_off_a_terminal_a_line_is_logged_now_and_then(lines, clock, monkeypatch):
    """Every `PERIOD` seconds, however often there is news."""
    monkeypatch.setattr(_progress, "PERIOD", 10.0)
    results = ordered(*[None] * 5)
    watch, told = watcher(results), []
    move(results, start(0), start(1), start(2), start(3), end(0), end(1, State.FAILED))
    for clock.now in (1000.0, 1009.9, 1010.0, 1010.1, 1019.9, 1020.0, 1055.0, 1056.0):
        watch()
        told.append(len(lines()))
    assert told == [0, 0, 1, 1, 1, 2, 3, 3]
    assert lines()[0] == "1 of 5 workers done, 2 running, 1 failed"


def test_the_lines_come_every_half_minute():
    """As is promised."""
    assert _progress.PERIOD == 30.0


def test_the_line_has_an_estimate_of_the_end(lines, clock, monkeypatch):
    """Where all have an expected time."""
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    results = move(ordered(60.0, 60.0, 60.0), start(0), end(0))
    clock.now = 1030.0
    watcher(results)()
    assert lines() == ["1 of 3 workers done, 0 running, 0 failed, 0:01:00 left"]


def test_what_is_ordered_meanwhile_counts(lines, monkeypatch):
    """In the next line."""
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    results = ordered(None)
    watch = watcher(results)
    watch()
    results.expect([1, 2], [{}, {}], 1000.0)
    watch()
    assert [line[:6] for line in lines()] == ["0 of 1", "0 of 3"]


@pytest.mark.parametrize("stream", [None, "closed", "odd"])
def test_without_a_standard_error_there_are_lines(stream, monkeypatch, caplog):
    """Where it is none, closed, or something that is no file."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", {"closed": closed, "odd": SimpleNamespace(write=print)}.get(stream))
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    caplog.set_level(logging.INFO, "taylorism")
    watcher(ordered(None))()
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_without_tqdm_there_are_lines_and_a_word_about_it(at_terminal, monkeypatch, caplog):
    """Which says what to install; nothing is raised."""
    terminal = at_terminal()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.std", None)
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    caplog.set_level(logging.INFO, "taylorism")
    watcher(ordered(None))()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "pip install 'taylorism[progress]'" in caplog.records[0].getMessage()
    assert terminal.getvalue() == ""


def test_off_a_terminal_tqdm_is_not_even_looked_for(lines):
    """Nor is anything said of its absence."""
    program = (
        "import sys; sys.modules['tqdm'] = None\n"
        "from taylorism import _progress, _results\n"
        "_progress.watcher(_results.Results())()\n"
        "print(sorted(name for name in sys.modules if 'tqdm' in name))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("['tqdm']\n", "")


# -- the estimate -----------------------------------------------------------------------------------------


def test_half_of_what_was_expected_in_so_much_time_leaves_as_much():
    """Whatever the workers were said to take, and however many run at a time."""
    results = move(ordered(10.0, 10.0, 30.0, 10.0), start(0), start(1), end(0), end(1))
    move(results, start(2, 1010.0))
    # 20 s done, and 10 of the 30 that the third takes: half of 60 in 20 s
    assert seconds_left(results, 1020.0) == pytest.approx(20.0)


def test_a_worker_that_is_late_counts_as_about_to_end():
    """No more than was expected of it can have been done."""
    results = move(ordered(10.0, 10.0), start(0))
    assert seconds_left(results, 1100.0) == pytest.approx(100.0)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.STOPPED])
def test_what_has_ended_in_any_way_is_behind_us(state):
    """It will take no more time."""
    assert seconds_left(move(ordered(10.0, 10.0), start(0), end(0, state)), 1010.0) == pytest.approx(10.0)


def test_short_workers_count_like_others():
    """Whether the rest of them runs or waits."""
    results = ordered(10.0, 10.0, 30.0)
    packed = b"".join(pack_record(number, f"w{number}", pickle.dumps(None), 1000.0, 1001.0) for number in (0, 1))
    results.note(0, Frame(Several(77, None), (packed,)))
    assert seconds_left(results, 1010.0) == pytest.approx(15.0)


def test_what_never_ran_says_nothing_of_the_pace():
    """It was cancelled in the queue, or refused."""
    results = move(ordered(10.0, None, 10.0), start(0), end(0), end(1, State.CANCELLED))
    assert seconds_left(results, 1010.0) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("expected", "moves"),
    [
        ((), ()),
        ((10.0, 10.0), ()),
        ((10.0, None), (start(0),)),
        ((None, 10.0), (start(0),)),
        ((None, 10.0), (start(0), end(0))),
        ((10.0, 0.0), (start(0),)),
        ((10.0, "soon"), (start(0),)),
        ((10.0,), (start(0, 1100.0),)),
    ],
)
def test_no_estimate_where_something_is_not_declared_or_nothing_has_begun(expected, moves):
    """None is better than a wrong one."""
    assert seconds_left(move(ordered(*expected), *moves), 1100.0) is None


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -5.0, "nan", 1e300])
def test_an_odd_expected_time_does_not_cost_the_wait(seconds, lines, clock, monkeypatch):
    """What a worker will make of it is its own business; main goes on waiting."""
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    results = move(ordered(seconds, 10.0, seconds), start(0), start(1))
    clock.now = 1005.0
    watcher(results)()
    assert lines()[0].startswith("0 of 3 workers done, 2 running, 0 failed") and "-" not in lines()[0]


def test_a_clock_that_is_set_back_makes_no_estimate_below_nothing(lines, clock, monkeypatch):
    """Nobody is told that the work will be done before now."""
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    results = move(ordered(10.0, 10.0), start(0), end(0))
    clock.now = 900.0
    watcher(results)()
    assert "-" not in lines()[0]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""), (0.2, ", 0:00:00 left"), (61.0, ", 0:01:01 left"), (3599.6, ", 1:00:00 left"),
        (4e5, ", 111:06:40 left"),
    ],
)
def test_the_estimate_in_words(seconds, words):
    """Hours, minutes and seconds."""
    assert _progress._in_words(seconds) == words


# -- the bar ----------------------------------------------------------------------------------------------


def test_there_is_no_bar_before_there_is_work(bars):
    """Nor after it."""
    results = Results()
    watch = watcher(results)
    watch()
    results.expect([0], [{}], 1000.0)
    results.note(0, Frame(Over()))
    watch()
    assert bars() == ()


def test_the_bar_shows_done_running_and_failed(bars):
    """All that is settled has been dealt with, in whatever way."""
    results = ordered(*[None] * 6)
    watch = watcher(results)
    watch()
    move(results, start(0), start(1), start(2), end(0), end(1, State.FAILED), end(3, State.CANCELLED))
    watch()
    (bar,) = bars()
    assert bar.drawn == [(0, 6, "0 running, 0 failed"), (3, 6, "1 running, 1 failed")] and not bar.closed


def test_the_bar_is_closed_when_all_is_settled_and_another_made_for_more(bars):
    """A Boss may be given work again and again."""
    results = ordered(None)
    watch = watcher(results)
    watch()
    move(results, start(0), end(0))
    watch()
    watch()
    assert [(bar.closed, bar.n) for bar in bars()] == [(True, 1)]
    results.expect([1, 2], [{}, {}], 1000.0)
    watch()
    assert [(bar.closed, bar.total) for bar in bars()] == [(True, 1), (False, 3)]


def test_the_estimate_of_the_bar_is_made_once_a_second(bars, clock, monkeypatch):
    """It goes through all the workers, which may be many, and news may come often."""
    asked = []
    monkeypatch.setattr(_progress, "seconds_left", lambda results, now: asked.append(now) or 75.0)
    watch = watcher(ordered(10.0))
    for clock.now in (1000.0, 1000.3, 1000.9, 1001.0, 1001.5):
        watch()
    assert asked == [1000.0, 1001.0]
    assert {text for _, _, text in bars()[0].drawn} == {"0 running, 0 failed, 0:01:15 left"}


def test_a_bar_may_be_drawn_from_within_the_drawing_of_it(bars):
    """By a signal handler of the user's that waits, or another thread that does: nobody's wait fails for it."""

    def run(at):
        results = ordered(None)
        watch = watcher(results)
        watch()

        def meanwhile():
            move(results, start(0), end(0))
            watch()

        injector = Injector(_progress, at, meanwhile)
        injector.run(watch)
        watch()
        return injector.count

    count, failed = run(0), {}
    assert count > 20
    for at in range(1, count):
        try:
            run(at)
        except Exception as error:
            failed[at] = error
    assert not failed


# -- tqdm -------------------------------------------------------------------------------------------------


@pytest.fixture
def tqdm():
    """Have tqdm, or skip."""
    return pytest.importorskip("tqdm.std")


def test_on_a_terminal_there_is_a_bar_of_tqdm(tqdm, at_terminal):
    """From the first work to the last."""
    terminal = at_terminal()
    results = ordered(None, None, None)
    watch = watcher(results)
    watch()
    move(results, start(0), start(1), end(0), end(1, State.FAILED), start(2))
    watch()
    assert "2/3" in terminal.last and "1 running, 1 failed" in terminal.last and "worker" in terminal.last
    move(results, end(2))
    watch()
    assert "3/3" in terminal.last and "100%" in terminal.last and terminal.getvalue().endswith("\n")


def test_the_bar_grows_with_what_is_ordered(tqdm, at_terminal):
    """Its total is what was ordered so far."""
    terminal = at_terminal()
    results = ordered(None)
    watch = watcher(results)
    watch()
    results.expect([1, 2, 3], [{}] * 3, 1000.0)
    move(results, start(0), end(0))
    watch()
    assert "1/4" in terminal.last
    results.note(1, Frame(Over()))
    watch()


def test_no_thread_and_no_lock_between_processes_is_made(tqdm, at_terminal, monkeypatch):
    """Main forks: a thread, or a lock that one holds, would be the end of the listener."""
    terminal = at_terminal()

    def never(*args, **kwargs):
        raise AssertionError("made")

    monkeypatch.setattr(tqdm, "TMonitor", never)
    monkeypatch.setattr(tqdm.TqdmDefaultWriteLock, "__init__", never)
    monkeypatch.setattr(tqdm.TqdmDefaultWriteLock, "create_mp_lock", never)
    threads = threading.enumerate()
    results = ordered(None)
    watch = watcher(results)
    watch()
    assert threading.enumerate() == threads
    move(results, start(0), end(0))
    watch()
    assert "1/1" in terminal.last and threading.enumerate() == threads


def test_no_semaphore_is_made_in_a_whole_program(tqdm):
    """Nothing that multiprocessing would have to clean up, and one thread."""
    program = (
        "import io, sys, threading\n"
        "class Terminal(io.StringIO):\n"
        "    isatty = lambda self: True\n"
        "sys.stderr = Terminal()\n"
        "from taylorism import _progress, _results\n"
        "results = _results.Results()\n"
        "results.expect([0], [{}], 0.)\n"
        "_progress.watcher(results)()\n"
        "assert '0/1' in sys.stderr.getvalue()\n"
        "print(threading.active_count(), 'multiprocessing.synchronize' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "1 False\n"


def test_the_users_own_bars_stay_as_they_are(tqdm, at_terminal):
    """The lock and the monitor are left out of ours alone."""
    at_terminal()
    before = dict(vars(tqdm.tqdm))
    results = ordered(None)
    watch = watcher(results)
    watch()
    move(results, start(0), end(0))
    watch()
    changed = {name for name, value in vars(tqdm.tqdm).items() if before.get(name) is not value}
    assert changed <= {"_instances"} and tqdm.tqdm.monitor_interval > 0


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_a_terminal_that_is_gone_does_not_cost_the_wait(number, tqdm, at_terminal, monkeypatch, caplog):
    """The window was closed, or who takes the output has ended; the work goes on, and it is said once at most."""
    terminal = at_terminal()
    results = ordered(*[None] * 4)
    watch = watcher(results)
    watch()

    def gone(text=""):
        raise OSError(number, "gone")

    monkeypatch.setattr(terminal, "write", gone)
    monkeypatch.setattr(terminal, "flush", gone)
    for worker in range(4):
        move(results, start(worker))
        watch()
    move(results, *map(end, range(4)))
    watch()
    assert len([record for record in caplog.records if record.name == "taylorism"]) <= 1


def test_in_a_notebook_there_is_a_bar_though_there_is_no_terminal(tqdm, monkeypatch):
    """As text where the notebook has no widgets."""
    stream = Terminal()
    monkeypatch.setattr(stream, "isatty", lambda: False)
    monkeypatch.setattr(sys, "stderr", stream)
    shell = SimpleNamespace(initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace(ZMQInteractiveShell=shell))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find_spec(name))
    results = ordered(None)
    watch = watcher(results)
    watch()
    assert "0/1" in stream.last
    results.note(0, Frame(Over()))
    watch()


@pytest.mark.parametrize("shell", [None, SimpleNamespace(), SimpleNamespace(initialized=lambda: False)])
def test_a_module_of_notebooks_makes_no_notebook(shell, lines, monkeypatch):
    """It may be imported in any program."""
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace(ZMQInteractiveShell=shell))
    if shell is not None and not hasattr(shell, "initialized"):
        monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace())
    monkeypatch.setattr(_progress, "PERIOD", 0.0)
    watcher(ordered(None))()
    assert lines() == ["0 of 1 workers done, 0 running, 0 failed"]


def test_news_of_other_kinds_change_nothing(bars):
    """An answer to an order is no progress."""
    results = ordered(None)
    watch = watcher(results)
    watch()
    results.note(0, Frame(Cancelled(0, ())))
    watch()
    assert bars()[0].drawn == [(0, 1, "0 running, 0 failed")] * 2
