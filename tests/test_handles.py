"""Handles on shared memory: found by processes that were there before it, and kept while they are under way."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from sharing import FORK, Early, forked, needs_robust, run_script, same
from workers import reports, slots, until

import taylorism
from taylorism._handles import by_handle, in_handles, note_handed
from taylorism.util import SharedNumpyArray

MASKED = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 1], [0, 0]], fill_value=-3, hard_mask=True)


def test_what_is_handed_is_listed():
    """The context lists the memory whose handles were pickled within it, and within it alone."""
    array = SharedNumpyArray(np.zeros(3))
    pickle.dumps(array)
    with by_handle() as handed:
        pickle.dumps([array, SharedNumpyArray(array, readonly=True)])
        with by_handle() as inner:
            pickle.dumps(SharedNumpyArray(np.zeros(1)))
        assert in_handles()
    assert not in_handles()
    assert handed[0] is array._memory
    assert (len(set(handed)), len(inner)) == (1, 1)
    note_handed(array)
    assert len(handed) <= 2


# --------------------------------------------------------------------------------------------------
# Processes that were there before


def write(array, readonly):
    """Write, mask, and say what came."""
    array[0, 0] = 9
    array[1, 1] = np.ma.masked
    assert readonly.get_lock() is array.get_lock()
    assert not os.get_inheritable(array._memory.descriptor)
    return array.acquire(False), readonly.flags.writeable, readonly.tolist(), array.fill_value, array.hardmask


def test_a_process_that_was_there_before_finds_the_memory():
    """It writes the very memory, its mask too, and meets the very lock; nothing of it stays open there."""
    with Early() as early:
        before = early.does(opened)
        array = SharedNumpyArray(MASKED)
        readonly = SharedNumpyArray(array, readonly=True)
        with array.get_lock():
            found = early.does(write, array, readonly)
        assert found == (False, False, [[9, None], [3, None]], -3, True)
        assert array.tolist() == [[9, None], [3, None]]
        assert early.does(opened) == before


def opened():
    """Return what is open and what is mapped of shared arrays."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("memfd:taylorism")
    return sorted(os.listdir("/proc/self/fd")), maps


def hold(array):
    """Take the lock and die."""
    array.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


@needs_robust
def test_its_death_with_the_lock_is_told(caplog):
    """The lock that it found is as robust as that which it would have been born with."""
    with Early() as early:
        array = SharedNumpyArray(np.zeros(2))
        with pytest.raises(EOFError):
            early.does(hold, array)
        with array.get_lock():
            assert array.get_lock().took_over
    assert "half written" in caplog.text


def mapped_for_writing(array):
    """Return how often the data of an array are mapped to be written: the page of the lock is always."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ours = [line.split() for line in lines if "memfd:taylorism" in line]
    return [words[1] for words in ours if words[2] == "00000000"]


def test_what_is_readonly_everywhere_is_so_there():
    """Of an array made read-only no writable mapping is made; of a read-only handle the array beneath has one."""
    with Early() as early:
        assert early.does(mapped_for_writing, SharedNumpyArray(np.zeros(2), readonly=True)) == ["r--s"]
        array = SharedNumpyArray(np.zeros(2))
        readonly = SharedNumpyArray(array, readonly=True)
        assert sorted(early.does(mapped_for_writing, readonly)) == ["r--s", "rw-s"]


def few_descriptors():
    """Leave room for few files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def sums(*arrays):
    """Add up many arrays, with a twin of each, and open as many files as half the limit."""
    files = [os.dup(0) for _ in range(15)]
    found = [float(SharedNumpyArray(array, readonly=True).sum()) for array in arrays]
    for fd in files:
        os.close(fd)
    return sum(found)


def test_many_handles_leave_half_of_the_descriptors():
    """Memory that was found stays mapped without a descriptor where these are few."""
    with Early(few_descriptors) as early:
        arrays = [SharedNumpyArray(np.full(2, float(n))) for n in range(50)]
        assert early.does(sums, *arrays) == 2 * sum(range(50))


def pickled(array):
    """Return a message for `Early`."""
    with by_handle():
        return pickle.dumps((np.sum, array))


def of_closed():
    """A handle on memory that its sender has let go of."""
    return pickled(SharedNumpyArray(np.zeros(2)))


def of_dead():
    """A handle that was sent by a process that is gone."""
    return forked(of_closed)


def of_none():
    """A handle on memory without a file."""
    array = SharedNumpyArray(np.zeros(2))
    array._memory._identity = None
    return pickled(array)


def of_borrowed():
    """A handle on memory that multiprocessing made; its heap keeps a descriptor, hence in a child."""
    return forked(lambda: pickled(SharedNumpyArray(FORK.Array("d", 2))))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (of_closed, r"the shared array float64 \(2,\) was sent.*could not be opened in process"),
        (of_dead, r"the shared array float64 \(2,\) was sent.*could not be opened in process"),
        (of_none, r"the shared array float64 \(2,\) was sent.*no file of its own"),
        (of_borrowed, "an array of multiprocessing was sent.*no file of its own"),
    ],
)
def test_memory_that_cannot_be_found(message, told):
    """An error says what, why, and what to do."""
    with Early() as early, pytest.raises(RuntimeError, match=f"{told}.*before the Boss"):
        early.does_packed(message())


def test_the_descriptor_of_somebody_else_is_not_opened():
    """If the number is another file's by now, such as a pipe's, that is seen before it is opened."""
    with Early() as early:
        array = SharedNumpyArray(np.zeros(2))
        packed, number = pickled(array), array._memory.descriptor
        reader, writer = os.pipe()
        os.dup2(reader, number)
        with pytest.raises(RuntimeError, match="not open there any more"):
            early.does_packed(packed)
        for fd in (reader, writer, number):
            os.close(fd)


