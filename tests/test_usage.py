"""What a worker used: a small one of a big main program looks small, and the looks cost next to nothing."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from forked import exit_code, fork, in_fork

from taylorism import _memory, _tree, _usage
from taylorism._usage import Baseline, Lookout, Usage

MIB = 2**20


def block(size):
    """Return that many MiB, each page of them written to."""
    return np.ones(size * MIB, "u1")


def used(life, baseline=None):
    """Return the peak of a fork that calls `life`, as it is after its end."""
    usage = Usage(_memory.anonymous() if baseline is None else baseline)
    pid = fork(life)
    usage.rusage = os.wait4(pid, 0)[2]
    return usage.peak


# -- the peak of one ------------------------------------------------------------------------------------


def a_big_parent(life):
    """Return the peak of a fork of a process with 600 MiB of its own; `life` is given them."""

    def check():
        big = block(600)
        assert _memory.anonymous() > 600
        return used(lambda: life(big))

    return in_fork(check)


def test_an_empty_worker_of_a_big_parent_looks_small():
    """600 MiB that it shares are not its own; 50 MiB is what is promised."""
    assert a_big_parent(lambda big: None) < 50


def test_a_worker_that_reads_all_of_its_big_parent_looks_small():
    """To look is not to have."""
    assert a_big_parent(lambda big: int(big.sum())) < 50


def test_what_a_worker_of_a_big_parent_takes_is_seen():
    """On top of what it shares."""
    assert 80 <= a_big_parent(lambda big: block(80)) < 130


def test_what_a_worker_takes_and_gives_back_is_seen():
    """It is the peak."""

    def life():
        kept = block(80)
        del kept

    assert 80 <= in_fork(lambda: used(life)) < 130


def test_shared_pages_are_not_counted_as_a_baseline():
    """A shared array of main is nobody's own: it must not hide what the worker takes."""

    def check():
        before = _memory.anonymous()
        shared = mmap.mmap(-1, 200 * MIB)
        np.frombuffer(shared, "u1")[:] = 1
        assert _memory.anonymous() < before + 100
        return used(lambda: block(80))

    assert in_fork(check) >= 80


def test_the_peak_is_the_larger_of_what_was_seen_and_what_the_system_says():
    """Whichever it is, and never below nothing."""
    usage = Usage(100.0)
    assert usage.peak is None
    usage.rusage = SimpleNamespace(ru_maxrss=150 * 1024)
    assert usage.peak == 50.0
    usage.private = 70.0
    assert usage.peak == 70.0
    assert Usage(200.0, 0.0, usage.rusage).peak == 0.0


def test_what_cannot_be_known_is_none_with_a_reason():
    """No number is invented; where all is known there is no reason."""
    end = SimpleNamespace(ru_maxrss=1024)
    assert Usage(0.5, 0.0, end).unknown == ""
    for usage, why in ((Usage(0.5), "noted by another"), (Usage(None, 3.0, end), "system does not tell")):
        assert usage.peak is None and why in usage.unknown


def test_without_proc_nothing_is_known(monkeypatch):
    """macOS: the baseline is none, hence the peak, with a reason; nothing fails."""

    def without_proc(real):
        def no_proc(path, *args, **options):
            if str(path).startswith("/proc"):
                raise FileNotFoundError(2, "No such file or directory", path)
            return real(path, *args, **options)

        return no_proc

    monkeypatch.setattr("builtins.open", without_proc(open))
    monkeypatch.setattr(_memory.os, "open", without_proc(os.open))
    assert _memory.anonymous() is None and _memory.private(os.getpid()) == 0.0
    usage = Usage(Baseline().now(), 0.0, SimpleNamespace(ru_maxrss=1024))
    assert usage.baseline is None and usage.peak is None and usage.unknown


# -- the baseline -----------------------------------------------------------------------------------------


def test_the_baseline_is_looked_up_now_and_then(monkeypatch):
    """It is asked for at each start; a thousand starts in a moment are one look."""
    now, looks = [100.0], []
    monkeypatch.setattr(_usage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_memory, "anonymous", lambda: looks.append(now[0]) or float(len(looks)))
    baseline = Baseline()
    assert [baseline.now() for _ in range(1000)] == [1.0] * 1000
    now[0] += _usage._FRESH + 0.01
    assert baseline.now() == 2.0 and looks == [100.0, now[0]]
    assert _usage._FRESH <= 1.0, "what main has meanwhile would be charged to the workers"


