"""Where sets stand while they are pending: who is looked at, who is put aside, and who comes back."""

from __future__ import annotations

import math
from functools import partial

import pytest

from taylorism import _lanes
from taylorism._gates import Gate, Holdings, Names
from taylorism._lanes import Entry, Lane, Lanes, seconds_of

FREE = Holdings()
GATE = Gate(Names("files"), Names("inputs"))


def entry(at, demand=0.0, **instructions):
    """Make an entry that claims its files, and shares its inputs."""
    return Entry(instructions, (1, 0, at), demand, GATE.claim(instructions.get))


def held(*files, inputs=()):
    """Return what somebody holds."""
    return Holdings([GATE.claim({"files": list(files), "inputs": list(inputs)}.get)])


def lanes_of(*entries):
    """Make lanes with these entries in them."""
    lanes = Lanes(strict=False)
    lanes.add(entries)
    return lanes


#: finds whoever takes nothing
ANY = partial(Lane.first_that_fits, limit=0.0)


def places(lanes):
    """Return how many stand in each lane, by the values that they wait for; that of all others is the first."""
    apart = {"".join(sorted(str(value) for _, value in parts)): len(lane) for parts, lane in lanes._apart.items()}
    return {"": len(lanes._main), **apart}


def test_who_is_met_in_vain_is_put_aside_one_value_deeper_each_time():
    """And not to and fro."""
    both = [entry(at, files=["x", "y"]) for at in range(3)]
    lanes = lanes_of(*both, entry(3))
    assert lanes.search(ANY, held("x"), FREE).key[2] == 3
    assert places(lanes) == {"": 1, "x": 3}
    lanes.wake(held("y"))
    assert lanes.search(ANY, held("y"), FREE).key[2] == 3
    assert places(lanes) == {"": 1, "x": 0, "xy": 3}
    for now in (held("x"), held("y"), held("x")):
        lanes.wake(now)
        assert lanes.search(ANY, now, FREE).key[2] == 3
        assert places(lanes)["xy"] == 3
    lanes.wake(FREE)
    assert lanes.search(ANY, FREE, FREE) is both[0]


def test_the_first_of_all_is_known_wherever_it_stands():
    """Also when it has been put aside, comes back, or is gone."""
    first, second, third = entry(0, files="x"), entry(1), entry(2, files="x")
    lanes = lanes_of(third, second, first)
    assert lanes.search(ANY, held("x"), FREE) is second
    assert lanes.first() is first
    lanes.remove(first)
    assert lanes.first() is second
    lanes.remove(second)
    assert lanes.search(ANY, held("x"), FREE) is None
    assert lanes.first() is third
    lanes.remove(third)
    assert lanes.first() is None
    assert (first.gone, second.gone, third.gone) == (True, True, True)


def test_what_one_waits_for_is_left_to_him_and_no_lane_waits_for_that():
    """As soon as he has started, or somebody else waits, those are looked at again."""
    mine, other = entry(1, files="x"), entry(2)
    lanes = lanes_of(mine, other)
    assert lanes.search(ANY, FREE, held("x")) is other
    assert lanes.search(ANY, FREE, FREE) is mine
    assert lanes.search(ANY, FREE, held(inputs=["x"])) is other


def test_readers_and_writers_of_one_value_stand_apart():
    """So readers do not hide behind a writer, nor the other way round."""
    writer, reader = entry(0, files="x"), entry(1, inputs="x")
    lanes = lanes_of(writer, reader)
    assert lanes.search(ANY, held(inputs=["x"]), FREE) is reader
    assert lanes.search(ANY, held("x"), FREE) is None
    lanes.wake(held(inputs=["x"]))
    assert lanes.search(ANY, held(inputs=["x"]), FREE) is reader
    lanes.wake(FREE)
    assert lanes.search(ANY, FREE, FREE) is writer


