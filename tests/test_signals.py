"""Signals: events in the listener, exceptions in a task, defaults in what the task forks, nothing in main."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest
from forked import Injected, exit_code, fork, in_fork, two_blows

from taylorism import _compat, _signals
from taylorism._compat import SignalInterruptError
from taylorism._signals import ENDING, INTERRUPTING, Inbox, Interruption, die_of, postponed, while_blocked


def kill_me(*signums):
    """Send signals to this process, and let their handlers run."""
    for signum in signums:
        signal.raise_signal(signum)


def mask():
    """Return the blocked signals of this thread."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def drained(inbox):
    """Take what has come to an inbox, as its loop does."""
    return inbox.drain(bool(select.select([inbox.fd], [], [], 0)[0]))


# -- while blocked --------------------------------------------------------------------------------------


def answer_while_blocked(function):
    """Return what `function` returns while the signals are blocked."""
    answers = []
    while_blocked(lambda: answers.append(function()))
    return answers[0]


def test_blocked_signals_come_when_it_is_left():
    """None is lost, and the mask is as it was."""
    came, before = [], mask()
    old = signal.signal(signal.SIGUSR1, lambda signum, frame: came.append(signum))

    def act():
        assert set(INTERRUPTING) <= mask()
        kill_me(signal.SIGUSR1)
        assert came == []

    while_blocked(act)
    assert came == [signal.SIGUSR1] and mask() == before
    signal.signal(signal.SIGUSR1, old)


