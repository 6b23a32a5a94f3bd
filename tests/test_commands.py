"""Programs: an interruption that comes as one is being started reaches it, whoever else is told.

What they read and write, and how they end, is tested through the workers that run them (`test_workers`).
"""

from __future__ import annotations

import os
import signal

import pytest
from forked import in_fork

from taylorism import _commands, _signals
from taylorism._compat import SignalInterruptError


@pytest.mark.parametrize("led", [True, False])
def test_a_program_that_was_not_there_yet_is_told(led, monkeypatch):
    """Who interrupts us has told all that there were; it is not waited for until it is killed."""

    def check():
        program = _commands.Program("sleep 600")
        start = program._start

        def start_late(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            return start(*arguments)

        monkeypatch.setattr(program, "_start", start_late)
        _signals.Interruption().begin()
        with pytest.raises(SignalInterruptError):
            program.run(led)

    in_fork(check)
