"""The policy: options are checked at once, and the message says what would be right."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from taylorism import _policy
from taylorism._errors import TaylorismError
from taylorism._policy import (
    BadOption,
    BadScheduler,
    Policy,
    checked_policy,
    checked_scheduler,
    checked_start_method,
    checked_wait,
)

VARIABLE = "TAYLORISM_START_METHOD"

#: the options as they are where nobody asks for anything
DEFAULTS = {
    "on_error": "stop",
    "max_trials": 1,
    "retry_delay": 0.0,
    "timeout": None,
    "stop_grace": 5.0,
    "log_dir": None,
    "progress": False,
    "memory_guard": None,
    "max_tasks_per_child": 1,
}


def policy(**options):
    """Check some options."""
    return checked_policy(**{**DEFAULTS, **options})


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


# -- the options ------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_1_1():
    """The first failure stops everything, nothing is tried again, nothing has a time limit or a log."""
    assert policy() == Policy() == Policy(**DEFAULTS) and Policy().stops


def none(instructions):
    """Set no limit."""


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [
        ("on_error", "stop", "stop"),
        ("on_error", "finish", "finish"),
        ("on_error", "collect", "collect"),
        ("max_trials", 1, 1),
        ("max_trials", 10**6, 10**6),
        ("max_trials", np.int32(3), 3),
        ("retry_delay", 0, 0.0),
        ("retry_delay", 1.5, 1.5),
        ("retry_delay", np.float32(0.5), 0.5),
        ("timeout", None, None),
        ("timeout", 1e-3, 1e-3),
        ("timeout", 60, 60),
        ("timeout", Fraction(1, 2), 0.5),
        ("timeout", none, none),
        ("stop_grace", 0, 0.0),
        ("stop_grace", 0.5, 0.5),
        ("progress", True, True),
    ],
)
def test_what_makes_sense_is_taken(option, value, kept):
    """Also numbers of numpy; and nothing else changes."""
    assert policy(**{option: value}) == Policy(**{option: kept})


SECONDS_OR_MORE = [-1, -0.1, math.nan, math.inf, "1", None, True, [1], 1j, Decimal(1)]


@pytest.mark.parametrize(
    ("option", "accepted", "values"),
    [
        ("on_error", "'stop', 'finish' or 'collect'", ["ignore", "STOP", "", None, 1, True, ["stop"], {}]),
        ("max_trials", "a whole number from 1 on", [0, -1, 1.0, 2.5, "3", None, True, False, math.inf, [2]]),
        ("retry_delay", "seconds, 0 or more", SECONDS_OR_MORE),
        ("stop_grace", "seconds, 0 or more", SECONDS_OR_MORE),
        ("timeout", "seconds greater than 0, a callable", [0, -1, math.nan, math.inf, "60", True, False, [60], 1j]),
        ("log_dir", "the path of a directory", ["", 3, True, [], b"logs", object()]),
        ("progress", "True or False", [None, 1, 0, "yes", []]),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(option, accepted, values):
    """The message names the option, the value, and what is accepted; it is a ValueError."""
    for value in values:
        with pytest.raises(BadOption) as caught:
            policy(**{option: value})
        told = str(caught.value)
        assert isinstance(caught.value, ValueError) and told.startswith(f"{option}=") and accepted in told
        assert repr(value) in told


@pytest.mark.parametrize("option", ["timeout", "retry_delay", "stop_grace"])
def test_a_number_of_seconds_that_no_float_can_hold_is_refused_like_any_other(option):
    """It is no number of seconds that anybody means."""
    with pytest.raises(BadOption, match=option):
        policy(**{option: 10**400})


def test_a_value_that_cannot_be_shown_or_is_long_is_refused_all_the_same():
    """The message is cut, and made without it where it must be."""

    class Odd:
        def __repr__(self):
            raise RuntimeError

    for value in (Odd(), "x" * 100_000):
        with pytest.raises(BadOption, match="on_error=") as caught:
            policy(on_error=value)
        assert len(str(caught.value)) < 1000


# -- trials and time --------------------------------------------------------------------------------------


def test_the_delay_is_doubled_after_each_trial():
    """From the second launch on."""
    assert [Policy(retry_delay=0.5).delay(trials) for trials in (1, 2, 3, 11)] == [0.5, 1.0, 2.0, 512.0]
    assert [Policy(retry_delay=0.0).delay(trials) for trials in (1, 2, 100)] == [0.0] * 3


@pytest.mark.parametrize("retry_delay", [0.0, 1.0])
def test_there_is_a_delay_after_any_number_of_trials(retry_delay):
    """Who is tried again for ever must not end by a number that is too large."""
    delays = [Policy(max_trials=10**6, retry_delay=retry_delay).delay(trials) for trials in (1000, 2000, 10**6)]
    assert delays == sorted(delays) and (retry_delay > 0 or delays == [0.0] * 3)


def test_the_time_limit_is_the_same_for_all_or_asked_for_each():
    """None is for any time."""
    assert [Policy(timeout=limit).limit({"x": 3}) for limit in (None, 2.5, lambda each: each["x"], none)] == [
        None, 2.5, 3, None
    ]


@pytest.mark.parametrize("seconds", [3, Fraction(1, 3), np.float32(0.5), np.int64(3)])
def test_a_time_limit_is_a_float_whatever_number_it_came_as(seconds):
    """It is formatted when it is over, which not every number can be."""
    limits = policy(timeout=seconds), Policy(timeout=lambda instructions: seconds)
    for limit in limits:
        assert type(limit.limit({})) is float and limit.limit({}) == float(seconds)


@pytest.mark.parametrize("answer", [0, -1.0, math.nan, math.inf, "60", True, [1], object])
def test_a_time_limit_that_makes_no_sense_names_the_instructions(answer):
    """It is known only when the worker would start."""
    with pytest.raises(BadOption, match="timeout returned .*'x': 3.*seconds greater than 0, or None"):
        Policy(timeout=lambda instructions: answer).limit({"x": 3})


def test_what_the_callable_raises_comes_out():
    """To be charged to the set that it was asked about."""
    with pytest.raises(KeyError, match="size"):
        Policy(timeout=lambda instructions: instructions["size"]).limit({"x": 3})


# -- the directory of the logs ----------------------------------------------------------------------------


def test_the_directory_is_made_and_absolute(tmp_path, monkeypatch):
    """With those above it; the workers may go elsewhere."""
    monkeypatch.chdir(tmp_path)
    wanted = os.path.join(os.getcwd(), "a", "b")
    for path in ("a/b", Path("a") / "b", "a/./b", "a/b/", tmp_path / "a" / "b"):
        assert policy(log_dir=path).log_dir == wanted and os.path.isdir(wanted)


def test_bad_options_make_no_directory(tmp_path):
    """They are refused before anything is done."""
    for option, value in (("on_error", "x"), ("progress", 3), ("stop_grace", -1)):
        with pytest.raises(BadOption):
            policy(log_dir=tmp_path / "logs", **{option: value})
    assert not (tmp_path / "logs").exists()


def test_a_directory_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    """Where a file is in the way."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(OSError, match="file"):
            policy(log_dir=path)


def test_a_directory_that_cannot_be_written_to_is_an_error_of_the_system(tmp_path, monkeypatch):
    """The message says which, and what to do."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="log_dir=.*cannot be written to: give a directory of your own"):
        policy(log_dir=tmp_path)


# -- waiting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (None, None), (0, 0.0), (-1, -1.0), (2.5, 2.5), (math.inf, None), (np.float32(0.5), 0.5),
        (Fraction(1, 4), 0.25),
    ],
)
def test_one_may_wait_for_any_number_of_seconds(timeout, seconds):
    """None is for as long as it takes; what has passed already is no wait."""
    assert checked_wait(timeout) == seconds


@pytest.mark.parametrize("timeout", ["1", [1], math.nan, 1j, object(), pytest.param(10**400, id="huge")])
def test_what_is_no_number_of_seconds_is_no_wait(timeout):
    """It is refused at once, not when the time is over."""
    with pytest.raises(BadOption, match="timeout=.*seconds, or None to wait as long as it takes"):
        checked_wait(timeout)