# --------------------------------------------------------------------------------------------------
# Instructions


def mapped_by(pid):
    """Return how much memory of shared arrays a process has mapped."""
    gc.collect()
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:taylorism")


def test_arrays_made_after_the_boss():
    """They come by handle with any instructions; main sees what workers write; all is given back."""
    ours = mapped_by("self")
    boss = taylorism.Boss(scheduler=slots(2))
    common, own, inner = (SharedNumpyArray(np.zeros(3)) for _ in range(3))
    two = {"memory": [1.0, 2.0]}
    boss.set_instructions({"deed": "write_shared", "value": common}, two)
    boss.set_instructions({"deed": "write_shared"}, two | {"value": [own, {"array": inner}]})
    boss.make_them_work()
    boss.set_instructions({"deed": "echo"}, {"value": [0]})
    until(lambda: len(boss.status().done) == 5)
    assert (common.tolist(), own.tolist(), inner.tolist()) == ([0, 1, 2], [0, 1, 0], [0, 0, 2])
    until(lambda: mapped_by(boss._process.pid) == ours, "the listener to let go")
    found = reports(boss)
    same(sorted(type(each).__name__ for each in found), ["int"] + ["ndarray"] * 4)
    del common, own, inner
    gc.collect()
    assert mapped_by("self") == ours


def test_an_array_that_main_has_let_go_of():
    """Main keeps the memory while a worker may still need it, through a second trial too, and not longer."""
    ours = mapped_by("self")
    boss = taylorism.Boss(scheduler=slots(1), max_trials=2)
    boss.set_instructions({"deed": "fail_once"}, {"value": [SharedNumpyArray(np.zeros(2))]})
    gc.collect()
    assert mapped_by("self") > ours
    boss.make_them_work()
    assert reports(boss) == [[2, 0]]
    gc.collect()
    assert mapped_by("self") == ours


def test_each_set_keeps_its_own_memory():
    """What has been done lets go of its array while the others of its call wait."""
    ours = mapped_by("self")
    boss = taylorism.Boss(scheduler=slots(1))
    boss.set_instructions({"deed": "write_shared"}, {"value": [SharedNumpyArray(np.zeros(2)) for _ in range(3)]})
    all_of_it = mapped_by("self")
    boss.cancel(0)
    boss.status()
    assert ours < mapped_by("self") < all_of_it
    boss.stop_them_working()
    boss.wait_till_finished()
    del boss
    assert mapped_by("self") == ours


def test_pending_sets_come_back_with_their_array():
    """What never ran is in the report with the very memory, not a copy of its values."""
    array = SharedNumpyArray(np.zeros(2))
    boss = taylorism.Boss(scheduler=slots(1))
    boss.set_instructions({"deed": "write_shared"}, {"value": [array]})
    boss.stop_them_working()
    boss.wait_till_finished()
    (found,) = boss.get_report()["pending"]
    found["value"][0] = 7
    assert array[0] == 7


def test_an_array_that_cannot_be_found_is_charged_to_its_set():
    """The failure says which array, why, and what to do; the other sets are done."""
    array = SharedNumpyArray(np.zeros(2))
    boss = taylorism.Boss(scheduler=slots(1), on_error="collect")
    late = SharedNumpyArray(np.zeros(2))
    late._memory._identity = None
    boss.set_instructions({"deed": "write_shared"}, {"value": [late, array]})
    boss.make_them_work()
    boss.wait_till_finished()
    (error,) = boss.get_report()["errors"].values()
    assert "no file of its own" in str(error)
    assert "sharedmemory_common_instructions" in str(error)


MANY = """
    import os
    import sys
    import time
    import numpy as np
    import taylorism
    from multiprocessing import resource_tracker
    from taylorism.util import SharedNumpyArray

    class Adder(taylorism.Worker):
        _footprint = dict(attr=dict(
            number=dict(type=int), late=dict(type=SharedNumpyArray), arrays=dict(type=list)))

        def _task(self, **kwargs):
            for array in [self.late, *self.arrays]:
                with array.get_lock():
                    array[0] += 1

    def main():
        before = len(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
        arrays = [SharedNumpyArray(np.zeros(2)) for _ in range(20)]
        boss = taylorism.Boss(
            sharedmemory_common_instructions=dict(arrays=arrays), start_method=sys.argv[1], stop_grace=1)
        late = [SharedNumpyArray(np.zeros(2)) for _ in range(20)]
        boss.set_instructions({}, dict(number=range(40), late=late * 2))
        boss.make_them_work()
        boss.wait_till_finished()
        print({float(a[0]) for a in arrays}, {float(a[0]) for a in late})
        del boss, arrays, late
        tracker = resource_tracker._resource_tracker._fd
        deadline = time.monotonic() + 5  # for names that other processes have there for a moment
        while not (no_name := set(os.listdir("/dev/shm")) <= before[1]) and time.monotonic() < deadline:
            time.sleep(0.01)
        left = len(os.listdir("/proc/self/fd")) - before[0], no_name
        print(left if tracker is None else (left[0] - 1, left[1]), tracker is None)

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_many_workers_and_many_arrays_leave_nothing(tmp_path, start_method):
    """No descriptor, no segment, no warning of a resource tracker; nor one, but the one that comes with a spawn."""
    found = run_script(tmp_path, MANY, start_method)
    assert found == f"{{40.0}} {{2.0}}\n(0, True) {start_method == 'fork'}\n"
