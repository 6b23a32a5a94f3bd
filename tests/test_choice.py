"""The choice of a class, remembered: always the one that footprints makes."""

from __future__ import annotations

import functools
import itertools
import uuid

import footprints
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taylorism import Worker, _hiring
from taylorism._choice import Choices


class Upper(Worker):
    """Discriminates by a word, in two spellings, and takes numbers."""

    _footprint = dict(
        attr=dict(
            choice_test=dict(values=["upper", "both"], remap={"UPPER": "upper"}, alias=("choice_alias",)),
            weight=dict(type=float, optional=True, default=1),
            label=dict(optional=True, default="plain"),
            pair=dict(type=tuple, optional=True, default=None),
        )
    )


class Lower(Worker):
    """Its rival, which wants more, and refuses some."""

    _footprint = dict(
        attr=dict(
            choice_test=dict(values=["lower", "both"]),
            depth=dict(type=int, outcast=[13]),
            memory=dict(default=7.5),
            items=dict(type=footprints.FPList, optional=True, default=footprints.FPList([1])),
            anything=dict(type=object, optional=True, default=None),
        )
    )


class Derived(Worker):
    """What it makes of its instructions depends on values."""

    _footprint = dict(
        attr=dict(
            choice_derived=dict(type=int),
            label=dict(optional=True, default="number-[choice_derived]"),
            limit=dict(type=int, optional=True, default=3),
        )
    )


class Fussy(Worker):
    """Uses `only`."""

    _footprint = dict(attr=dict(choice_fussy=dict(type=int)), only=dict(choice_fussy=[1, 2]))


LOW = {"choice_test": "lower", "depth": 1}


def plain():
    """Do nothing: a value."""


SUBSTITUTED = "[scheduler_ticket]"
WORDS = st.sampled_from(
    ["upper", "UPPER", "lower", "both", "neither", "None", SUBSTITUTED, "", footprints.UNKNOWN]
)
NUMBERS = st.one_of(
    st.booleans(), st.integers(-2, 14), st.floats(allow_nan=True), st.sampled_from(["7", "x", SUBSTITUTED, 10**400])
)
ANYTHING = st.one_of(
    st.none(), WORDS, NUMBERS, st.sampled_from([(), (1,), ([1],), [1], b"x", plain, Upper, footprints.FPList([2])])
)
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "choice_test": WORDS,
        "choice_alias": WORDS,
        "choice_derived": NUMBERS,
        "choice_fussy": NUMBERS,
        "weight": NUMBERS,
        "depth": NUMBERS,
        "memory": st.one_of(st.none(), NUMBERS),
        "name": st.one_of(st.none(), WORDS),
        "label": ANYTHING,
        "pair": ANYTHING,
        "items": ANYTHING,
        "anything": ANYTHING,
        "unrelated": ANYTHING,
        "scheduler_ticket": st.one_of(st.none(), st.integers(0, 3)),
    },
)


@functools.cache
def collector():
    """Return that of the workers."""
    return footprints.collectors.get(tag="worker")


def by_footprints(attributes):
    """Return what footprints alone makes of a set: its only candidate, or why there is none."""
    try:
        found = collector().find_all(dict(attributes))
    except Exception as error:
        return type(error)
    return (found[0][0], found[0][1]) if len(found) == 1 else len(found)


def by_memory(choices, attributes):
    """Return what was remembered for a set, or what that raised."""
    try:
        return choices.find(attributes)
    except (TypeError, OverflowError) as error:
        return type(error)


