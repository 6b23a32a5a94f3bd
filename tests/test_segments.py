"""Memory without a name: what it leaves behind, and how it reaches other processes."""

from __future__ import annotations

import contextlib
import copy
import gc
import multiprocessing
import multiprocessing.context
import operator
import os
import pickle
import resource
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from sharing import (
    FORK,
    descriptors,
    dies_poking,
    forked,
    needs_robust,
    pickle_as_spawning,
    run_script,
)
from workers import until

from taylorism import _segments
from taylorism._handles import by_handle
from taylorism.util import SharedNumpyArray

# --------------------------------------------------------------------------------------------------
# Arrays of multiprocessing. Their heap keeps a descriptor for ever: so they are made in children.


def test_multiprocessing_and_workers_see_each_others_writes():
    """A child's write through the one is seen through the other."""

    def look():
        source = FORK.Array("i", [1, 2, 3])
        array = SharedNumpyArray(source)
        forked(lambda: operator.setitem(array, 1, 20))
        forked(lambda: operator.setitem(source, 2, 30))
        with source.get_lock():
            taken = forked(lambda: array.acquire(False))
        return list(source), array.tolist(), taken

    assert forked(look) == ([1, 20, 30], [1, 20, 30], False)


def test_an_array_without_a_lock_gets_one():
    """A RawArray is shared too, and all handles on it have one lock, which processes share."""

    def look():
        source = multiprocessing.RawArray("d", [1, 2])
        array, again = SharedNumpyArray(source), SharedNumpyArray(source)
        forked(lambda: operator.setitem(array, 0, 5))
        with again.get_lock():
            taken = forked(lambda: array.acquire(False))
        return list(source), taken, array.get_lock() is again.get_lock()

    assert forked(look) == ([5, 2], False, True)


# --------------------------------------------------------------------------------------------------
# What is left behind, and what is not there


def test_nothing_is_left():
    """Arrays have no name while they live, and no descriptor and no mapping after they are gone."""
    before, segments = descriptors(), os.listdir("/dev/shm")
    arrays = [SharedNumpyArray(np.ones((50, 7))) for _ in range(20)]
    arrays += [SharedNumpyArray(np.ma.ones(3), readonly=True), SharedNumpyArray(arrays[0])]
    for array in arrays:
        with array.get_lock():
            pass
    # Another process may have a name there, for the moment that it takes to make a semaphore of multiprocessing.
    until(lambda: set(os.listdir("/dev/shm")) <= set(segments))
    assert len(descriptors() - before) <= len(arrays)
    assert len(mappings()) >= len(arrays)
    del arrays, array
    gc.collect()
    assert descriptors() == before
    assert mappings() == []


@pytest.mark.parametrize("nbytes", [0, 100, 5 * 2**20 + 24])
def test_new_memory_is_full_of_zeros(nbytes):
    """That which was gathered into huge pages, too; and it is not shorter than was asked for."""
    content = np.asarray(_segments.Memory.new(nbytes, "a test").raw(readonly=False))
    assert content.size >= nbytes
    assert not content.any()


