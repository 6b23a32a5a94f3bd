"""The ladder: SIGTERM, a grace time, SIGKILL until nobody is left, and an end in any case."""

from __future__ import annotations

import os
import signal

import pytest
from forked import exit_code, fork, in_fork

from taylorism import _ladder, _tree
from taylorism._ladder import Ladder

STOP = (signal.SIGSTOP,)
TERM = (signal.SIGTERM, signal.SIGCONT)
KILL = (signal.SIGKILL,)


class Scene:
    """A clock that is set by hand, people who live on until they are told otherwise, and what they were sent."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.people = [11, 12]
        self.sent = []
        monkeypatch.setattr(_ladder.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(_tree, "send", lambda pids, *signals: self.sent.append((list(pids), signals)))

    def ladder(self, grace):
        """Begin."""
        return Ladder(lambda: self.people, grace)

    def descend(self, ladder, now):
        """Come to a point of time; return what was sent at it."""
        self.now, self.sent = now, []
        ladder.descend(now)
        return self.sent


@pytest.fixture
def scene(monkeypatch):
    """Give a scene."""
    return Scene(monkeypatch)


def test_the_first_step_is_polite_and_wakes_who_is_suspended(scene):
    """SIGTERM, then SIGCONT, to everybody, who was suspended before; the next step is a grace time away."""
    ladder = scene.ladder(5.0)
    assert scene.sent == [([11, 12], STOP), ([11, 12], TERM)]
    assert ladder.next_step == 105.0
    assert scene.descend(ladder, 104.9) == []
    assert not ladder.at_the_end and not ladder.has_given_up


def test_workers_are_told_again(scene):
    """The first SIGTERM may have come just before a call that blocks; those who were not told are not told now."""
    ladder = Ladder(lambda: scene.people, 5.0, lambda: [12, 15])
    assert scene.descend(ladder, 100.1) == [([12], (signal.SIGTERM,))]
    assert scene.descend(ladder, 100.11) == []


def test_who_is_forked_meanwhile_is_told_too(scene):
    """Everybody is suspended until nobody new is seen; those who cannot be are waited for no longer."""
    scene.people = []
    seen = iter([[11], [11, 13], [11, 13, 14]])
    Ladder(lambda: next(seen, [11, 13, 14]), 5.0)
    assert scene.sent == [([11], STOP), ([13], STOP), ([14], STOP), ([11, 13, 14], TERM)]
    forking = iter(range(1000))
    Ladder(lambda: [next(forking)], 5.0)
    assert next(forking) < 100


def test_the_second_step_kills_who_is_there_then_again_and_again(scene):
    """What is killed may have forked meanwhile; SIGTERM is sent once."""
    ladder = scene.ladder(5.0)
    scene.people = [12, 13]
    assert scene.descend(ladder, 105.0) == [([12, 13], KILL)]
    assert scene.descend(ladder, 105.0) == []
    scene.people = [14]
    later = ladder.next_step
    assert 105.0 < later <= 105.1
    assert scene.descend(ladder, later) == [([14], KILL)]


def test_the_end_is_reached_when_nobody_is_left(scene):
    """At whatever step."""
    ladder = scene.ladder(5.0)
    assert not ladder.at_the_end
    scene.people = []
    assert ladder.at_the_end and not ladder.has_given_up


def test_who_cannot_be_killed_is_given_up(scene):
    """Some seconds after the first SIGKILL, not before, and for good."""
    ladder = scene.ladder(5.0)
    now = 100.0
    while not ladder.has_given_up:
        assert now < 200.0, "it is waited for without end"
        scene.descend(ladder, now)
        now = ladder.next_step
    assert 105.0 + _ladder._UNKILLABLE <= now <= 105.2 + _ladder._UNKILLABLE
    assert ladder.at_the_end and scene.people


def test_a_grace_of_nothing_kills_at_the_next_step(scene):
    """``stop_grace=0``; SIGTERM has gone before."""
    ladder = scene.ladder(0.0)
    assert scene.sent == [([11, 12], STOP), ([11, 12], TERM)]
    assert scene.descend(ladder, scene.now) == [([11, 12], KILL)]


@pytest.mark.parametrize(("grace", "step"), [(1.0, 102.0), (2.9, 103.9), (10.0, 105.0)])
def test_a_hurry_only_shortens(scene, grace, step):
    """A second order may allow less time, never more; nobody is sent SIGTERM twice."""
    ladder = scene.ladder(5.0)
    scene.now, scene.sent = 101.0, []
    ladder.hurry(grace)
    assert ladder.next_step == pytest.approx(step) and scene.sent == []
    scene.descend(ladder, ladder.next_step)
    scene.now = step + _ladder._UNKILLABLE - 0.01
    assert not ladder.has_given_up
    scene.now = step + _ladder._UNKILLABLE + 0.01
    assert ladder.has_given_up


@pytest.mark.parametrize("grace", [0.0, 0.01, 7.0])
def test_a_hurry_after_the_kill_postpones_nothing(scene, grace):
    """Each failure orders the stop again: who cannot be killed is given up all the same."""
    ladder = scene.ladder(1.0)
    end = 101.0 + _ladder._UNKILLABLE
    scene.descend(ladder, 101.0)
    while scene.now <= end:
        ladder.hurry(grace)
        scene.descend(ladder, scene.now + 0.01)
    assert ladder.has_given_up


def test_an_orphan_is_told_as_well():
    """A program that was forked too late for SIGTERM: as soon as its parent has gone, and not before."""

    def parent(writer):
        signal.signal(signal.SIGTERM, lambda *_: fork(program, writer))
        os.write(writer, b"!")
        while True:
            signal.pause()

    def program(writer):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.write(writer, b"!")
        signal.pause()

    def check():
        _tree.become_subreaper()
        reader, writer = os.pipe()
        first = fork(parent, writer)
        os.read(reader, 1)
        family = _tree.Family([first])
        ladder = Ladder(family.living, 60.0)
        os.read(reader, 1)
        [late] = _tree.children(first)
        before, kill_at = ladder.due, ladder.next_step
        ladder.descend(before)
        assert sorted(family.living()) == sorted([first, late])
        os.kill(first, signal.SIGKILL)
        assert exit_code(first) == -signal.SIGKILL
        ladder.descend(before)
        assert before < ladder.due < ladder.next_step == kill_at
        os.kill(late, 0)
        ladder.descend(ladder.due)
        return exit_code(late) == -signal.SIGTERM

    assert in_fork(check)


def test_real_processes_come_to_their_end():
    """One that goes at SIGTERM, one that ignores it and is killed, and nobody else."""

    def polite(writer):
        os.write(writer, b"!")
        while True:
            signal.pause()

    def stubborn(writer):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        polite(writer)

    def check():
        reader, writer = os.pipe()
        first, second, other = (fork(life, writer) for life in (polite, stubborn, polite))
        for _ in range(3):
            os.read(reader, 1)
        family = _tree.Family([first, second])
        ladder = Ladder(family.living, 0.0)
        assert exit_code(first) == -signal.SIGTERM
        assert not ladder.at_the_end
        ladder.descend(ladder.next_step)
        assert exit_code(second) == -signal.SIGKILL
        assert ladder.at_the_end and not ladder.has_given_up
        os.kill(other, 0)
        os.kill(other, signal.SIGKILL)
        return exit_code(other) == -signal.SIGKILL

    assert in_fork(check)
