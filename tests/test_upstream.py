"""Upstream: the listener's end of the way to main, and how it learns that main is gone."""

from __future__ import annotations

import os
import select

import pytest
from forked import exit_code, fork, in_fork

from taylorism import _upstream
from taylorism._channel import Channel, encode
from taylorism._messages import (
    End,
    Movements,
    NewSets,
    Order,
    Over,
    Signal,
    Snapshot,
    Start,
    State,
    WorkerDone,
    from_wire,
)
from taylorism._upstream import Upstream


class Stage:
    """A listener's end, and main's."""

    def __init__(self, main_pid=None, parent=False):
        self.main, other = Channel.pair()
        self.poller = select.poll()
        self.upstream = Upstream(other, os.getpid() if main_pid is None else main_pid, parent, self.poller)
        self.other = other

    def ready(self, milliseconds=0):
        """Return the descriptors that can be read, as the loop sees them."""
        return {fd for fd, _ in self.poller.poll(milliseconds)}

    def order(self, head, segments=()):
        """Send an order, as main does."""
        self.main.outflow.push(encode(head, segments))
        self.main.outflow.flush()

    def orders(self):
        """Return the heads of what has come."""
        return [frame.head for frame in self.upstream.orders(self.ready())]

    def heard(self):
        """Return the heads of what main has heard."""
        self.main.inflow.pull(to_the_end=True)
        return [from_wire(self.main.inflow.ready.pop(number).head) for number in sorted(self.main.inflow.ready)]

    def close(self):
        """Let go of everything."""
        self.main.close()
        self.upstream.hang_up()
        self.upstream.stop_watching()


@pytest.fixture
def stage():
    """Give a stage, and take it down."""
    stage = Stage()
    yield stage
    stage.close()


def test_orders_come_in_order_and_once(stage):
    """With their segments; nothing comes of nothing."""
    assert stage.orders() == []
    stage.order(NewSets(range(1)), [b"common", b"set"])
    stage.order(Order(Signal.RESUME))
    frames = list(stage.upstream.orders(stage.ready()))
    assert [frame.head for frame in frames] == [NewSets(range(1)), Order(Signal.RESUME)]
    assert [bytes(segment) for segment in frames[0].segments] == [b"common", b"set"]
    assert stage.orders() == [] and not stage.upstream.hung_up


def test_events_go_out_at_the_flush(stage):
    """And then all is said."""
    stage.upstream.tell(WorkerDone("a", 0), [b"report"])
    stage.upstream.tell(Over())
    assert not stage.upstream.all_said
    stage.upstream.flush(at_once=True)
    assert stage.upstream.all_said and stage.heard() == [WorkerDone("a", 0), Over()]


def test_a_main_that_does_not_read_blocks_nobody(stage):
    """The loop waits for room, and goes on when there is some; idle, it is not woken by room."""
    assert stage.ready() == set()
    stage.upstream.tell(WorkerDone("a", 0), [bytes(5_000_000)])
    stage.upstream.flush(at_once=True)
    assert not stage.upstream.all_said
    heard = []
    while not stage.upstream.all_said:
        heard += stage.heard()
        assert stage.poller.poll(5000), "nobody tells that there is room"
        stage.upstream.flush(at_once=True)
    assert heard + stage.heard() == [WorkerDone("a", 0)]
    assert stage.ready() == set()


def test_what_comes_in_a_burst_is_written_together(stage, monkeypatch):
    """The first at once, the others a moment later, of which the loop is told."""
    now = [100.0]
    monkeypatch.setattr(_upstream.time, "monotonic", lambda: now[0])
    told = []
    for name in "abc":
        stage.upstream.tell(WorkerDone(name, 0))
        stage.upstream.flush(at_once=False)
        told.append(stage.heard())
    assert told == [[WorkerDone("a", 0)], [], []]
    assert stage.upstream.next_due() == 100.0 + _upstream.PAUSE
    now[0] += _upstream.PAUSE
    stage.upstream.flush(at_once=False)
    assert stage.heard() == [WorkerDone("b", 0), WorkerDone("c", 0)]
    assert stage.upstream.next_due() == float("inf")
    stage.upstream.tell(Over())
    stage.upstream.flush(at_once=True)
    assert stage.heard() == [Over()]


def test_a_deaf_main_is_told_nothing(stage):
    """After STOP_LISTENING; it may still give orders."""
    stage.upstream.tell(Over())
    stage.upstream.deaf = True
    stage.upstream.tell(WorkerDone("a", 0))
    stage.upstream.flush(at_once=True)
    stage.order(Order(Signal.STOP_RIGHTNOW))
    assert stage.heard() == [Over()] and stage.orders() == [Order(Signal.STOP_RIGHTNOW)]


def a_start(number):
    """Return the start of a worker."""
    return Start(number, f"w{number}", 100 + number, None, 1, 5.0)


def test_movements_are_written_together_and_in_order(stage):
    """One event for all that came close upon each other; once."""
    moves = (a_start(1), a_start(2), End(1, State.DONE, 6.0, 0), a_start(1))
    for move in moves:
        stage.upstream.note(move if isinstance(move, End) else lambda move=move: move)
    stage.upstream.note(lambda: None)  # its end tells its start
    stage.upstream.flush(at_once=True)
    assert stage.heard() == [Movements(moves)]
    stage.upstream.flush(at_once=True)
    assert stage.heard() == []