def mappings() -> list[str]:
    """Return the mapped memory of shared arrays."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "memfd:taylorism" in line and "taylorism-hold" not in line]


def test_no_helper_is_started(tmp_path):
    """Arrays and locks, and children that use them, start no resource tracker."""
    text = """
        import multiprocessing
        from multiprocessing import resource_tracker
        import numpy
        import psutil
        from taylorism.util import SharedNumpyArray

        def work():
            with array.get_lock():
                array[0] += 1

        array = SharedNumpyArray(numpy.zeros(1))
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join()
        print(array[0], psutil.Process().children(), resource_tracker._resource_tracker._fd)
    """
    assert run_script(tmp_path, text) == "1.0 [] None\n"


def test_many_arrays_and_few_descriptors():
    """Arrays leave half of the descriptors to the program, and are shared and protected all the same."""

    def look():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        before = descriptors()
        arrays = [SharedNumpyArray(np.full(3, float(n))) for n in range(100)]
        assert max(map(int, descriptors() - before)) < 32
        last = SharedNumpyArray(arrays[-1], readonly=True)
        forked(lambda: operator.setitem(arrays[-1], 0, -1))
        assert dies_poking(last)
        with arrays[-1].get_lock():
            assert not forked(lambda: last.acquire(False))
        return last.tolist(), sum(float(array[1]) for array in arrays)

    assert forked(look) == ([-1, 99, 99], 4950)


def test_no_descriptor_at_all():
    """With every descriptor in use an array is made without one."""

    def look():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.suppress(OSError):
            while True:
                os.dup(0)
        array = SharedNumpyArray(np.arange(3.0))
        with pytest.raises(RuntimeError, match="ulimit -n"):
            pickle_as_spawning(array)
        return array.tolist()

    assert forked(look) == [0, 1, 2]


def test_a_file_too_long_is_no_obstacle():
    """Under a limit on the length of files an array is made without one."""

    def look():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        array = SharedNumpyArray(np.arange(5000.0))
        return float(array.sum())

    assert forked(look) == 12497500


def test_closed_standard_streams():
    """The descriptor of an array is never 0, 1 or 2, which a child would take for its streams."""

    def look():
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        before = descriptors()
        array = SharedNumpyArray(np.arange(3.0))
        return min(map(int, descriptors() - before)) > 2, array.tolist()

    assert forked(look) == (True, [0, 1, 2])


def test_a_descriptor_closed_by_others_is_left_alone():
    """If the program closes all descriptors, the number, another's by then, is not closed."""

    def look():
        array = SharedNumpyArray(np.arange(3.0))
        number = array._memory.descriptor
        os.close(number)
        with open(os.devnull) as file:
            os.dup2(file.fileno(), number)
            values = array.tolist()
            with pytest.raises(RuntimeError, match="no descriptor left"):
                pickle_as_spawning(array)
            del array
            gc.collect()
            return values, os.fstat(number).st_rdev == os.fstat(file.fileno()).st_rdev

    assert forked(look) == ([0, 1, 2], True)