def test_a_system_that_does_not_tell_is_not_asked_all_the_time(monkeypatch):
    """None is an answer too."""
    looks = []
    monkeypatch.setattr(_usage.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(_memory, "anonymous", lambda: looks.append(1))
    baseline = Baseline()
    assert [baseline.now() for _ in range(10)] == [None] * 10 and len(looks) == 1


# -- the lookout ------------------------------------------------------------------------------------------


class Watch:
    """A lookout, clocks that are set by hand, and looks that cost what they are told to."""

    def __init__(self, monkeypatch, cost=0.0, private=lambda pid: 1.0):
        self.now, self.spent, self.cost = 100.0, 0.0, cost
        self.looks = []
        self.size = private
        monkeypatch.setattr(_usage.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(_usage.time, "process_time", lambda: self.spent)
        monkeypatch.setattr(_memory, "private", self.private)
        monkeypatch.setattr(_tree, "descendants", lambda pid: [])
        self.lookout = Lookout()

    def private(self, pid):
        """Measure, at the cost."""
        self.looks.append((self.now, pid))
        self.spent += self.cost
        return self.size(pid)

    def run(self, until, workers):
        """Look whenever it is time."""
        while self.lookout.next_look <= until:
            self.now = max(self.now, self.lookout.next_look)
            self.lookout.look(self.now, workers)


def test_nobody_is_looked_at_before_anybody_has_started(monkeypatch):
    """And an idle listener is not woken for it."""
    watch = Watch(monkeypatch)
    assert watch.lookout.next_look == float("inf")
    watch.lookout.look(1e9, [(1, Usage(0.0))])
    assert watch.looks == []


def test_the_young_are_left_alone(monkeypatch):
    """Most workers are gone before the first look; so empty ones cost nothing."""
    watch = Watch(monkeypatch)
    watch.lookout.welcome()
    due = watch.lookout.next_look
    assert due == 100.0 + _usage._PAUSE
    watch.lookout.look(due - 0.01, [(1, Usage(0.0))])
    assert watch.looks == []
    watch.now = due - 0.02
    watch.lookout.welcome()
    assert watch.lookout.next_look == due, "who starts next must not put off the look for ever"


def test_looks_are_rare(monkeypatch):
    """Though they cost nothing; still often enough to see something."""
    watch = Watch(monkeypatch)
    watch.lookout.welcome()
    watch.run(200.0, [(1, Usage(0.0))])
    assert len(watch.looks) == 100 / _usage._PAUSE


@pytest.mark.parametrize("cost", [0.001, 0.01, 0.5])
def test_looks_are_the_rarer_the_more_they_cost(monkeypatch, cost):
    """A thousandth of a processor, whatever the size of main and the number of workers."""
    watch = Watch(monkeypatch, cost)
    watch.lookout.welcome()
    workers = [(pid, Usage(0.0)) for pid in range(4)]
    watch.run(100_100.0, workers)
    assert len(watch.looks) >= 4
    assert (len(watch.looks) - 4) * cost <= 0.001 * 100_000


def test_with_nobody_left_there_is_no_further_look(monkeypatch):
    """Until somebody starts again."""
    watch = Watch(monkeypatch)
    watch.lookout.welcome()
    watch.run(1e6, iter(()))
    assert watch.lookout.next_look == float("inf") and watch.looks == []
    watch.lookout.welcome()
    assert watch.lookout.next_look < float("inf")


def test_the_most_that_was_seen_is_kept(monkeypatch):
    """Of each worker by itself."""
    sizes = {1: iter([5.0, 80.0, 10.0]), 2: iter([1.0, 0.0, 2.0])}
    watch = Watch(monkeypatch, private=lambda pid: next(sizes[pid]))
    watch.lookout.welcome()
    workers = [(pid, Usage(0.0)) for pid in sizes]
    watch.run(watch.lookout.next_look + 2 * _usage._PAUSE, workers)
    assert [usage.private for _, usage in workers] == [80.0, 2.0]


def test_what_a_worker_has_started_is_counted_with_it(monkeypatch):
    """The sum over its tree, at one moment."""
    watch = Watch(monkeypatch, private=lambda pid: {1: 5.0, 10: 20.0, 100: 7.0}[pid])
    monkeypatch.setattr(_tree, "descendants", lambda pid: [10, 100] if pid == 1 else [])
    watch.lookout.welcome()
    usage = Usage(0.0)
    watch.run(watch.lookout.next_look, [(1, usage)])
    assert usage.private == 32.0


def test_a_look_at_real_processes_sees_what_the_peak_of_a_big_parent_hides():
    """A program that is started by a worker has an inherited peak: only from outside can its own be seen."""

    def check():
        big = block(300)
        reader, writer = os.pipe()

        def program():
            take = f"import os; kept = b'x' * {100 * MIB}; os.write({writer}, b'!'); import time; time.sleep(50)"
            os.set_inheritable(writer, True)
            os.execv(sys.executable, [sys.executable, "-c", take])

        def life():
            fork(program)
            time.sleep(50)

        usage = Usage(_memory.anonymous())
        pid = fork(life)
        os.read(reader, 1)
        lookout = Lookout()
        lookout.welcome()
        lookout.look(lookout.next_look, [(pid, usage)])
        _tree.send([*_tree.descendants(pid), pid], signal.SIGKILL)
        exit_code(pid)
        assert big[0] == 1
        return usage.private

    assert 100 <= in_fork(check) < 160
