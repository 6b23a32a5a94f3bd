"""Exits: what was registered is done once, by the process that registered it, in whatever way it leaves."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

from forked import exit_code, fork, in_fork

from taylorism import _exits


def test_callbacks_are_called_once_and_last_first():
    """Registered twice, called once."""

    def check():
        called = []
        one, other = (lambda: called.append(1)), (lambda: called.append(2))
        for callback in (one, other, one):
            _exits.before_leaving(callback)
        _exits.run()
        _exits.run()
        return called

    assert in_fork(check) == [2, 1]


def test_what_is_registered_again_after_a_run_is_called_again():
    """A Boss that is made while the others are ended is ended too."""

    def check():
        called = []
        _exits.before_leaving(lambda: called.append(1))
        _exits.run()
        _exits.before_leaving(lambda: called.append(2))
        _exits.run()
        return called

    assert in_fork(check) == [1, 2]


def test_a_callback_that_registers_another_has_it_called():
    """As long as something is registered, it is called."""

    def check():
        called = []
        _exits.before_leaving(lambda: _exits.before_leaving(lambda: called.append("second")))
        _exits.run()
        return called

    assert in_fork(check) == ["second"]


def test_forks_inherit_nothing():
    """What main registered is not for its children, who have callbacks of their own."""

    def check():
        called = []
        _exits.before_leaving(lambda: called.append("parent"))

        def child():
            _exits.run()
            assert not called
            _exits.before_leaving(lambda: called.append("child"))
            _exits.run()
            return called

        theirs = in_fork(child)
        _exits.run()
        return theirs, called

    assert in_fork(check) == (["child"], ["parent"])


def test_the_end_of_the_interpreter_is_a_way_of_leaving():
    """Also by `sys.exit`, and after an error."""
    for end in ("", "import sys; sys.exit(3)", "1/0"):
        code = f"from taylorism import _exits; _exits.before_leaving(lambda: print('left', flush=True)); {end}"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert run.stdout == "left\n"


def test_a_child_of_multiprocessing_leaves_in_its_own_way():
    """It runs no atexit, but its own finalizers, before it joins its own children."""
    reader, writer = os.pipe()

    def target():
        _exits.before_leaving(lambda: os.write(writer, b"left"))

    def check():
        process = multiprocessing.get_context("fork").Process(target=target)
        process.start()
        process.join()

    assert exit_code(fork(check)) == 0
    os.close(writer)
    assert os.read(reader, 100) == b"left"
    os.close(reader)