def test_where_there_is_no_memfd(monkeypatch, tmp_path):
    """There it is a temporary file, which has no name any more."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = SharedNumpyArray(np.arange(3.0))
    forked(lambda: operator.setitem(array, 0, 5))
    assert array.tolist() == [5, 1, 2]
    assert list(tmp_path.iterdir()) == []
    assert dies_poking(SharedNumpyArray(array, readonly=True))


# --------------------------------------------------------------------------------------------------
# Handles, and spawned processes


def test_by_handle_it_is_the_same_memory():
    """Within by_handle copies are the array itself, and pickles are handles, in children too."""
    source = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 1], [0, 0]], fill_value=-3)
    array = SharedNumpyArray(source.copy(order="F"))
    with by_handle():
        assert copy.copy(array) is array is copy.deepcopy([array])[0]
        data = pickle.dumps([array, SharedNumpyArray(array, readonly=True)])
        with by_handle():
            pass
        assert len(pickle.dumps(SharedNumpyArray(np.zeros(10000)))) < 1000
    assert len(pickle.dumps(SharedNumpyArray(np.zeros(10000)))) > 80000

    def work():
        ours, readonly = pickle.loads(data)
        ours[0, 1] = 9
        ours[1, 1] = np.ma.masked
        return (
            readonly.flags.writeable,
            readonly.flags.f_contiguous,
            hash(ours) == hash(array),
            ours.fill_value,
            ours.get_lock() is array.get_lock(),
        )

    assert forked(work) == (False, True, True, -3, True)
    assert array.filled().tolist() == [[1, 9], [3, -3]]


def test_memory_is_mapped_once(monkeypatch):
    """A process that is handed memory that it has uses what it has, and closes what it was handed."""
    array = SharedNumpyArray(np.zeros(3))
    memory, handed = array._memory, []

    class Handed:
        def __init__(self, number):
            handed.append(number)

        def detach(self):
            return handed[-1]

    monkeypatch.setattr(_segments.reduction, "DupFd", Handed)
    for number in (memory.descriptor, os.dup(memory.descriptor)):
        with monkeypatch.context() as patch:
            patch.setattr(memory, "descriptor", number)
            attach, arguments = memory.__reduce__()
        assert attach(*arguments) is memory
    assert str(memory.descriptor) in descriptors()
    assert str(handed[1]) not in descriptors()


def test_handles_are_of_one_thread():
    """Other threads go on pickling values."""
    array = SharedNumpyArray(np.zeros(10000))
    sizes = []
    with by_handle():
        thread = threading.Thread(target=lambda: sizes.append(len(pickle.dumps(array))))
        thread.start()
        thread.join()
    assert sizes[0] > 80000


def test_a_handle_on_nothing():
    """A handle on memory that this process does not have is an error that says what to do."""
    with by_handle():
        data = pickle.dumps(SharedNumpyArray(np.zeros(3)))
    gc.collect()
    with pytest.raises(RuntimeError, match="before the Boss"):
        pickle.loads(data)


def test_handles_on_arrays_of_multiprocessing():
    """They are found as well."""

    def look():
        array = SharedNumpyArray(FORK.Array("i", [1, 2]))
        with by_handle():
            again = pickle.loads(pickle.dumps(array))
        again[0] = 5
        return array.tolist(), again.get_lock() is array.get_lock()

    assert forked(look) == ([5, 2], True)


SPAWNING = """
    import logging
    import multiprocessing
    import os
    import signal
    import sys

    import numpy as np

    from taylorism.util import SharedNumpyArray

    def work(number, array, again, masked, readonly, borrowed, raw):
        assert hash(array) == number
        assert again.get_lock() is array.get_lock() is readonly.get_lock()
        assert not array.acquire(False)   # main holds it
        assert array.flags.f_contiguous and array.dtype == ">f4"
        array[0, 1] = 5
        again[1, 0] = 6
        masked[0] = np.ma.masked
        assert masked.hardmask and masked.fill_value == -9
        try:
            readonly[0, 0] = 1
        except ValueError:
            borrowed[1] = readonly[0, 1]
        with raw.get_lock(), borrowed.get_lock():
            raw[0] += 1
        assert not os.get_inheritable(array._memory.descriptor)
        masked.acquire()
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def main(context):
        array = SharedNumpyArray(np.zeros((2, 2), ">f4", order="F"))
        masked = SharedNumpyArray(np.ma.array([1, 2], mask=[0, 1], hard_mask=True, fill_value=-9))
        readonly = SharedNumpyArray(array, readonly=True)
        borrowed = SharedNumpyArray(context.Array("d", 2))
        raw = SharedNumpyArray(context.RawArray("i", 2))
        arguments = hash(array), array, array, masked, readonly, borrowed, raw
        child = context.Process(target=work, args=arguments)
        with array.get_lock():
            child.start()
            child.join()
        print(child.exitcode, array.tolist(), masked.mask.tolist(), borrowed.tolist(), raw.tolist())
        logger = logging.getLogger("taylorism")
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.propagate = False
        print(masked.acquire(timeout=20))

    if __name__ == "__main__":
        main(multiprocessing.get_context(sys.argv[1]))
"""


@needs_robust
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_a_spawned_process_is_handed_the_memory(tmp_path, start_method):
    """It has the same memory, masks and locks, by handle; and its death with a lock is told."""
    lines = run_script(tmp_path, SPAWNING, start_method).splitlines()
    assert lines[0] == "-9 [[0.0, 5.0], [6.0, 0.0]] [True, True] [0.0, 5.0] [1, 0]"
    assert "half written" in lines[1]
    assert lines[2] == "True"
