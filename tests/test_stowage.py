"""Stowage: reports that are handed on or given back, and instructions that stay as long as anybody sees them."""

from __future__ import annotations

import gc
import os
import pickle

import numpy as np
import pytest
from holding import MIB, hold_of_two, taken

from taylorism import _freight
from taylorism._channel import Frame
from taylorism._stowage import Stowage


@pytest.fixture
def hold():
    """Return a hold in which nothing is left after the test."""
    with hold_of_two() as made:
        yield made


def notice(berth, value):
    """Return the notice of a worker that has put its report there."""
    segments, _ = _freight.pack(value, berth)
    return Frame(None, [memoryview(bytes(each)) for each in segments])


def test_berths_of_launches_differ(hold):
    """Two workers at a time never write to the same place."""
    stowage = Stowage(hold)
    first, second = stowage.berth(), stowage.berth()
    array = np.ones(MIB, np.uint8)
    for berth in (first, second):
        stowage.hand_on(notice(berth, array), "", berth, taken=True)
    assert taken(*hold.descriptors) == 2 * MIB
    for berth in (first, second):
        berth.empty()  # what was handed on is main's
    assert taken(*hold.descriptors) == 2 * MIB
    for descriptor in hold.descriptors:
        os.ftruncate(descriptor, 0)


def test_a_report_that_nobody_takes_is_given_back(hold):
    """Its memory is free at once; a small one has none."""
    stowage = Stowage(hold)
    berth = stowage.berth()
    told = notice(berth, np.ones(MIB, np.uint8))
    assert taken(*hold.descriptors) == MIB
    stowage.hand_on(told, "", berth, taken=False)
    assert taken(*hold.descriptors) == 0
    stowage.hand_on(notice(berth, 3), "", berth, taken=False)
    stowage.hand_on(notice(None, 3), "", None, taken=False)


def test_why_reports_take_the_pipe_is_said_once(hold):
    """However many do."""
    said = []
    stowage = Stowage(hold, said.append)
    for remark in ("", "no room", "no room", "less room"):
        stowage.hand_on(notice(None, 3), remark, None, taken=True)
    assert said == ["no room"]


class NeverLoads:
    """A report that cannot be loaded."""

    def __reduce__(self):
        return int, ("not a number",)


def test_a_scheduler_sees_copies(hold):
    """What it reads of a report stays, whatever main does; one that does not load is a None."""
    stowage = Stowage(hold)
    berth = stowage.berth()
    told = notice(berth, np.arange(MIB, dtype=np.uint8))
    copied = stowage.copied(told.segments)
    stowage.hand_on(told, "", berth, taken=False)
    assert copied[255] == 255 and copied.sum() == np.arange(MIB, dtype=np.uint8).sum()
    assert stowage.copied([pickle.dumps(NeverLoads())]) is None


def test_instructions_stay_while_a_child_sees_them(hold):
    """They are given back when nobody here looks, and no fork is left that did when it was made."""
    stowage = Stowage(hold)
    packed, _ = _freight.dump({"a": np.ones(MIB, np.uint8)}, hold.berth(0))
    loaded = stowage.load(packed)
    assert loaded["a"][5] == 1
    asked = []
    del loaded
    gc.collect()
    stowage.give_back(lambda: asked.append(None))  # some child is not known: nothing is given back
    assert asked == [None] and taken(*hold.descriptors) == MIB
    stowage.give_back(list)
    assert taken(*hold.descriptors) == 0
    stowage.give_back(lambda: asked.append(None))
    assert asked == [None], "nobody is asked where nothing is to be given back"
