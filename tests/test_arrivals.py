"""Arrivals: what main has sent is queued, all at once or bit by bit, and what is wrong with a set is said."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import pytest

from taylorism import _instructions
from taylorism._arrivals import Arrivals
from taylorism._channel import Frame
from taylorism._ledger import Intake, Ledger
from taylorism._messages import NewSets, Signal
from taylorism._policy import Policy
from taylorism._queues import Fifo


class Choosy:
    """A scheduler that can never start a set whose value is odd."""

    def never_startable(self, instructions):
        """See `BaseScheduler`."""
        return "it is odd" if instructions["value"] % 2 else None


def stage(scheduler=None, clockless=True, **options):
    """Return a ledger whose queue hands out in order, and the arrivals before it."""
    policy = Policy(**options)
    ledger = Ledger(policy, queue=Fifo(lambda workers: 1, lambda workers, launch: None))
    setup = SimpleNamespace(policy=policy, scheduler=scheduler)
    return ledger, Arrivals(setup, ledger, lambda packed, views=None: pickle.loads(packed), clockless)


def order(*values, first=0):
    """Return an order of sets, as main sends it; what is a bytes is taken for what main has packed."""
    packed = _instructions.pack({"common": 1}, [{"value": value} for value in values])
    pairs = zip((None, *values), packed, strict=True)
    segments = [value if isinstance(value, bytes) else each for value, each in pairs]
    return Frame(NewSets(range(first, first + len(values))), segments)


def values(ledger):
    """Return the values of what is pending, in order."""
    return [each["value"] for each in ledger.pending]


def test_a_long_order_is_queued_bit_by_bit():
    """Where processes run several workers; the common part is in each."""
    ledger, arrivals = stage(max_tasks_per_child=None)
    assert not arrivals.waiting and arrivals.announce(order(*range(5))) and arrivals.waiting
    assert values(ledger) == []
    assert arrivals.queue(2) == [] and values(ledger) == [0, 1] and arrivals.waiting
    assert arrivals.queue(2) == [] and arrivals.queue(2) == [] and not arrivals.waiting
    assert values(ledger) == [0, 1, 2, 3, 4] and {each["common"] for each in ledger.pending} == {1}


@pytest.mark.parametrize("options", [{"max_tasks_per_child": 1}, {"max_tasks_per_child": None, "clockless": False}])
def test_else_the_last_must_not_come_late(options):
    """With a process each, or a scheduler of the user's, who has to see all of them."""
    ledger, arrivals = stage(**options)
    assert not arrivals.announce(order(1, 2))
    assert arrivals.queue() == [] and values(ledger) == [1, 2] and not arrivals.waiting


def test_who_can_never_start_is_returned_with_the_reason():
    """The others are queued."""
    ledger, arrivals = stage(Choosy())
    arrivals.announce(order(*range(4)))
    refused = arrivals.queue()
    assert values(ledger) == [0, 2] and [job.number for job, _ in refused] == [1, 3]
    assert all("it is odd" in str(error) for _, error in refused)
    assert arrivals.objection(refused[0][0]) is not None
    assert stage()[1].objection(refused[0][0]) is None  # nothing to ask


def test_what_cannot_be_loaded_is_returned_with_the_reason():
    """And its number is known."""
    ledger, arrivals = stage(max_tasks_per_child=None)
    arrivals.announce(order(1, b"no pickle", 3, first=7))
    ((job, error),) = arrivals.queue()
    assert job.number == 8 and "cannot rebuild" in str(error) and values(ledger) == [1, 3]


class Leaves:
    """Something of a script that ends when it is imported."""

    def __reduce__(self):
        return sys.exit, (3,)


def test_what_ends_the_program_as_it_is_loaded_is_such_a_one():
    """The listener goes on, and so do the others."""
    ledger, arrivals = stage()
    arrivals.announce(order(1, pickle.dumps(Leaves()), 3))
    ((job, error),) = arrivals.queue()
    assert job.number == 1 and isinstance(error, TypeError) and values(ledger) == [1, 3]


def test_what_comes_after_the_end_is_not_taken():
    """But what had come before it is."""
    ledger, arrivals = stage(max_tasks_per_child=None)
    arrivals.announce(order(1, 2))
    ledger.obey(Signal.END)
    assert ledger.intake is Intake.CLOSED and arrivals.queue() == [] and values(ledger) == [1, 2]
    arrivals.announce(order(3))
    assert not arrivals.waiting and arrivals.queue() == [] and values(ledger) == [1, 2]
