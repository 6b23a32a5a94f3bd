"""Hiring: instructions become a Worker, or an error that names them."""

from __future__ import annotations

import signal

import footprints
import pytest
from forked import in_fork
from test_errors import BadRepr

from taylorism import Worker, _hiring
from taylorism._errors import NoAdequateWorker, TaylorismError
from taylorism._hiring import hire, tell_instructions


class HiringTester(Worker):
    """What these tests hire."""

    _footprint = dict(
        attr=dict(
            hiring_test=dict(values=["plain", "broken", "mapping"]),
            number=dict(type=int, optional=True, default=0),
            mapping=dict(type=footprints.FPDict, optional=True, default=None),
            thing=dict(optional=True, default=None, type=object),
        )
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.hiring_test == "broken":
            raise ZeroDivisionError("in the constructor")


class NumberedTester(Worker):
    """A class whose names are numbers."""

    _footprint = dict(attr=dict(hiring_test=dict(values=["numbered"]), name=dict(type=int)))


def test_a_worker_is_made_of_its_instructions():
    """Attributes are cast as footprints do; what is no attribute is ignored."""
    worker = hire({"hiring_test": "plain", "number": "3", "name": "w", "no_attribute": 1}, {})
    assert (type(worker), worker.number, worker.name) == (HiringTester, 3, "w")


def test_instructions_are_only_read():
    """They are needed as they were for the report."""
    instructions, shared = {"hiring_test": "plain", "number": "3"}, {"thing": [1]}
    worker = hire(instructions, shared)
    assert instructions == {"hiring_test": "plain", "number": "3"} and shared == {"thing": [1]}
    assert worker.thing is shared["thing"], "shared instructions are not copied"


def test_each_worker_without_a_name_gets_one_of_its_own():
    """A uuid4."""
    names = {hire({"hiring_test": "plain"}, {}).name for _ in range(3)}
    assert len(names) == 3 and all(isinstance(name, str) and len(name) == 36 for name in names)


def test_attributes_are_expanded_in_the_name():
    """As footprints do."""
    assert hire({"hiring_test": "plain", "number": 7, "name": "w[number]"}, {}).name == "w7"


@pytest.mark.parametrize("instructions", [{"hiring_test": "unknown"}, {"nothing": 1, "of": "ours"}])
def test_no_class_is_an_attribute_error_that_tells_the_instructions(instructions):
    """The text is that of 1.1, and what to do."""
    with pytest.raises(NoAdequateWorker, match="no adequate Worker was found") as caught:
        hire(instructions, {})
    assert isinstance(caught.value, AttributeError)
    assert repr(instructions) in str(caught.value) and "imported before" in str(caught.value)


def test_what_the_constructor_raises_comes_out():
    """It is charged to that set."""
    with pytest.raises(ZeroDivisionError, match="in the constructor"):
        hire({"hiring_test": "broken"}, {})


def test_what_footprints_raises_comes_out():
    """An FPDict that holds a dict: TypeError, out of the choice of the class."""
    with pytest.raises(Exception) as caught:
        hire({"hiring_test": "mapping", "mapping": footprints.FPDict(a={}), "number": "x"}, {})
    assert isinstance(caught.value, Exception)


@pytest.mark.parametrize("name", ["[name]", "a[name:upper]", "[name%3s]", "[name#none]"])
def test_an_attribute_that_stands_in_its_own_value_is_refused(name):
    """For footprints would turn round and round, and the listener with it."""
    with pytest.raises(footprints.FootprintMaxIter, match="'name' stands in its own value"):
        hire({"hiring_test": "plain", "name": name}, {})


def test_attributes_that_stand_in_each_other_are_given_up(monkeypatch):
    """Footprints would never come back; the next set is hired as ever."""
    monkeypatch.setattr(_hiring, "PATIENCE", 0.2)
    before = signal.getsignal(signal.SIGVTALRM)
    try:
        with pytest.raises(footprints.FootprintMaxIter, match="stand in each other's value"):
            hire({"hiring_test": "plain", "name": "x-[other]", "other": "[name]"}, {})
        with pytest.raises(footprints.FootprintMaxIter, match="stand in each other's value"):
            hire({"hiring_test": "plain", "name": "x-[other]", "other": "[name]", "_fatal": True}, {})
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
        assert hire({"hiring_test": "plain", "name": "x-[other]", "other": 3}, {}).name == "x-3"
    finally:
        signal.signal(signal.SIGVTALRM, before)


def test_a_name_that_is_no_string_is_an_error():
    """The listener tells workers by their names."""
    with pytest.raises(TaylorismError, match="must be a string, not 3"):
        hire({"hiring_test": "numbered", "name": 3}, {})


def test_the_attributes_of_a_guilty_worker_are_told_in_order():
    """One line each; long ones cut."""
    worker = hire({"hiring_test": "plain", "number": 3, "thing": "x" * 20_000}, {})
    lines = tell_instructions(worker, {})
    assert "('number', 3)\n" in lines and lines == sorted(lines)
    assert all(line.endswith("\n") and len(line) < 11_000 for line in lines)


def test_the_instructions_are_told_where_there_is_no_worker():
    """Or where it cannot tell."""

    class Mute:
        def footprint_as_shallow_dict(self):
            raise RuntimeError

    for worker in (None, Mute(), object()):
        assert tell_instructions(worker, {"b": 1, "a": 2}) == ["('a', 2)\n", "('b', 1)\n"]
    (line,) = tell_instructions(None, {"bad": BadRepr()})
    assert "BadRepr" in line


def test_the_listener_asks_footprints_alone():
    """No second way to find a class."""
    assert _hiring.footprints is footprints


def test_a_class_that_was_defined_again_takes_the_place_of_the_first(monkeypatch):
    """As in a notebook, where a cell is run again: the one that the name stands for is hired, whichever it is."""

    def define():
        class Again(Worker):
            """Of one name with another."""

            __module__ = __name__
            _footprint = dict(attr=dict(hiring_test=dict(values=["again"])))

        Again.__qualname__ = "Again"
        return Again

    classes = [define() for _ in range(6)]
    try:
        for cls in classes:
            monkeypatch.setitem(globals(), "Again", cls)
            assert type(hire({"hiring_test": "again"}, {})) is cls
    finally:
        for cls in classes:
            footprints.collectors.get(tag="worker").discard(cls)


def test_what_is_remembered_is_built_without_a_look_at_it():
    """That is known of instructions of a shape that was met before, and of no others."""
    instructions = {"hiring_test": "plain", "number": 1}
    asked = (instructions, {**instructions, "number": 2}, {**instructions, "thing": "[x]"})

    def check():
        for _ in range(3):
            _hiring.hire(instructions, {})
        return [_hiring.is_remembered(each) for each in asked]

    assert in_fork(check) == [True, True, False]
