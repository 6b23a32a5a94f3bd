"""Instructions: dealt out, checked, pickled, merged, and the caller's objects left alone."""

from __future__ import annotations

import copy
import pickle
import threading
from array import array
from collections import OrderedDict, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylorism import _instructions
from taylorism._errors import BadInstructions, InstructionsNotPicklable, UnequalLengths

NAMES = st.text("abc_", min_size=1, max_size=3)


@given(st.integers(0, 5), st.sets(NAMES, max_size=4), st.dictionaries(NAMES, st.integers()), st.data())
def test_each_set_is_common_then_individual(length, names, common, data):
    """One set for each index, in order; what is individual wins; nothing of the caller's changes."""
    individual = {name: data.draw(st.lists(st.integers(), min_size=length, max_size=length)) for name in names}
    before = copy.deepcopy((common, individual))
    packed = _instructions.pack(common, _instructions.deal(individual))
    loaded = _instructions.unpack_common(packed[0])
    sets = [_instructions.unpack(loaded, each) for each in packed[1:]]
    count = length if names else 0
    assert sets == [{**common, **{name: individual[name][n] for name in names}} for n in range(count)]
    assert (common, individual) == before


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        array("i", [1, 2, 3]),
        np.array([1, 2, 3]),
        deque([1, 2, 3]),
        b"\x01\x02\x03",
        memoryview(b"\x01\x02\x03"),
    ],
)
def test_any_sequence_is_dealt_out(values):
    """Lists, tuples, ranges, arrays: anything with a length and an order."""
    assert [each["a"] for each in _instructions.deal({"a": values})] == [1, 2, 3]


def test_rows_of_an_array_are_the_values():
    """A matrix is a sequence of its rows."""
    rows = _instructions.deal({"row": np.arange(6).reshape(3, 2), "name": "abc"})
    assert [(list(each["row"]), each["name"]) for each in rows] == [([0, 1], "a"), ([2, 3], "b"), ([4, 5], "c")]


@pytest.mark.parametrize("individual", [{}, {"a": []}, {"a": (), "b": np.zeros((0, 3))}])
def test_no_individual_instruction_is_no_set(individual):
    """No worker without an index."""
    assert _instructions.deal(individual) == []


def test_unequal_lengths_are_an_assertion_error_that_names_them():
    """The message tells each length."""
    with pytest.raises(UnequalLengths, match="a: 2, b: 3") as caught:
        _instructions.deal({"a": [1, 2], "b": [1, 2, 3]})
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (3, "int"),
        (None, "NoneType"),
        ({"x": 1}, "dict"),
        ({1, 2}, "set"),
        (iter([1]), "list_iterator"),
        (map(abs, [1]), "map"),
        (np.array(3), "ndarray"),
        (object(), "object"),
    ],
)
def test_what_is_no_sequence_is_refused_by_name(values, kind):
    """The message names the attribute, what was given, and what to do."""
    with pytest.raises(BadInstructions, match=f"'things'.* a {kind}.*(give a sequence|make a list)") as caught:
        _instructions.deal({"good": [1], "things": values})
    assert isinstance(caught.value, TypeError)


@given(st.lists(st.dictionaries(NAMES, st.integers(), max_size=3), max_size=4))
def test_a_list_of_dicts_is_one_dict_for_each_task(individual):
    """In order, each with attributes of its own; the caller's are copied."""
    before = copy.deepcopy(individual)
    sets = _instructions.gathered(individual)
    assert sets == before and not any(one is other for one, other in zip(sets, individual))
    for one in sets:
        one["more"] = 1
    assert individual == before


@given(st.integers(0, 4), st.sets(NAMES, min_size=1, max_size=3))
def test_both_forms_say_the_same(length, names):
    """A dict of sequences, or the list of dicts that it stands for."""
    columns = {name: [f"{name}{n}" for n in range(length)] for name in names}
    rows = [{name: f"{name}{n}" for name in names} for n in range(length)]
    assert _instructions.gathered(columns) == _instructions.gathered(rows) == rows


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_any_sequence_of_any_mappings_will_do(kind):
    """Also of some that are no dicts, or empty."""
    sets = _instructions.gathered(kind([{"a": 1}, OrderedDict(b=[2]), {}]))
    assert sets == [{"a": 1}, {"b": [2]}, {}] and all(type(each) is dict for each in sets)


@pytest.mark.parametrize("individual", [{}, [], (), {"a": []}])
def test_no_task_out_of_nothing(individual):
    """In either form."""
    assert _instructions.gathered(individual) == []


