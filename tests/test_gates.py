"""What one running worker may hold at a time: names, claims, and what is held."""

from __future__ import annotations

import math
import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylorism._gates import NOTHING, Gate, Holdings, Names, is_plain

# ---------------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        ((), ()), ("a", ("a",)), (["a", "b"], ("a", "b")), (("fileA",), ("fileA",)),
        (iter(["a", "b"]), ("a", "b")), (Names("a"), ("a",)),
    ],
)  # fmt: skip
def test_names_are_one_or_several(given_names, expected):
    """A single text is one name, not its letters."""
    names = Names(given_names)
    assert names == expected
    assert type(names) is Names


@pytest.mark.parametrize("bad", [3, None, [1], ["a", None], ["a b"], "", "a,b", b"a"])
def test_what_is_no_name_is_refused(bad):
    """An attribute has a name that Python can have."""
    with pytest.raises(TypeError):
        Names(bad)


def test_names_can_be_pickled():
    """They travel with the scheduler."""
    again = pickle.loads(pickle.dumps(Names(["a", "b"])))
    assert (again, type(again)) == (("a", "b"), Names)


# ---------------------------------------------------------------------------------------------------------
# Claims


def gate(exclusive=(), shared=()):
    """Make a gate of names."""
    return Gate(Names(exclusive), Names(shared))


def claim(exclusive=(), shared=()):
    """Make a claim on these values."""
    return gate("e", "s").claim({"e": list(exclusive), "s": list(shared)}.get)


def values_of(some):
    """Return the values of a claim: the exclusive ones, the shared ones."""
    found = [[value for kind, value in some if kind is which] for which in (True, False)]
    return tuple(tuple(getattr(value, "value", value) for value in each) for each in found)


def test_a_gate_without_names_is_none():
    """So it costs nothing where nobody asked for it."""
    assert not gate()
    assert gate("a")
    assert gate((), "a")
    assert gate().claim({"a": 1}.get) == NOTHING
    assert not NOTHING


def test_a_claim_is_read_of_instructions_and_of_workers():
    """What is missing, or None, is no value; 0, False and an empty text are values."""
    both = gate(("a", "b"), ("c", "d"))
    assert both.claim({"a": 0, "b": None, "c": "", "e": 5}.get) == ((True, 0), (False, ""))
    assert both.claim(partial(getattr, SimpleNamespace(a=False, d=7))) == ((True, False), (False, 7))
    assert both.claim({}.get) == NOTHING


@pytest.mark.parametrize("several", [["x", "y"], ("x", "y"), {"x": 1, "y": 2}.keys()])
def test_a_list_is_several_values(several):
    """Tuples and sets as well; None within is none; a text, a dict and an array are one value."""
    made = set(several) if not isinstance(several, (list, tuple)) else several
    assert set(gate("a").claim({"a": made}.get)) == {(True, "x"), (True, "y")}


def test_what_is_one_value():
    """Texts, bytes, dicts, arrays; None within a list is left out."""
    for value in ("text", b"bytes", {"k": 1}):
        assert values_of(gate("a").claim({"a": value}.get)) == ((value,), ())
    array = np.arange(3)
    ((found,), _) = values_of(gate("a").claim({"a": array}.get))
    assert found is array
    assert gate("a").claim({"a": [None, "x", None]}.get) == ((True, "x"),)
    assert gate("a").claim({"a": []}.get) == NOTHING


def test_a_path_is_its_text():
    """Also within a list: that is what it becomes in the worker."""
    paths = gate(("a", "b")).claim({"a": Path("d/f"), "b": [Path("g")]}.get)
    assert paths == ((True, "d/f"), (True, "g"))


class HashableList(list):
    """A list that can be hashed, and equals one that cannot."""

    def __hash__(self):
        return 7


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (True, 1), ("x", "x"), ({"k": [1]}, {"k": [1]}), (["l"], ["l"]), (["l"], HashableList(["l"])),
        ({1, 2}, frozenset((1, 2))), (({},), ({},)), (math.nan, math.nan),
    ],
)  # fmt: skip
def test_equal_values_are_one_key(one, other):
    """Hashable or not: a dict finds the one under the other."""
    mine, yours = claim([one]), claim([other])
    assert mine == yours
    assert {mine: "found"}[yours] == "found"
    assert claim([], [one]) != mine != claim([one, "more"])


