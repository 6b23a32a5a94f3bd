"""The lock of shared memory: who gets it, who does not, and what becomes of it when its holder dies."""

from __future__ import annotations

import gc
import logging
import pickle
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from forked import Injected, two_blows
from sharing import FORK, Holder, forked, look_and_take, needs_robust, run_script

from taylorism import _robust
from taylorism.util import SharedNumpyArray


def test_the_lock_excludes_other_processes():
    """Increments of one element by four processes at a time are not lost."""
    array = SharedNumpyArray(np.zeros(1, int))

    def increment():
        for _ in range(300):
            with array.get_lock():
                array[0] += 1

    children = [FORK.Process(target=increment) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        child.close()
    assert array[0] == 1200


def test_the_lock_excludes_other_threads():
    """Another thread of the process does not get it, nor can it release it."""
    array = SharedNumpyArray(np.zeros(1))
    outcome = []

    def other():
        outcome.append(array.acquire(False))
        try:
            array.release()
        except AssertionError:
            outcome.append("refused")

    with array.get_lock():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert outcome == [False, "refused"]


def test_the_lock_is_recursive():
    """Who has it gets it again, and others get it when it was released as often."""
    array = SharedNumpyArray(np.zeros(1))
    assert array.acquire()
    assert array.acquire(True, 1)
    assert array.get_lock().acquire(block=False)
    array.release()
    array.release()
    assert not forked(lambda: array.acquire(False))
    array.release()
    assert forked(lambda: array.acquire(False))
    with pytest.raises(AssertionError, match="does not hold"):
        array.release()


def test_a_second_signal_as_the_first_one_comes_to_a_release_leaves_nothing_locked(monkeypatch):
    """Python 3.10 runs handlers where an exception arrives, too: at the beginning of a `finally`."""
    array = SharedNumpyArray(np.zeros(1))
    assert array.acquire()
    held = _robust._held
    with two_blows() as act, pytest.raises((TypeError, Injected)):
        monkeypatch.setattr(_robust, "_held", SimpleNamespace(discard=lambda lock: (held.discard(lock), act())))
        array.release()
    monkeypatch.undo()
    assert forked(look_and_take(array)) is True


def test_a_child_does_not_own_what_its_parent_holds():
    """A forked child neither has the lock that its parent had at the fork, nor can it release it."""
    array = SharedNumpyArray(np.zeros(1))

    def look():
        with pytest.raises(AssertionError):
            array.release()
        return array.acquire(timeout=0.02)

    with array.get_lock():
        assert forked(look) is False
    assert forked(look_and_take(array)) is True


@pytest.mark.parametrize("timeout", [-1, 0, 0.02])
def test_waiting_has_an_end(timeout):
    """A timeout is kept, a negative one is none at all; without blocking it is not looked at."""
    array = SharedNumpyArray(np.zeros(1))
    with Holder(array) as holder:
        assert array.acquire(timeout=timeout) is False
        assert array.acquire(False, 1000) is False
        holder.let_go()
        assert array.acquire(timeout=20) is True
    array.release()


def test_who_waits_gets_it():
    """A waiting process goes on when the holder releases the lock, without a timeout too."""
    array = SharedNumpyArray(np.zeros(1))
    with Holder(array) as holder:
        threading.Timer(0.05, holder.let_go).start()
        assert array.acquire()
        array.release()


@needs_robust
def test_a_dead_holder_does_not_keep_the_lock(caplog):
    """After the SIGKILL of the holder the next one gets the lock, is told so once, and can go on."""
    array = SharedNumpyArray(np.zeros(3))
    with Holder(array) as holder, caplog.at_level(logging.WARNING, logger="taylorism"):
        holder.kill()
        assert array.acquire(timeout=20)
        assert "half written" in caplog.text
        assert "float64 (3,)" in caplog.text
        assert array.get_lock().took_over
        assert not forked(lambda: array.get_lock().took_over)
        caplog.clear()
        array.release()
        assert not array.get_lock().took_over
        assert forked(look_and_take(array))
        assert array.acquire(timeout=20)
        array.release()
    assert not caplog.records


@needs_robust
def test_who_waits_for_a_dying_holder_gets_the_lock(caplog):
    """The death of the holder wakes who is waiting already."""
    array = SharedNumpyArray(np.zeros(3))
    with Holder(array) as holder:
        threading.Timer(0.05, holder.process.kill).start()
        assert array.acquire(timeout=20)
        array.release()
    assert "half written" in caplog.text


@needs_robust
def test_a_dead_thread_does_not_keep_the_lock(caplog):
    """A thread that ends with the lock has lost it, to another thread of the process too."""
    array = SharedNumpyArray(np.zeros(1))
    for _ in range(3):  # later threads may have the identifier of earlier ones
        thread = threading.Thread(target=array.acquire)
        thread.start()
        thread.join()
    assert len(caplog.records) == 2
    assert array.acquire(timeout=20)
    array.release()
    assert len(caplog.records) == 3


class Interruption(Exception):
    """What a signal handler of the tests throws."""


def _interrupt(*_):
    raise Interruption


def test_waiting_can_be_interrupted():
    """A signal handler runs while the lock is waited for, and what it raises comes out."""
    array = SharedNumpyArray(np.zeros(1))

    def wait():
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interruption):
            array.acquire()
        return array.acquire(False)

    with Holder(array):
        assert forked(wait) is False