def test_sets_that_come_together_and_claim_the_same_are_put_aside_at_once():
    """A first turn does not go through all of them."""
    lanes = lanes_of(*(entry(at, files="x") for at in range(50)), *(entry(at, files=at) for at in range(50, 60)))
    assert places(lanes) == {"": 10, "x": 50}
    looked_at = []
    assert lanes.search(lambda lane: looked_at.append(lane) or ANY(lane), held("x"), FREE).key[2] == 50
    assert len(looked_at) == 2
    lanes.add([entry(60, files="x"), entry(61, files=["x", "y"])])
    assert places(lanes) == {"": 10, "x": 52}


def test_where_claims_are_very_different_what_many_want_is_put_aside():
    """A licence, say, beside files of their own."""
    lanes = lanes_of(*(entry(at, files=["licence", at]) for at in range(300)))
    assert places(lanes) == {"": 0, "licence": 300}


def test_of_too_many_lanes_the_small_ones_are_given_up(monkeypatch):
    """What stands there comes back, in order."""
    monkeypatch.setattr(_lanes, "_APART", 3)
    entries = [entry(at, files=at) for at in range(5)]
    lanes = lanes_of(*entries)
    assert lanes.search(ANY, held(*range(5)), FREE) is None
    assert len(places(lanes)) == 6
    lanes.wake(FREE)
    assert len(places(lanes)) <= 4
    order = []
    while (found := lanes.search(ANY, FREE, FREE)) is not None:
        lanes.remove(found)
        order.append(found)
    assert order == entries


def test_of_too_many_open_lanes_the_smallest_are_given_up(monkeypatch):
    """Those that only seem to be open are closed first."""
    monkeypatch.setattr(_lanes, "_FEW", 0)
    monkeypatch.setattr(_lanes, "_SOME", 2)
    monkeypatch.setattr(_lanes, "_OPEN", 2)
    lanes = Lanes(strict=False)
    lanes.add([entry(10 * size + at, files=str(size)) for size in range(1, 6) for at in range(size)])
    lanes.wake(held("5"))
    assert places(lanes) == {"": 3, "3": 3, "4": 4, "5": 5}


class Moody:
    """A value that does not equal itself for long."""

    def __init__(self):
        self.mood = 0

    def __hash__(self):
        self.mood += 1
        return self.mood % 2


def test_a_value_that_makes_no_sense_is_no_loop_without_end():
    """It may start or not, but the scheduler answers."""
    moody = Moody()
    entries = [Entry({}, (1, 0, at), 0.0, ((True, moody),)) for at in range(40)]
    lanes = lanes_of(*entries)
    for _ in range(10):
        now = Holdings([((True, moody),)])
        lanes.wake(now)
        lanes.search(ANY, now, FREE)
    assert lanes.first() is entries[0]


@pytest.mark.parametrize("strict", [False, True])
def test_the_first_brief_one_is_within_both_limits(strict):
    """Time may be reached, whether the other may or not; no time is no brief one."""
    lane = Lane(strict)
    demands = [(9.0, 1), (2.0, None), (2.0, 10), (2.0, 5), (1.0, 5)]
    entries = [entry(at, demand, expected_time=seconds) for at, (demand, seconds) in enumerate(demands)]
    lane.extend(entries)
    assert lane.first_brief(2.0, 5.0) is entries[4 if strict else 3]
    assert lane.first_brief(2.0, 4.9) is None
    assert lane.first_brief(2.0, 4.5) is None
    later = entry(5, 1.0, expected_time=2)
    lane.extend([later])
    assert lane.first_brief(2.0, 4.5) is later
    lane.remove(later)
    assert lane.first_brief(2.0, 4.9) is None
    assert lane.first_that_fits(0.5) is None
    assert lane.first_that_fits(0.4) is None
    assert lane.first_that_fits(100.0) is entries[0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(5, 5.0), ("5", 5.0), (0, math.inf), (-1, math.inf), (None, math.inf), (math.nan, math.inf), ("x", math.inf),
     ([1], math.inf), (10**400, math.inf)],
)  # fmt: skip
def test_a_time_that_is_none_is_for_ever(value, seconds):
    """Nobody knows when such a set ends."""
    assert seconds_of({"expected_time": value}) == seconds
    assert seconds_of({}) == math.inf
