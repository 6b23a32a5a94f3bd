"""Messages: what is sent comes back from the wire as it was, and as little as possible is pickled by its class."""

from __future__ import annotations

import pickle
import pickletools

import pytest

from taylorism._messages import (
    Cancel,
    Cancelled,
    End,
    Failure,
    Hello,
    Movements,
    NewSets,
    Order,
    Over,
    Several,
    Signal,
    Snapshot,
    Start,
    State,
    WorkerDone,
    WorkerFailed,
    from_wire,
    to_wire,
)

START = Start(3, "c", 77, None, 1, 1.5)
PLAIN = [
    NewSets(range(4, 9), calls=True),
    NewSets(range(0)),
    *map(Order, Signal),
    Cancel(1, ("a", 2), pending_only=True),
    Hello("mark"),
    Movements((START, End(3, State.DONE, 2.5, 0, 0.1, 0.2, None, "why", 1, START), End(4, State.CANCELLED, 3.0))),
    Movements(()),
    WorkerDone("a", 0),
    Several(77, None),
    Cancelled(1, ("a", 2)),
    Over(("a",)),
    Over(),
]
OTHERS = [WorkerFailed(Failure("a", "status", ("line",)), 1, True), Snapshot()]


@pytest.mark.parametrize("message", [*PLAIN, *OTHERS], ids=lambda message: type(message).__name__)
def test_a_message_comes_back_from_the_wire_as_it_was(message):
    """Of the same type, and equal."""
    came = from_wire(pickle.loads(pickle.dumps(to_wire(message))))
    assert type(came) is type(message) and came == message


@pytest.mark.parametrize("message", PLAIN, ids=lambda message: type(message).__name__)
def test_a_frequent_message_is_pickled_without_its_class(message):
    """No name is looked up where it is loaded."""
    codes = {code.name for code, _, _ in pickletools.genops(pickle.dumps(to_wire(message), protocol=5))}
    assert not codes & {"GLOBAL", "STACK_GLOBAL"}


@pytest.mark.parametrize("message", [*PLAIN, *OTHERS], ids=lambda message: type(message).__name__)
def test_an_instance_is_taken_as_it_is(message):
    """Also one that is a tuple."""
    assert from_wire(message) is message