class Interrupting:
    """The thread library, with a signal handler that throws after the mutex was taken."""

    def __init__(self, library, name):
        self.library, self.name = library, name

    def __getattr__(self, name):
        function = getattr(self.library, name)
        if name != self.name:
            return function

        def interrupted(*arguments):
            self.name = ""
            function(*arguments)
            raise Interruption

        return interrupted


@needs_robust
@pytest.mark.parametrize("died", [False, True], ids=["released", "died"])
def test_an_interruption_leaves_no_lock_behind(died):
    """If a signal strikes between the taking and the noting, the lock is free afterwards."""
    array = SharedNumpyArray(np.zeros(1))
    lock = array.get_lock()
    if died:
        with Holder(array) as holder:
            holder.kill()
    lock._pthread = Interrupting(lock._pthread, "trylock")
    with pytest.raises(Interruption):
        lock.acquire()
    assert forked(look_and_take(array)) is True
    with pytest.raises(AssertionError):
        lock.release()
    assert lock.acquire(False)
    lock.release()


@needs_robust
def test_an_interruption_does_not_take_anothers_lock():
    """If a signal strikes who waits, the lock stays with who has it, a thread of the process too."""
    array = SharedNumpyArray(np.zeros(1))
    lock = array.get_lock()
    taken, done = threading.Event(), threading.Event()
    outcome = []

    def hold():
        with lock:
            taken.set()
            done.wait(10)
            outcome.append(forked(lambda: lock.acquire(False)))
        outcome.append("released")

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    lock._pthread = Interrupting(lock._pthread, "wait_until")
    with pytest.raises(Interruption):
        lock.acquire()
    done.set()
    thread.join()
    assert outcome == [False, "released"]


@needs_robust
def test_a_lock_that_was_lost_track_of_is_found_again():
    """What the library knows to be ours already is ours: it does not deadlock."""
    lock = SharedNumpyArray(np.zeros(1)).get_lock()
    assert lock._pthread.trylock(lock._mutex) == 0
    assert lock.acquire(timeout=20)
    lock.release()
    assert lock.acquire(False)
    lock.release()


@needs_robust
def test_a_held_lock_outlives_its_array():
    """An array dropped with its lock held does not tear the lock from under the C library."""

    def look():
        for _ in range(3):
            SharedNumpyArray(np.zeros(1)).acquire()
            gc.collect()
            with SharedNumpyArray(np.zeros(1)).get_lock():
                pass
        return len(_robust._held)

    assert forked(look) == 3


def test_the_lock_alone_is_enough():
    """A lock works after its array is gone, and shows whether it is held."""
    lock = SharedNumpyArray(np.zeros(1)).get_lock()
    gc.collect()
    with lock:
        assert ", held" in repr(lock) or _robust._pthread is None
        assert not forked(lambda: lock.acquire(False))
    assert ", held" not in repr(lock)


@needs_robust
def test_a_lock_is_not_pickled():
    """The array is, which has the lock."""
    with pytest.raises(TypeError, match="pass the shared array"):
        pickle.dumps(SharedNumpyArray(np.zeros(1)).get_lock())


@needs_robust
def test_without_clocklock_the_wall_clock_is_used(monkeypatch):
    """A C library that cannot wait by the steady clock waits by the other."""

    class Old:
        pthread_mutex_timedlock = _robust.libc.pthread_mutex_timedlock

    monkeypatch.setattr(_robust, "libc", Old)
    library = _robust._Pthread()
    monkeypatch.undo()
    assert library.now is time.time
    array = SharedNumpyArray(np.zeros(1))
    array.get_lock()._pthread = library
    with Holder(array) as holder:
        assert not array.acquire(timeout=0.02)
        holder.let_go()
        assert array.acquire(timeout=20)
    array.release()


def test_where_there_are_no_robust_locks(tmp_path):
    """There the lock is that of multiprocessing, which forked and spawned processes share."""
    text = """
        import multiprocessing
        import numpy
        from taylorism import _robust
        from taylorism.util import SharedNumpyArray
        _robust._pthread = None

        def work(array):
            with array.get_lock():
                array[0] += 1

        def look(array):
            array[1] = array.acquire(False)

        if __name__ == "__main__":
            array = SharedNumpyArray(numpy.zeros(2))
            for start_method in ("fork", "spawn"):
                context = multiprocessing.get_context(start_method)
                for target in (work, look):
                    child = context.Process(target=target, args=(array,))
                    with array.get_lock() if target is look else open("/dev/null"):
                        child.start()
                        child.join()
            print(type(array.get_lock()).__name__, array.tolist())
    """
    assert run_script(tmp_path, text) == "RLock [2.0, 0.0]\n"