def same(one, other):
    """Whether two choices are equal, to the types and the order of the attributes."""
    return repr(one) == repr(other) and [*map(type, one[1].values())] == [*map(type, other[1].values())]


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMED, min_size=2, max_size=8))
@example([{"choice_test": "upper", "weight": 1}, {"choice_test": "upper", "weight": 10**400}])
@example([{}, {"choice_test": "upper", "items": ([1],)}])
@example([{"choice_test": "upper", "pair": ()}, {"choice_test": "upper", "pair": ([1],)}])
def test_a_remembered_choice_is_that_of_footprints(sets):
    """Whatever was learnt, each set gets what footprints gives it, or is left to footprints."""
    choices = Choices(collector())
    for attributes in [*sets, *sets]:
        expected = by_footprints(attributes)
        found = by_memory(choices, attributes)
        assert found is None or found == expected or same(found, expected), (found, expected)
        if isinstance(expected, tuple):
            choices.learn(attributes, *expected)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"choice_test": "upper", "weight": 2.0}, {"choice_test": "upper", "weight": 3.0}),
        ({"choice_alias": "UPPER", "weight": 2}, {"choice_alias": "UPPER", "weight": 3}),
        ({"choice_test": "lower", "depth": 12, "memory": 1}, {"choice_test": "lower", "depth": 12, "memory": 4}),
        ({"choice_test": "lower", "depth": 1, "items": [2]}, {"choice_test": "lower", "depth": 1, "items": []}),
        ({**LOW, "anything": plain}, {**LOW, "anything": same}),
    ],
)
def test_what_differs_by_its_values_alone_is_not_resolved_again(first, then, monkeypatch):
    """The second set of a shape is made without footprints."""
    monkeypatch.setattr(_hiring, "_choices", functools.cache(lambda: Choices(collector())))
    monkeypatch.setattr(_hiring, "_hired", itertools.count(1))  # nothing is learnt from the first
    worker = _hiring.hire(first, {})
    expected = by_footprints(then)
    monkeypatch.setattr(type(collector()), "find_all", None)
    again = _hiring.hire(then, {})
    assert type(again) is type(worker)
    assert {**again._attributes, "name": 0} == {**expected[1], "name": 0}
    assert again.name != worker.name


@pytest.mark.parametrize(
    "attributes",
    [
        {"choice_derived": 1},
        {"choice_fussy": 1},
        {"choice_test": "lower", "depth": 1, "anything": type("Odd", (), {"__eq__": lambda self, other: False})()},
        {"choice_test": "upper", "scheduler_ticket": 1.0},
    ],
)
def test_what_depends_on_values_is_left_to_footprints(attributes):
    """A substitution in a default, `only`, an object that compares in its own way, a conversion."""
    choices = Choices(collector())
    choices.learn(attributes, *by_footprints(attributes))
    assert choices.find(attributes) is None


def test_a_new_class_ends_what_was_remembered():
    """It competes for the next set."""
    choices, attributes = Choices(collector()), {"choice_test": "upper"}
    choices.learn(attributes, *by_footprints(attributes))
    assert choices.find(attributes)[0] is Upper

    class Newcomer(Worker):
        """Of the same shape."""

        _footprint = dict(attr=dict(choice_test=dict(values=["upper"])))

    try:
        assert choices.find(attributes) is None
    finally:
        collector().discard(Newcomer)
    assert choices.find(attributes) is None, "learnt again, not revived"


def test_defaults_of_the_site_are_left_to_footprints():
    """They may stand for any attribute."""
    choices, attributes = Choices(collector()), {"choice_test": "upper"}
    choices.learn(attributes, *by_footprints(attributes))
    footprints.setup.defaults.update(weight=5)
    try:
        assert choices.find(attributes) is None
    finally:
        footprints.setup.defaults.clear()


def test_shapes_beyond_the_limit_are_not_kept():
    """Memory stays bounded."""
    choices = Choices(collector())
    choices.most = 2
    for number in range(4):
        attributes = {"choice_test": "upper", f"unrelated_{number}": 1}
        choices.learn(attributes, *by_footprints(attributes))
    assert len(choices._made) == 2


def test_names_are_uuid4():
    """As 1.1 made them, though the module is not imported for it."""
    names = {_hiring.hire({"choice_test": "upper"}, {}).name for _ in range(50)}
    assert len(names) == 50
    for name in names:
        parsed = uuid.UUID(name)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, name)