def test_blocked_may_be_nested_and_left_by_an_exception():
    """The mask is that of before, whatever was blocked already."""
    before = mask()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    with pytest.raises(ZeroDivisionError):
        while_blocked(lambda: while_blocked(lambda: 1 / 0))
    assert mask() == before | {signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_ctrl_c_while_the_signals_are_being_blocked_leaves_them_open(monkeypatch):
    """`pthread_sigmask` runs the handlers of what is pending *after* it has set the mask, and they may raise."""
    real, before = _compat.set_mask, mask()

    def interrupted(how, signums):
        answer = real(how, signums)
        if how == signal.SIG_BLOCK and signums:
            monkeypatch.setattr(_compat, "set_mask", real)
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(_compat, "set_mask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        while_blocked(int)
    after = mask()
    real(signal.SIG_SETMASK, before)
    assert after == before


def test_a_second_signal_as_the_first_one_leaves_finds_them_open():
    """Python 3.10 runs handlers where an exception arrives, too: at the beginning of a `finally`."""
    before = mask()
    with two_blows() as act, pytest.raises((TypeError, Injected)):
        while_blocked(act)
    after = mask()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert after == before


# -- the listener ---------------------------------------------------------------------------------------


def test_the_inbox_wakes_its_loop_and_tells_what_came():
    """Each signal once, SIGCHLD apart."""

    def check():
        inbox = Inbox()
        assert inbox.fd > 2 and not select.select([inbox.fd], [], [], 0)[0]
        assert inbox.child_ended() and not inbox.child_ended()  # the first look is free
        kill_me(signal.SIGTERM, signal.SIGINT, signal.SIGTERM)
        assert select.select([inbox.fd], [], [], 0)[0]
        assert drained(inbox) == {signal.SIGTERM, signal.SIGINT}
        assert not inbox.child_ended()
        exit_code(fork(int))
        assert select.select([inbox.fd], [], [], 5)[0]
        assert drained(inbox) == set() and inbox.child_ended() and not inbox.child_ended()
        inbox.forget()

    in_fork(check)


def test_many_signals_block_nobody():
    """More than the pipe of the wake-ups holds."""

    def check():
        inbox = Inbox()
        for _ in range(70_000):
            signal.raise_signal(signal.SIGUSR1)
        kill_me(signal.SIGTERM)
        came = set()
        while select.select([inbox.fd], [], [], 0)[0]:
            came |= drained(inbox)
        return came

    assert signal.SIGTERM in in_fork(check)


def test_signals_that_were_blocked_at_the_fork_come_to_the_inbox():
    """What comes between the fork and the first loop is not lost; also where main's thread blocked them."""

    def check():
        os.kill(os.getpid(), signal.SIGTERM)
        inbox = Inbox()
        return drained(inbox)

    assert in_fork(answer_while_blocked, check) == {signal.SIGTERM}


def test_handlers_of_main_are_not_the_listeners():
    """They are reset, in every signal; what main ignores stays ignored, but for what the listener lives by."""

    def check():
        called = []
        for signum in (signal.SIGUSR1, signal.SIGALRM, signal.SIGINT, signal.SIGWINCH):
            signal.signal(signum, lambda signum, frame: called.append(signum))
        for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN)
        inbox = Inbox()
        kill_me(signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGWINCH)
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert drained(inbox) == {signal.SIGTERM, signal.SIGINT}
        exit_code(fork(int))
        assert select.select([inbox.fd], [], [], 5)[0]
        drained(inbox)
        assert inbox.child_ended()
        return called

    assert in_fork(check) == []


def test_every_ending_signal_is_caught_by_the_listener():
    """It leaves in an orderly way."""

    def check():
        inbox = Inbox()
        kill_me(*ENDING)
        return drained(inbox)

    assert in_fork(check) == set(ENDING)


# -- a worker -------------------------------------------------------------------------------------------


def interrupted_by(signum, role):
    """Return what a signal raises in a task."""
    try:
        kill_me(signum)
    except BaseException as error:
        return type(error), str(error), role.signum
    return None, "", role.signum


@pytest.mark.parametrize("signum", INTERRUPTING)
@pytest.mark.parametrize("under_a_boss", [True, False])
def test_the_first_signal_raises_in_the_task(signum, under_a_boss):
    """SignalInterruptError, KeyboardInterrupt for SIGINT; the second is noted, and raises nothing."""

    def worker():
        role = Interruption()
        role.begin()
        first = interrupted_by(signum, role)
        return first, interrupted_by(signum, role), interrupted_by(signal.SIGTERM, role)

    def listener():
        Inbox()
        return in_fork(worker)

    first, second, third = in_fork(listener if under_a_boss else worker)
    expected = KeyboardInterrupt if signum == signal.SIGINT else SignalInterruptError
    assert (first[0], first[2]) == (expected, signum)
    assert expected is KeyboardInterrupt or str(int(signum)) in first[1]
    assert second == third == (None, "", signum)


def test_nothing_raises_once_the_task_is_over():
    """Its outcome is on its way; what came is noted."""

    def check():
        role = Interruption()
        role.begin()
        role.disarm()
        return interrupted_by(signal.SIGTERM, role)

    assert in_fork(check) == (None, "", signal.SIGTERM)


def test_a_postponed_signal_raises_at_the_end_of_the_block():
    """Not within, once, and not again where it has raised before; elsewhere the block does nothing."""

    def check():
        with postponed():
            pass
        role, within = Interruption(), []
        role.begin()
        with pytest.raises(SignalInterruptError), postponed():
            within.append(interrupted_by(signal.SIGTERM, role))
        with postponed():
            within.append(interrupted_by(signal.SIGHUP, role))
        return within

    assert in_fork(check) == [(None, "", signal.SIGTERM)] * 2


def test_a_signal_that_comes_before_the_role_is_kept():
    """A newborn worker is interrupted as soon as it begins, not killed, and not in our own code."""

    def worker():
        kill_me(signal.SIGTERM)
        role = Interruption()
        with pytest.raises(SignalInterruptError):
            role.begin()
        return role.signum

    def listener():
        Inbox()
        return in_fork(worker)

    assert in_fork(listener) == signal.SIGTERM


def test_what_the_user_ignores_stays_ignored_but_sigterm():
    """Under nohup SIGHUP is nothing; SIGTERM is how tasks are stopped."""

    def check():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        role = Interruption()
        role.begin()
        return interrupted_by(signal.SIGHUP, role)[0], interrupted_by(signal.SIGTERM, role)[0]

    assert in_fork(check) == (None, SignalInterruptError)


def test_a_worker_does_not_wake_its_listener():
    """Its signals are written to no pipe of the listener's, and its children raise no SIGCHLD handler."""

    def check():
        inbox = Inbox()

        def worker():
            inbox.forget()
            assert signal.set_wakeup_fd(-1) == -1, "its number will soon belong to a file of the task"
            role = Interruption()
            role.begin()
            assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
            interrupted_by(signal.SIGTERM, role)

        pid = fork(worker)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        drained(inbox)
        assert inbox.child_ended()
        return exit_code(pid), drained(inbox)

    assert in_fork(check) == (0, set())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_what_a_task_forks_has_the_defaults(signum):
    """A pool in a task ends its children by SIGTERM."""

    def check():
        role = Interruption()
        role.begin()

        def child():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            kill_me(signum)

        return exit_code(fork(child)), interrupted_by(signum, role)[0]

    assert in_fork(check) == (-signum, SignalInterruptError)


@pytest.mark.parametrize("under_a_boss", [True, False])
def test_no_signal_is_lost_before_the_first_step_of_what_a_task_forks(under_a_boss):
    """The interpreter forgets, as it begins in a fork, what a handler of ours has taken note of."""

    def worker():
        Interruption().begin()
        ends = []
        for _ in range(100):
            pid = fork(signal.pause)
            os.kill(pid, signal.SIGTERM)
            ends.append(end_of(pid))
        return ends

    def listener():
        Inbox()
        return in_fork(worker)

    assert in_fork(listener if under_a_boss else worker) == [-signal.SIGTERM] * 100


def end_of(pid):
    """Return the exit code of a child, which is killed if it does not end by itself."""
    deadline = time.monotonic() + 5.0
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return exit_code(pid)


def test_handlers_of_the_task_are_its_forks_too():
    """Only ours are taken back."""

    def check():
        Interruption().begin()
        called = []
        signal.signal(signal.SIGUSR1, lambda signum, frame: called.append(signum))

        def child():
            kill_me(signal.SIGUSR1)
            assert called == [signal.SIGUSR1]

        return exit_code(fork(child))

    assert in_fork(check) == 0


def test_a_task_may_be_the_main_of_a_listener_of_its_own():
    """A nested Boss: its listener has an inbox, whose workers are interrupted like any other."""

    def worker():
        role = Interruption()
        role.begin()
        return interrupted_by(signal.SIGTERM, role)[0]

    def listener():
        inbox = Inbox()
        theirs = in_fork(worker)
        kill_me(signal.SIGTERM)
        return theirs, drained(inbox) - {signal.SIGCHLD}

    def main():
        Interruption().begin()
        return answer_while_blocked(lambda: in_fork(listener))

    assert in_fork(main) == (SignalInterruptError, {signal.SIGTERM})


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_to_die_of_a_signal_is_seen_by_the_parent(signum):
    """Also where it is blocked or handled."""

    def child():
        signal.signal(signum, lambda *args: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
        die_of(signum)

    assert exit_code(fork(child)) == -signum


def test_nothing_is_installed_in_main():
    """By the import alone, there is no role, and no handler of ours."""
    assert _signals._role is None
    assert all(signal.getsignal(signum) is not _signals._dispatch for signum in signal.valid_signals())
