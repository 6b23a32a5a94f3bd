"""The setup: what a listener that is no fork has to be told, and how it survives the way."""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import threading
from multiprocessing import context

import footprints
import numpy as np
import pytest
from forked import in_fork

import taylorism.schedulers
from taylorism import _setup
from taylorism._channel import Channel, encode
from taylorism._policy import Policy
from taylorism._setup import Setup


class Popen:
    """What `multiprocessing` has at hand while it starts a child."""

    class DupFd:
        """Carries the number of a descriptor."""

        def __init__(self, fd):
            self.fd = fd

        def detach(self):
            """Give it up."""
            return self.fd

    def duplicate_for_child(self, fd):
        """Return the number that it will have there."""
        return os.dup(fd)


def carried(setup):
    """Pickle a setup as for a spawned listener, and load it."""
    context.set_spawning_popen(Popen())
    try:
        packed = pickle.dumps(setup)
    finally:
        context.set_spawning_popen(None)
    return pickle.loads(packed)


def a_setup(channel, scheduler=None, shared=(), policy=Policy(), **more):
    """Make a setup."""
    return Setup(channel, os.getpid(), scheduler, dict(shared), True, 77, policy, **more)


def rebuilt(value):
    """Carry the settings alone."""
    return _setup._Unpickler(io.BytesIO(_setup._pickled(value))).load()


def test_the_marker_of_footprints_keeps_its_identity():
    """It is recognised by identity; a copy would arrive as ``'__unknown__'``."""
    came = rebuilt({"a": footprints.UNKNOWN, "b": [footprints.UNKNOWN, (1, footprints.UNKNOWN)]})
    assert came["a"] is footprints.UNKNOWN
    assert came["b"][0] is footprints.UNKNOWN and came["b"][1][1] is footprints.UNKNOWN


def test_an_unknown_marker_is_an_error():
    """Never silence."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return "other" if obj == 3 else None

    buffer = io.BytesIO()
    Pickler(buffer).dump([3])
    with pytest.raises(pickle.UnpicklingError, match="other"):
        _setup._Unpickler(io.BytesIO(buffer.getvalue())).load()


@pytest.mark.parametrize(
    "keys",
    [
        {"nosort": True},
        {"limit": "threads", "max_threads": 3, "binded": True},
        {"limit": "memory", "max_memory": 100.0},
        {"limit": "threads+memory", "max_threads": 3, "max_memory": 50.0},
        {"limit": "threads", "singlefile": True, "max_threads": 2},
    ],
)
def test_schedulers_of_ours_survive(keys):
    """With all their attributes, and still at work."""
    scheduler = footprints.proxy.scheduler(**keys)
    came = rebuilt(scheduler)
    assert type(came) is type(scheduler)
    assert came.footprint_as_shallow_dict() == scheduler.footprint_as_shallow_dict()
    sets = [{"name": str(n)} for n in range(5)]
    assert came.launchable(sets, {}, []) == scheduler.launchable(sets, {}, [])


@pytest.mark.parametrize("name", ["LaxistScheduler", "MaxThreadsScheduler", "MaxMemoryScheduler"])
def test_deprecated_schedulers_survive(name):
    """They delegate every attribute, those of pickle apart."""
    scheduler = getattr(taylorism.schedulers, name)()
    sets = [{"name": str(n)} for n in range(3)]
    assert rebuilt(scheduler).launchable(sets, {}, []) == scheduler.launchable(sets, {}, [])


def test_a_whole_setup_survives():
    """Settings, directory, environment, and a channel that works."""

    def check(tmp):
        here, there = Channel.pair()
        os.chdir(tmp)
        os.environ["TAYLORISM_TEST"] = "given"
        setup = a_setup(there, footprints.proxy.scheduler(nosort=True), {"x": [1]})
        context.set_spawning_popen(Popen())
        packed = pickle.dumps(setup)
        os.chdir("/")
        del os.environ["TAYLORISM_TEST"]
        os.environ["TAYLORISM_OLD"] = "of an older program"
        came = pickle.loads(packed)
        there.close()
        came.channel.outflow.push(encode("hello"))
        came.channel.outflow.flush()
        here.inflow.pull()
        assert here.inflow.ready[0].head == "hello"
        assert os.getcwd() == os.path.realpath(tmp)
        assert os.environ.get("TAYLORISM_TEST") == "given" and "TAYLORISM_OLD" not in os.environ
        assert (came.shared, came.verbose, came.maxlenreport) == ({"x": [1]}, True, 77)
        assert came.main_pid == os.getpid() and not came.forked and setup.forked

    in_fork(check, "/tmp" if os.path.isdir("/tmp") else os.getcwd())


def ten_seconds(instructions):
    """Be a time limit that can be imported."""
    return 10.0


def test_the_policy_survives():
    """Every option, also a time limit that is a function."""
    policy = Policy("collect", 3, 0.5, ten_seconds, 2.0, "/logs", True, "warn")
    assert None not in vars(policy).values() and policy != Policy()

    def check():
        here, there = Channel.pair()
        came = carried(a_setup(there, policy=policy))
        here.close()
        assert came.policy == policy
        return came.policy.limit({})

    assert in_fork(check) == 10.0


def test_a_deleted_working_directory_is_no_obstacle(tmp_path):
    """A listener can be told where it is not; it stays where it is."""

    def check():
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        there = Channel.pair()[1]
        carried(a_setup(there))

    in_fork(check)


def test_a_directory_that_is_gone_when_the_listener_starts_is_no_obstacle(tmp_path):
    """The work may not need it; a worker that does will say so."""

    def check():
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        there = Channel.pair()[1]
        context.set_spawning_popen(Popen())
        packed = pickle.dumps(a_setup(there))
        os.chdir("/")
        gone.rmdir()
        pickle.loads(packed)

    in_fork(check)


def test_the_modules_of_all_classes_are_listed():
    """Those of workers and schedulers; the main module is multiprocessing's affair."""
    import test_hiring

    modules = _setup._modules_of_classes()
    assert {"taylorism.schedulers", test_hiring.HiringTester.__module__} <= set(modules)
    assert not {"__main__", "__mp_main__"} & set(modules)
    assert modules == sorted(set(modules))


def test_the_module_of_an_abstract_class_is_listed_by_its_children():
    """``taylorism`` itself is imported in any case."""
    assert all(name in sys.modules for name in _setup._modules_of_classes())


def test_a_module_that_cannot_be_imported_is_a_warning(caplog, tmp_path, monkeypatch):
    """Its classes will be missing, and the set that needs them will say so."""
    (tmp_path / "broken_module_of_a_test.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level(logging.WARNING, "taylorism"):
        _setup._import_quietly("no_such_module_at_all")
        _setup._import_quietly("broken_module_of_a_test")
    assert "no_such_module_at_all" in caplog.text and "broken_module_of_a_test" in caplog.text


def test_what_cannot_be_pickled_is_told():
    """Under a fork it need not be."""

    def check():
        there = Channel.pair()[1]
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            carried(a_setup(there, shared={"lock": threading.Lock()}))

    in_fork(check)


def test_under_a_fork_nothing_is_carried():
    """Local schedulers and open files are there as they are."""
    here, there = Channel.pair()
    array, local = np.zeros(3), lambda: None
    setup = a_setup(there, local, {"array": array})
    assert setup.forked and setup.scheduler is local and setup.shared["array"] is array
    here.close()
    there.close()