@pytest.mark.parametrize(
    ("individual", "kind"),
    [
        (None, "NoneType"),
        ("abc", "str"),
        (b"abc", "bytes"),
        (3, "int"),
        ([{"a": 1}, 3], "int"),
        ([[("a", 1)]], "list"),
        (["abc"], "str"),
        ([None], "NoneType"),
        ({"a"}, "set"),
        (iter([{"a": 1}]), "list_iterator"),
    ],
)
def test_neither_a_dict_nor_a_list_of_dicts_is_refused_by_name(individual, kind):
    """The message says what it was."""
    with pytest.raises(BadInstructions, match=f"individual instructions are a {kind}: they must be a dict"):
        _instructions.gathered(individual)


def test_what_is_wrong_with_sequences_is_found_when_they_are_gathered():
    """Lengths and kinds, as where they are dealt out."""
    with pytest.raises(UnequalLengths, match="a: 1, b: 2"):
        _instructions.gathered({"a": [1], "b": [1, 2]})
    with pytest.raises(BadInstructions, match="'a' are a int"):
        _instructions.gathered({"a": 1})


@pytest.mark.parametrize("instructions", [None, [("a", 1)], "abc", 3, {1}])
def test_instructions_must_be_a_dict(instructions):
    """Anything else is named."""
    with pytest.raises(BadInstructions, match=f"common instructions are a {type(instructions).__name__}"):
        _instructions.check_names(instructions, "common")


@pytest.mark.parametrize("name", [1, None, ("a",), b"a"])
def test_names_must_be_strings(name):
    """Attributes have names."""
    with pytest.raises(BadInstructions, match="individual instructions have the key"):
        _instructions.check_names({"a": [1], name: [2]}, "individual")
    for individual in ({"a": [1], name: [2]}, [{"a": 1}, {name: 2}]):
        with pytest.raises(BadInstructions, match="individual instructions have the key"):
            _instructions.gathered(individual)


def test_any_mapping_will_do():
    """Also one that is no dict."""
    _instructions.check_names(OrderedDict(a=1), "common")
    assert len(_instructions.pack(OrderedDict(a=1), [])) == 1


def test_what_cannot_be_pickled_is_named_and_only_that():
    """The message names the guilty attributes, and the cause is what pickle raised."""
    with pytest.raises(InstructionsNotPicklable, match="common instructions 'bad', 'worse' cannot") as caught:
        _instructions.pack({"good": 1, "bad": threading.Lock(), "worse": lambda: 0}, [])
    assert caught.value.__cause__ is not None
    with pytest.raises(InstructionsNotPicklable, match="individual instructions 'bad' cannot"):
        _instructions.pack({}, [{"bad": 1}, {"bad": threading.Lock(), "good": 2}])


@pytest.mark.parametrize("kind", [pickle.PicklingError, TypeError, ValueError, AttributeError])
def test_what_cannot_be_pickled_is_caught_by_old_except_clauses(kind):
    """1.1 let out whatever pickle raised."""
    with pytest.raises(kind):
        _instructions.pack_one({"bad": threading.Lock()})


def test_recursion_and_errors_of_reduce_are_charged_to_the_attribute():
    """Whatever happens while pickling is told in the same way."""

    class Bad:
        def __reduce__(self):
            raise OSError("no")

    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (Bad(), deep):
        with pytest.raises(InstructionsNotPicklable, match="'bad'"):
            _instructions.pack_one({"bad": value, "good": 1})
    while deep:  # taken apart by hand: the interpreter would recurse
        deep = deep.pop()


def test_individual_values_are_copied_deeply():
    """Two sets that were given one object have one each."""
    shared = {"x": [1]}
    packed = _instructions.pack({"c": shared}, _instructions.deal({"i": [shared, shared]}))
    common = _instructions.unpack_common(packed[0])
    one, other = (_instructions.unpack(common, each) for each in packed[1:])
    one["i"]["x"].append(2)
    assert (other["i"], shared) == ({"x": [1]}, {"x": [1]})


def test_a_large_common_value_is_pickled_once():
    """1000 sets of one large common value are sent as one."""
    packed = _instructions.pack({"c": bytes(1_000_000)}, [{"i": n} for n in range(1000)])
    assert sum(map(len, packed)) < 1_100_000


class Key(str):
    """A string of a class of its own, such as numpy's."""

    __slots__ = ()


def test_keys_may_be_of_a_class_derived_from_str():
    """They arrive as plain strings."""
    packed = _instructions.pack({}, [{Key("a"): 1}])
    found = _instructions.unpack({}, packed[1])
    assert found == {"a": 1} and {type(name) for name in found} == {str}
