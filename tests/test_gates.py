"""What one running worker may hold at a time: names, claims, and what is held."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylorism._gates import NOTHING, Claim, Gate, Holdings, Names, _Odd, claim_of, is_plain

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


def test_a_gate_without_names_is_none():
    """So it costs nothing where nobody asked for it."""
    assert not gate()
    assert gate("a")
    assert gate((), "a")
    assert gate().claim({"a": 1}.get) == Claim((), ())


def test_a_claim_is_read_of_instructions_and_of_workers():
    """What is missing, or None, is no value; 0, False and an empty text are values."""
    both = gate(("a", "b"), ("c", "d"))
    assert both.claim({"a": 0, "b": None, "c": "", "e": 5}.get) == Claim((0,), ("",))
    assert both.claim(partial(getattr, SimpleNamespace(a=False, d=7))) == Claim((False,), (7,))
    assert both.claim({}.get) == Claim()


@pytest.mark.parametrize("several", [["x", "y"], ("x", "y"), {"x": 1, "y": 2}.keys()])
def test_a_list_is_several_values(several):
    """Tuples and sets as well; None within is none; a text, a dict and an array are one value."""
    made = set(several) if not isinstance(several, (list, tuple)) else several
    assert set(gate("a").claim({"a": made}.get).exclusive) == {"x", "y"}


def test_what_is_one_value():
    """Texts, bytes, dicts, arrays; None within a list is left out."""
    for value in ("text", b"bytes", {"k": 1}):
        assert gate("a").claim({"a": value}.get).exclusive == (value,)
    array = np.arange(3)
    (found,) = gate("a").claim({"a": array}.get).exclusive
    assert found is array
    assert gate("a").claim({"a": [None, "x", None]}.get).exclusive == ("x",)
    assert gate("a").claim({"a": []}.get) == Claim()


def test_a_path_is_its_text():
    """Also within a list: that is what it becomes in the worker."""
    assert gate("a", "b").claim({"a": Path("d/f"), "b": [Path("g")]}.get) == Claim(("d/f",), ("g",))


# ---------------------------------------------------------------------------------------------------------
# What is held


@pytest.mark.parametrize(
    ("held", "wanted", "obstacle"),
    [
        (Claim(("x",)), Claim(("x",)), Claim(("x",))),
        (Claim(("x",)), Claim((), ("x",)), Claim((), ("x",))),
        (Claim((), ("x",)), Claim(("x",)), Claim(("x",))),
        (Claim((), ("x",)), Claim((), ("x",)), None),
        (Claim(("x",), ("y",)), Claim(("z",), ("y",)), None),
        (Claim(("x", "y")), Claim(("z", "y", "x")), Claim(("y",))),
        (Claim(("x",)), Claim(), None),
        (Claim(), Claim(("x",), ("x",)), None),
        (Claim((0,)), Claim((False,)), Claim((False,))),
        (Claim(({"k": 1},)), Claim(({"k": 1},)), Claim(({"k": 1},))),
        (Claim(({"k": 1},)), Claim(({"k": 2},)), None),
        (Claim((None,)), Claim(("x",)), None),
    ],
)
def test_one_writer_or_readers(held, wanted, obstacle):
    """The first value that cannot be had, as a claim on that alone: it may be one that counts as false."""
    assert Holdings([held]).obstacle(wanted) == obstacle
    later = Holdings()
    assert later.obstacle(wanted) is None
    later.hold(held)
    assert later.obstacle(wanted) == obstacle


def test_nobody_is_in_his_own_way():
    """Who writes what he reads, or names a value twice, can have it."""
    assert Holdings().obstacle(Claim(("x", "x"), ("x",))) is None


def test_arrays_are_compared_by_identity_where_they_have_no_yes_or_no():
    """And are in nobody else's way."""
    one, other = np.arange(3), np.arange(3)
    held = Holdings([Claim((one,))])
    assert held.obstacle(Claim((one,))).exclusive[0] is one
    assert held.obstacle(Claim((other,))) is None
    assert held.obstacle(Claim(("x",))) is None


class Odd:
    """Something that cannot be compared."""

    __hash__ = None

    def __eq__(self, other):
        raise ValueError("no")


def test_what_cannot_be_compared_is_only_itself():
    """The scheduler goes on."""
    odd = Odd()
    held = Holdings([Claim((odd,))])
    assert held.obstacle(Claim((odd,))).exclusive[0] is odd
    assert held.obstacle(Claim((Odd(),))) is None
    assert held.obstacle(Claim(("x", {"k": 1}))) is None


values = st.one_of(st.sampled_from("abc"), st.sampled_from([0, 1, 2]), st.sampled_from([({"k": 1}), ["l"]]))
claims = st.builds(Claim, st.lists(values, max_size=3).map(tuple), st.lists(values, max_size=3).map(tuple))


@given(st.lists(claims, max_size=5), claims)
def test_holdings_by_chance(held, wanted):
    """An obstacle is a wanted value that somebody has, and one of the two exclusively; none means there is none."""
    has_exclusive = [value for claim in held for value in claim.exclusive]
    has_shared = [value for claim in held for value in claim.shared]
    hindered = [Claim((value,)) for value in wanted.exclusive if value in has_exclusive + has_shared]
    hindered += [Claim((), (value,)) for value in wanted.shared if value in has_exclusive]
    holdings = Holdings(held)
    assert holdings.obstacle(wanted) == (hindered[0] if hindered else None)
    barred = {part for part in wanted.parts if holdings.bars(part)}
    assert barred == {part for claim in hindered for part in claim.parts}


@given(claims, claims)
def test_parts_are_equal_where_the_values_are(one, other):
    """In whatever order, however often, hashable or not; a claim can be made of its parts again."""

    def same(mine, yours):
        return all(value in yours for value in mine) and all(value in mine for value in yours)

    alike = same(one.exclusive, other.exclusive) and same(one.shared, other.shared)
    assert (one.parts == other.parts) == alike
    assert len({one.parts: 0, other.parts: 0}) == (1 if alike else 2)
    again = NOTHING
    for part in one.parts:
        again = again.and_also(claim_of(part))
        assert is_plain(part) == (not isinstance(part[1], _Odd))
    assert again.parts == one.parts
    assert one.and_also(other).parts == one.parts | other.parts