def test_what_a_dict_has_to_compare_is_not_plain():
    """So that very many of them are not counted by a dict."""
    plain = [all(map(is_plain, claim([value]))) for value in ("x", 1, ("t",), {"k": 1}, ["l"], np.arange(2))]
    assert plain == [True, True, True, False, False, False]
    assert repr(claim([{"k": 1}])) == "((True, {'k': 1}),)"


# ---------------------------------------------------------------------------------------------------------
# What is held


@pytest.mark.parametrize(
    ("held", "wanted", "obstacle"),
    [
        (claim("x"), claim("x"), (True, "x")),
        (claim("x"), claim("", "x"), (False, "x")),
        (claim("", "x"), claim("x"), (True, "x")),
        (claim("", "x"), claim("", "x"), None),
        (claim("x", "y"), claim("z", "y"), None),
        (claim("xy"), claim("zyx"), (True, "y")),
        (claim("x"), claim(), None),
        (claim(), claim("x", "x"), None),
        (claim([0]), claim([False]), (True, False)),
        (claim([{"k": 1}]), claim([{"k": 1}]), claim([{"k": 1}])[0]),
        (claim([{"k": 1}]), claim([{"k": 2}]), None),
    ],
)
def test_one_writer_or_readers(held, wanted, obstacle):
    """The first value that cannot be had: it may be one that counts as false."""
    assert Holdings([held]).obstacle(wanted) == obstacle
    later = Holdings()
    assert later.obstacle(wanted) is None
    later.hold(held)
    assert later.obstacle(wanted) == obstacle


def test_nobody_is_in_his_own_way():
    """Who writes what he reads, or names a value twice, can have it."""
    assert Holdings().obstacle(claim("xx", "x")) is None


def test_arrays_are_compared_by_identity_where_they_have_no_yes_or_no():
    """And are in nobody else's way."""
    one, other = np.arange(3), np.arange(3)
    held = Holdings([claim([one])])
    assert held.obstacle(claim([one]))[1].value is one
    assert held.obstacle(claim([other])) is None
    assert held.obstacle(claim(["x"])) is None


class Odd:
    """Something that cannot be compared."""

    __hash__ = None

    def __eq__(self, other):
        raise ValueError("no")


def test_what_cannot_be_compared_is_only_itself():
    """The scheduler goes on."""
    odd = Odd()
    held = Holdings([claim([odd])])
    assert held.obstacle(claim([odd]))[1].value is odd
    assert held.obstacle(claim([Odd()])) is None
    assert held.obstacle(claim(["x", {"k": 1}])) is None


class Raising:
    """What raises something of its own wherever it is asked."""

    def _refuse(self, other=None):
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")

    __hash__ = __eq__ = __bool__ = _refuse


class Doubtful:
    """What compares to something without a yes or no."""

    __hash__ = None

    def __eq__(self, other):
        return Raising()


@pytest.mark.parametrize("kind", [Raising, Doubtful])
def test_whatever_the_users_code_raises_the_value_is_only_itself(kind):
    """By its hash, its comparison, or the truth of what that returns."""
    one = kind()
    held = Holdings([claim([one])])
    assert held.obstacle(claim([one]))[1].value is one
    assert held.obstacle(claim([kind()])) is None
    assert held.obstacle(claim(["x"])) is None


values = st.one_of(st.sampled_from("abc"), st.sampled_from([0, 1, 2]), st.sampled_from([({"k": 1}), ["l"]]))
claims = st.tuples(st.lists(values, max_size=3), st.lists(values, max_size=3))


@given(st.lists(claims, max_size=5), claims)
def test_holdings_by_chance(held, wanted):
    """An obstacle is a wanted value that somebody has, and one of the two exclusively; none means there is none."""
    has_exclusive = [value for exclusive, _ in held for value in exclusive]
    has_shared = [value for _, shared in held for value in shared]
    hindered = [claim([value]) for value in wanted[0] if value in has_exclusive + has_shared]
    hindered += [claim([], [value]) for value in wanted[1] if value in has_exclusive]
    holdings = Holdings(claim(*each) for each in held)
    assert holdings.obstacle(claim(*wanted)) == (hindered[0][0] if hindered else None)
    assert bool(holdings.obstacle(frozenset(claim(*wanted)))) == bool(hindered)
