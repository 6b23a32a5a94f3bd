"""The cpus that one worker is given: the hook that takes them, and how many a running worker has."""

from __future__ import annotations

import os
import pickle
from types import SimpleNamespace

import pytest

from taylorism import _caps, _cpus
from taylorism._shares import CpuShare, Granted, share_of


@pytest.fixture
def taken(monkeypatch):
    """Have what a share does to its process written down instead of done."""
    done = []
    monkeypatch.setattr(_cpus, "bind", lambda cpus: done.append(("bind", cpus)))
    monkeypatch.setattr(_caps, "cap_threads", lambda count: done.append(("cap", count)))
    return done


def test_a_share_caps_threads_and_binds_where_it_has_cpus(taken):
    """Bound first: some libraries look at that when they are told."""
    CpuShare(3, (4, 5, 6))(SimpleNamespace(name="w"))
    assert taken == [("bind", (4, 5, 6)), ("cap", 3)]


def test_a_share_without_cpus_does_not_bind(taken):
    """It only says how many threads."""
    CpuShare(2)(SimpleNamespace(name="w"))
    assert taken == [("cap", 2)]


def test_a_share_can_be_sent():
    """To a worker that is no fork; it is the same there."""
    again = pickle.loads(pickle.dumps(CpuShare(2, (0, 7))))
    assert (type(again), again.ncpus, again.cpus) == (CpuShare, 2, (0, 7))
    assert CpuShare(1).cpus == ()


def test_a_share_says_what_it_is():
    """In the lines about a worker that failed."""
    assert "2 cpus" in repr(CpuShare(2, (0, 7)))
    assert "[0, 7]" in repr(CpuShare(2, (0, 7)))
    assert "[" not in repr(CpuShare(2))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_share_binds_for_real(monkeypatch):
    """To a cpu that this process may use."""
    monkeypatch.setattr(_caps, "cap_threads", lambda count: None)
    mask = os.sched_getaffinity(0)
    try:
        CpuShare(1, (max(mask),))(SimpleNamespace(name="w"))
        assert os.sched_getaffinity(0) == {max(mask)}
    finally:
        os.sched_setaffinity(0, mask)


@pytest.mark.parametrize(
    ("about", "ncpus"),
    [
        ({}, 1),
        ({"ncpus": None}, 1),
        ({"ncpus": 4}, 4),
        ({"ncpus": 4, "scheduler_hooks": []}, 4),
        ({"ncpus": 4, "scheduler_hooks": None}, 4),
        ({"ncpus": 4, "scheduler_hooks": [print, CpuShare(2, (1, 2))]}, 2),
        ({"scheduler_hooks": (CpuShare(3),)}, 3),
    ],
)
def test_what_a_running_worker_has(about, ncpus):
    """What the scheduler gave it; what it declares, if another scheduler launched it; else one."""
    share = share_of(SimpleNamespace(name="w", **about))
    assert share.ncpus == ncpus
    assert share.cpus == ((1, 2) if ncpus == 2 else ())


def test_a_number_that_was_granted_is_a_number():
    """A worker class may ask for an int; it stays what it is on the way to the worker."""
    assert Granted(3) == 3
    assert str(Granted(3)) == repr(Granted(3)) == "3"
    assert isinstance(Granted(3), int)
    again = pickle.loads(pickle.dumps(Granted(3)))
    assert (again, type(again)) == (3, Granted)
