"""Workers made in one step: the same as those that are made by calling their class."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import footprints
import pytest
from bronx.patterns import observer
from forked import in_fork

from taylorism import Worker, _hiring, _moulds, _worker

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Moulded(Worker):
    """Leaves everything as it is."""

    _footprint = dict(attr=dict(mould_test=dict(type=int), label=dict(optional=True, default="x", access="rwx")))


class Constructed(Worker):
    """Has a constructor of its own."""

    _footprint = dict(attr=dict(mould_constructed=dict(type=int)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.twice = 2 * self.mould_constructed


class Between(footprints.FootprintBase):
    """Has a constructor that comes after that of Worker."""

    _abstract = True
    _footprint = dict(attr=dict())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.between = True


class Mixed(Worker, Between):
    """Its bases have a constructor beside ours."""

    _footprint = dict(attr=dict(mould_mixed=dict(type=int)))


class Named(Worker):
    """Has only some names."""

    _footprint = dict(attr=dict(mould_named=dict(type=int), name=dict(optional=True, values=["a"], default="a")))


class Watchful(Worker):
    """Notes what is set."""

    _footprint = dict(attr=dict(mould_watchful=dict(type=int)))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        vars(self).setdefault("noted", []).append(name)


@pytest.fixture(autouse=True)
def unobserved(monkeypatch):
    """Have this process be as a listener, which has made no Worker yet."""
    monkeypatch.setattr(_worker, "_unobserved", {})
    monkeypatch.setattr(_moulds, "_moulds", {})


@pytest.fixture
def called(monkeypatch):
    """Count the Workers whose class is called."""
    found: list[type] = []
    make = _moulds._called

    def note(cls, resolved):
        found.append(cls)
        return make(cls, resolved)

    monkeypatch.setattr(_moulds, "_called", note)
    return found


def built(cls, **attributes):
    """Return some Workers of one shape, of which the last ones might be moulded."""
    resolved = cls.footprint_couldbe(attributes)[0]
    return [_moulds.build(cls, dict(resolved)) for _ in range(3)]


def test_the_first_is_called_and_the_others_are_as_it_is(called):
    """All that a moulded Worker has is what one has whose class was called."""
    first, second, third = built(Moulded, mould_test=3)
    assert called == [Moulded]
    assert vars(second).keys() == vars(first).keys()
    alike = {name: value for name, value in vars(first).items() if name != "_attributes"}
    assert {name: value for name, value in vars(second).items() if name != "_attributes"} == alike
    assert second.footprint_as_shallow_dict() == {**first.footprint_as_shallow_dict(), "name": second.name}
    assert len({first.name, second.name, third.name}) == 3 and all(UUID4.fullmatch(x.name) for x in (second, third))
    assert second._attributes is not third._attributes and second.messenger is None


def test_a_moulded_worker_is_a_worker_like_any_other():
    """Its attributes can be set as their access says, it is cloned, printed, and told to stop before it starts."""
    worker = built(Moulded, mould_test=3, name="given", memory=2)[-1]
    assert (worker.name, worker.mould_test, worker.memory, worker.label) == ("given", 3, 2.0, "x")
    worker.label = "y"
    assert worker.label == "y"
    with pytest.raises(AttributeError):
        worker.mould_test = 4
    with pytest.raises(AttributeError):
        worker._messenger.put(None)
    assert worker.footprint_clone().label == "y" and "Moulded" in str(worker)
    worker.bye()
    worker.stop_working()


@pytest.mark.parametrize(
    ("cls", "attributes", "mark"),
    [
        (Constructed, {"mould_constructed": 2}, "twice"),
        (Mixed, {"mould_mixed": 2}, "between"),
        (Watchful, {"mould_watchful": 2}, "noted"),
    ],
)
def test_code_of_a_class_is_run_for_each(cls, attributes, mark, called):
    """A class whose Workers are made by code of its own is called for each of them."""
    workers = built(cls, **attributes)
    assert called == [cls] * 3 and all(mark in vars(worker) for worker in workers)


def test_a_name_that_is_checked_is_left_to_footprints(called):
    """A class that takes only some names is called."""
    assert [worker.name for worker in built(Named, mould_named=1)] == ["a"] * 3
    assert called == [Named] * 3


@pytest.mark.parametrize("step", ["__init__", "footprint_riseup", "footprint_setattr", "__setattr__"])
def test_a_class_that_is_patched_is_called(step, called, monkeypatch):
    """Who replaces a step after the first Worker was made has it run for the next."""
    built(Moulded, mould_test=1)
    seen = []
    original = getattr(Moulded, step)

    def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(step)
        original(self, *args, **kwargs)

    monkeypatch.setattr(Moulded, step, patched)
    workers = built(Moulded, mould_test=2)
    assert called == [Moulded] * 4 and seen and [worker.mould_test for worker in workers] == [2] * 3


def test_observers_are_told_of_each(called):
    """Where a class is observed, each of its Workers is told of."""
    seen = []

    class Observer:
        def newobsitem(self, item, info):
            seen.append(item)

        def delobsitem(self, item, info):
            pass

        def updobsitem(self, item, info):
            pass

    board = observer.get(tag=Moulded.fullname())
    watcher = Observer()
    board.register(watcher)
    try:
        workers = built(Moulded, mould_test=1)
    finally:
        board.unregister(watcher)
    assert called == [Moulded] * 3 and seen == workers


def test_main_moulds_nothing(called, monkeypatch):
    """Where the collector of footprints is told of each Worker, all classes are called."""
    monkeypatch.setattr(_worker, "_unobserved", None)
    built(Moulded, mould_test=1)
    assert called == [Moulded] * 3 and not _moulds._moulds


def test_footprints_logs_each_where_that_is_asked_for(caplog):
    """The debug log of footprints tells of each Worker."""
    built(Moulded, mould_test=1)
    with caplog.at_level(logging.DEBUG, logger="footprints"):
        built(Moulded, mould_test=1)
    assert sum("Abstract" in record.message for record in caplog.records) == 3


def test_hiring_moulds(called, monkeypatch):
    """A Worker whose class is remembered comes out of its mould, with hooks and ticket of its own."""
    monkeypatch.setattr(_hiring, "_hired", iter(range(10, 20)))
    marks = {"scheduler_hooks": [print], "scheduler_ticket": 4}
    workers = [_hiring.hire({"mould_test": number, **marks}, {}) for number in range(4)]
    assert [type(worker) for worker in workers] == [Moulded] * 4 and called == [Moulded] * len(called)
    assert len(called) < 4 and [worker.mould_test for worker in workers] == [0, 1, 2, 3]
    assert {worker.scheduler_ticket for worker in workers} == {4} and workers[3].scheduler_hooks == [print]


def test_names_of_a_fork_are_its_own():
    """What a process has asked for ahead, its fork does not give again."""
    names = {_worker.new_name(os.getpid()) for _ in range(10)}
    theirs = in_fork(lambda: [_worker.new_name(os.getpid()) for _ in range(200)])
    ours = [_worker.new_name(os.getpid()) for _ in range(200)]
    assert len({*names, *theirs, *ours}) == 410 and all(map(UUID4.fullmatch, (*theirs, *ours)))


def test_who_observes_later_is_told_in_the_next_listener(called, monkeypatch):
    """A listener that comes after an observer has been registered asks anew, though it inherits the moulds."""
    built(Moulded, mould_test=1)
    assert called == [Moulded] and Moulded in _moulds._moulds
    monkeypatch.setattr(_worker, "_unobserved", {Moulded: False})
    built(Moulded, mould_test=1)
    assert called == [Moulded] * 4
