"""The policy: options are checked at once, and the message says what would be right."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from taylorism import _policy
from taylorism._errors import TaylorismError
from taylorism._policy import BadOption, BadScheduler, checked_scheduler, checked_start_method

VARIABLE = "TAYLORISM_START_METHOD"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    """Do not depend on the environment of the tests."""
    monkeypatch.delenv(VARIABLE, raising=False)


def test_fork_is_used_where_it_exists():
    """Whatever the default of this Python is."""
    assert checked_start_method(None) == "fork"


def test_spawn_is_used_where_there_is_no_fork(monkeypatch):
    """And nothing else can be asked for there."""
    monkeypatch.delattr(os, "fork")
    assert checked_start_method(None) == "spawn"
    with pytest.raises(BadOption, match="fork"):
        checked_start_method("fork")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_is_asked_for_is_taken(method, monkeypatch):
    """By the option or by the variable; the option wins."""
    assert checked_start_method(method) == method
    monkeypatch.setenv(VARIABLE, method)
    assert checked_start_method(None) == method
    assert checked_start_method("fork") == "fork"


@pytest.mark.parametrize("method", ["thread", "FORK", "x"])
def test_an_unknown_method_is_a_value_error_that_names_the_known_ones(method, monkeypatch):
    """It also says where the value came from."""
    with pytest.raises(ValueError, match=f"start_method='{method}'.*fork.*spawn.*forkserver"):
        checked_start_method(method)
    monkeypatch.setenv(VARIABLE, method)
    with pytest.raises(BadOption, match=f"{VARIABLE}='{method}'"):
        checked_start_method(None)


def test_an_empty_variable_is_none(monkeypatch):
    """As shells leave it."""
    monkeypatch.setenv(VARIABLE, "")
    assert checked_start_method(None) == "fork"


def test_any_object_with_a_callable_launchable_is_a_scheduler():
    """Footprint or not, by a method, a function or a class."""
    ours = SimpleNamespace(launchable=lambda pending, workers, report: (pending, []))
    assert checked_scheduler(ours) is ours


@pytest.mark.parametrize("scheduler", [None, 3, "threads", object(), SimpleNamespace(launchable=[])])
def test_anything_else_is_refused_by_name(scheduler):
    """An AssertionError, as in 1.1, and a TypeError, as it should be."""
    with pytest.raises(BadScheduler, match="launchable") as caught:
        checked_scheduler(scheduler)
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, TypeError)
    assert repr(scheduler) in str(caught.value)


def test_the_errors_are_ours():
    """All errors of this package have one root."""
    assert issubclass(_policy.BadOption, TaylorismError) and issubclass(_policy.BadScheduler, TaylorismError)
