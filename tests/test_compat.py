"""What is not ours to change: bronx's identities, and private names of the standard library."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import bronx.fancies.loggers
import bronx.system.interrupt
import pytest
from forked import exit_code, fork, in_fork

from taylorism import _compat, taylorism_log


def test_signal_interrupt_error_is_the_one_of_bronx():
    """Callers catch that very class."""
    assert _compat.SignalInterruptError is bronx.system.interrupt.SignalInterruptError
    assert issubclass(_compat.SignalInterruptError, BaseException)


def test_the_helpers_of_bronx_act_on_our_logger():
    """`setGlobalLevel` and friends; and `getLogger` gives the same object."""

    def check():
        taylorism_log.setLevel("CRITICAL")
        for level in ("DEBUG", "ERROR"):
            bronx.fancies.loggers.setGlobalLevel(level)
            assert taylorism_log.getEffectiveLevel() == getattr(logging, level)
        assert bronx.fancies.loggers.getLogger("taylorism") is taylorism_log

    in_fork(check)


def test_our_announcement_leaves_levels_and_handlers_alone():
    """They are the user's; those of the root logger above all."""
    code = """
import logging
import footprints, bronx.fancies.loggers
root = logging.getLogger()
before = (root.level, list(root.handlers))
import taylorism
assert (root.level, list(root.handlers)) == before
log = logging.getLogger("taylorism")
assert [type(handler).__name__ for handler in log.handlers] == ["NullHandler"]
assert log.level == logging.NOTSET and log.propagate
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_private_names_that_we_use_exist():
    """On every version of Python that is supported."""
    import multiprocessing.process
    import multiprocessing.util

    assert isinstance(multiprocessing.process._children, set)
    assert isinstance(multiprocessing.util._finalizer_registry, dict)
    for function in (
        multiprocessing.util._run_after_forkers,
        multiprocessing.util._exit_function,
        threading._shutdown,
    ):
        assert callable(function)


def test_handlers_are_set_and_found_as_by_the_public_functions():
    """The module below `signal` does the same, without its enums."""

    def check():
        def handler(*args):
            pass

        _compat.set_handler(signal.SIGUSR1, handler)
        _compat.set_handler(signal.SIGINT)
        assert signal.getsignal(signal.SIGUSR1) is handler
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        found = _compat.handled_signals()
        assert found == [each for each in sorted(signal.valid_signals()) if callable(signal.getsignal(each))]
        assert signal.SIGUSR1 in found and not {signal.SIGINT, signal.SIGHUP} & set(found)

    in_fork(check)


def test_all_handlers_of_logging_are_found():
    """Whatever logger they are on; those that are gone are not."""

    def check():
        kept = logging.StreamHandler()
        logging.getLogger("some.deep.logger").addHandler(kept)
        logging.StreamHandler()
        found = _compat.log_handlers()
        assert kept in found and all(isinstance(each, logging.Handler) for each in found)

    in_fork(check)


def test_a_child_forgets_the_affairs_of_its_parent():
    """Its children, its finalizers; what asks to be told of forks is told."""
    import multiprocessing.util

    called = []

    def check():
        process = multiprocessing.get_context("fork").Process(target=signal.pause)
        process.start()
        finalizer = multiprocessing.util.Finalize(None, lambda: called.append("parent"), exitpriority=1)
        multiprocessing.util.register_after_fork(test_compat_marker, lambda obj: called.append("fork"))

        def child():
            _compat.become_multiprocessing_child()
            assert multiprocessing.active_children() == []
            _compat.leave_multiprocessing_child()
            return called

        told = in_fork(child)
        process.kill()
        process.join()
        finalizer.cancel()
        return told

    assert in_fork(check) == ["fork"]


def test_compat_marker():
    """Something to hold a registration with."""
    assert callable(test_compat_marker)


def test_leaving_ends_what_the_task_has_left():
    """A pool and a daemonic child are ended, a thread and a child are waited for."""
    reader, writer = os.pipe()

    def late(mark):
        threading.Event().wait(0.05)
        os.write(writer, mark)

    def check():
        _compat.become_multiprocessing_child()
        fork_context = multiprocessing.get_context("fork")
        fork_context.Process(target=signal.pause, daemon=True).start()
        fork_context.Process(target=late, args=(b"child",)).start()
        pool = fork_context.Pool(2)
        pool.apply_async(signal.pause)
        threading.Thread(target=late, args=(b"thread",)).start()
        _compat.leave_multiprocessing_child()
        assert multiprocessing.active_children() == []
        os._exit(0)

    assert exit_code(fork(check)) == 0
    told = os.read(reader, 100)
    assert b"child" in told and b"thread" in told
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("loaded", [True, False])
def test_nothing_is_needed_where_multiprocessing_was_never_imported(loaded, monkeypatch):
    """A plain task pays nothing."""

    def check():
        if not loaded:
            for name in [name for name in sys.modules if name.startswith("multiprocessing")]:
                del sys.modules[name]
        _compat.become_multiprocessing_child()
        _compat.leave_multiprocessing_child()
        _compat.forget_multiprocessing_child(object())
        return any(name.startswith("multiprocessing") for name in sys.modules)

    assert in_fork(check) == loaded


def test_a_process_that_is_ours_to_end_is_not_joined_at_exit():
    """multiprocessing does not know it any more."""

    def check():
        process = multiprocessing.get_context("fork").Process(target=signal.pause)
        process.start()
        assert process in multiprocessing.active_children()
        _compat.forget_multiprocessing_child(process)
        assert multiprocessing.active_children() == []
        process.kill()
        process.join()

    in_fork(check)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[] WARNING"),
        ("logging.basicConfig(level='INFO')", "['StreamHandler'] INFO"),
        ("logging.getLogger().setLevel('ERROR')", "[] WARNING"),
    ],
)
def test_the_console_of_bronx_can_be_taken_away(before, after):
    """What footprints has put on the root logger, and its level; nothing that the user has put there."""
    code = f"import logging\n{before}\nimport taylorism._compat as us\nus.forget_console(); us.forget_console()\n"
    code += "root = logging.getLogger()\nprint([type(each).__name__ for each in root.handlers], end=' ')\n"
    code += "print(logging.getLevelName(root.level))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (told.stdout.strip(), told.stderr) == (after, "")