def test_movements_come_before_what_may_be_the_last_word_on_them(stage):
    """But for reports, which are many: each event of its own would wake main."""
    stage.upstream.note(lambda: a_start(1))
    stage.upstream.tell(WorkerDone("w1", 1))
    stage.upstream.note(End(1, State.DONE, 6.0))
    stage.upstream.tell(Over())
    stage.upstream.flush(at_once=True)
    moves = Movements((a_start(1), End(1, State.DONE, 6.0)))
    assert stage.heard() == [WorkerDone("w1", 1), moves, Over()]


def test_a_movement_alone_is_written_soon(stage, monkeypatch):
    """Not with the next report, which may be hours away: the loop is told when."""
    now = [100.0]
    monkeypatch.setattr(_upstream.time, "monotonic", lambda: now[0])
    stage.upstream.flush(at_once=True)
    assert stage.upstream.next_due() == float("inf")
    stage.upstream.note(lambda: a_start(1))
    assert stage.upstream.next_due() == 100.0 + _upstream.PAUSE
    stage.upstream.flush(at_once=False)
    assert stage.heard() == []
    now[0] += _upstream.PAUSE
    stage.upstream.flush(at_once=False)
    assert stage.heard() == [Movements((a_start(1),))]
    assert stage.upstream.next_due() == float("inf")


def test_a_deaf_or_absent_main_is_told_of_no_movement(stage):
    """Neither then nor later, and the loop is not woken for it."""
    stage.upstream.deaf = True
    stage.upstream.note(lambda: a_start(1))
    stage.upstream.flush(at_once=True)
    assert stage.heard() == [] and stage.upstream.next_due() == float("inf")
    stage.upstream.hang_up()
    stage.upstream.note(lambda: a_start(2))
    assert stage.upstream.all_said and stage.upstream.next_due() == float("inf")


@pytest.mark.parametrize("unsaid", [False, True])
def test_a_main_that_hangs_up_is_noted_after_its_last_words(stage, unsaid):
    """Also where the end shows in writing rather than in reading."""
    stage.order(Order(Signal.END))
    stage.main.close()
    if unsaid:
        stage.upstream.tell(Snapshot())
        stage.upstream.flush(at_once=True)
    assert stage.orders() == [Order(Signal.END)]
    stage.orders()
    assert stage.upstream.hung_up
    stage.upstream.hang_up()
    stage.upstream.hang_up()
    assert not stage.upstream.hung_up and stage.upstream.all_said
    stage.upstream.tell(Over())
    stage.upstream.flush(at_once=True)
    assert stage.orders() == [] and stage.ready() == set()


@pytest.mark.parametrize("watched", [True, False])
def test_the_death_of_main_is_seen(watched, monkeypatch):
    """By a descriptor, or, where there is none, by a look at our parent; not by the end of the channel."""
    if not watched:
        monkeypatch.delattr(os, "pidfd_open")
    reader, writer = os.pipe()
    told, tell = os.pipe()

    def listener(main_pid):
        os.close(writer)
        stage = Stage(main_pid, parent=True)
        due = stage.upstream.next_due()
        assert not stage.upstream.main_is_gone(stage.ready())
        assert (due == float("inf")) == watched
        os.write(tell, b"watching")
        os.read(reader, 1)  # main has ended
        gone = stage.upstream.main_is_gone(stage.ready(5000 if watched else 0))
        stage.upstream.stop_watching()
        os.write(tell, b"gone" if gone and stage.ready() == set() else b"not seen")

    def main():
        fork(listener, os.getpid())
        os.read(told, 8)

    assert exit_code(fork(main)) == 0
    os.close(writer)
    os.close(tell)
    assert os.read(told, 100) == b"gone"
    os.close(reader)
    os.close(told)


@pytest.mark.parametrize("parent", [True, False])
def test_a_main_that_died_before_it_could_be_watched_is_gone(parent):
    """It was reaped already: there is nothing to watch, and it is not there."""
    pid = fork(int)
    exit_code(pid)
    stage = Stage(pid, parent)
    gone = stage.upstream.main_is_gone(stage.ready())
    due = stage.upstream.next_due()
    stage.close()
    assert gone and (due == float("inf") or due < 1e9)


def test_the_alive_are_not_taken_for_dead():
    """A spawned listener watches a main that is not its parent."""
    stage = Stage(os.getppid(), parent=False)
    assert not stage.upstream.main_is_gone(stage.ready())
    stage.close()


def test_a_child_lets_go_of_everything():
    """`forget` closes what is the listener's alone, and leaves the listener's own loop untouched."""

    def check():
        before = len(os.listdir("/proc/self/fd"))
        stage = Stage()
        stage.main.close()

        def child():
            stage.upstream.forget()
            return len(os.listdir("/proc/self/fd")) - before

        return in_fork(child)

    assert in_fork(check) == 1  # the pipe to tell it


def test_a_look_is_due_twice_a_second_where_nothing_can_be_watched(monkeypatch):
    """And never otherwise: an idle listener is not woken."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(_upstream.time, "monotonic", lambda: 100.0)
    stage = Stage(os.getppid(), parent=True)
    assert stage.upstream.next_due() == 100.5
    stage.close()
