"""Modules that are imported when something of them is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from taylorism import _cpus
from taylorism._late import Late


def test_what_is_asked_for_is_that_of_the_module(monkeypatch):
    """As it is at that moment."""
    late = Late("_cpus")
    assert late.bind is _cpus.bind
    monkeypatch.setattr(_cpus, "bind", len)
    assert late.bind is len


def test_what_is_not_there_is_an_attribute_error():
    """As of the module itself."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = Late("_cpus").no_such_name


def test_nothing_is_imported_before():
    """The import of the schedulers brings neither the queues that they make nor what the machine has."""
    modules = ("_cpus", "_memory", "_caps", "_ranked", "_lanes", "_forest")
    code = f"""
import sys, taylorism.schedulers
print([name for name in {modules!r} if "taylorism." + name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
