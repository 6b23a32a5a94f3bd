"""Private mappings of parts of a file: when their memory is given back, and when it must not be."""

from __future__ import annotations

import gc
import os
import sys

import forked
import numpy as np
import pytest
from holding import PAGE, child, taken

from taylorism import _hold, _lease
from taylorism._lease import Graves, Lease, Tracked, forks


class Place:
    """A file of one page of ones, in memory, and leases of it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("test")
        os.pwrite(self.fd, b"\1" * PAGE, 4 * PAGE)

    def punch(self, offset: int, size: int) -> None:
        """Punch a hole."""
        _hold.libc.fallocate(self.fd, 3, _hold.ctypes.c_long(offset), _hold.ctypes.c_long(size))

    def lease(self, graves: Graves | None = None) -> tuple[Lease | Tracked, np.ndarray]:
        """Return a lease and an array on it."""
        lease = self._lease() if graves is None else Tracked(self.fd, 4 * PAGE, PAGE, self.punch, graves)
        view, lease.view = lease.view, None
        return lease, np.frombuffer(view, np.uint8)

    def _lease(self) -> Lease:
        return Lease(self.fd, 4 * PAGE, PAGE, self.punch)

    @property
    def full(self) -> bool:
        """Whether the page is still there."""
        return taken(self.fd) > 0


@pytest.fixture
def place():
    """Return a file, and see that all leases have ended after the test."""
    before = living()
    found = Place()
    yield found
    os.close(found.fd)
    assert living() == before


def living() -> int:
    """Return how many leases have not ended."""
    gc.collect()
    return sum(ref() is not None for ref in _lease._held.values())


def test_it_shows_the_file_and_writes_to_itself(place):
    """The array is writable, and what is written is nobody else's."""
    _, array = place.lease()
    array[:2] = 7
    _, other = place.lease()
    assert (array.sum(), other.sum()) == (PAGE + 12, PAGE)
    assert os.pread(place.fd, 3, 4 * PAGE) == b"\1\1\1"


def test_a_mapping_holds_no_descriptor(place):
    """A thousand arrays that are kept must not use up what the program may open."""
    before = os.listdir("/proc/self/fd")
    kept = [place.lease() for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == len(before) and kept


def test_memory_goes_with_the_last_who_looks(place):
    """A view of a view keeps it."""
    lease, array = place.lease()
    lease.settle()
    part = memoryview(array[5:10].view())
    del array
    assert place.full
    del part
    assert not place.full


def test_what_is_not_settled_is_kept(place):
    """Who was interrupted reads it again; once it is settled, it goes though it ended before."""
    _, array = place.lease()
    del array
    assert place.full
    again, array = place.lease()
    assert array.sum() == PAGE
    del array
    again.settle()
    assert not place.full


def test_who_forked_meanwhile_goes_on_seeing_it(place):
    """The child reads what it had when the parent has let go of it; a hole would be zeros."""
    lease, array = place.lease()
    lease.settle()
    seen = [array]
    with child(lambda: seen[0].sum() == PAGE):
        seen.clear()
        del array
        gc.collect()
        assert place.full


def test_who_forked_before_and_after_is_no_reason_to_keep_it(place):
    """Children that cannot have the mapping do not matter."""
    with child(lambda: True):
        lease, array = place.lease()
        lease.settle()
        del array
        assert not place.full


def test_a_child_gives_nothing_back(place):
    """What is garbage in a fork may be in use in its parent."""
    lease, array = place.lease()
    lease.settle()

    def let_go() -> bool:
        nonlocal array
        del array
        gc.collect()
        return place.full

    assert forked.in_fork(let_go)
    assert place.full and array.sum() == PAGE


def test_a_settling_in_a_child_gives_nothing_back(place):
    """Nor does one that ended before the fork, and is settled in the child."""
    lease, array = place.lease()
    del array
    forked.in_fork(lease.settle)
    assert place.full


def test_a_child_uses_leases_of_its_own(place):
    """A fork that opens something gives that back."""

    def use() -> bool:
        lease, array = place.lease()
        lease.settle()
        del array
        return place.full

    assert forked.in_fork(use) is False


def test_a_fork_that_is_being_made_counts(place):
    """What another thread opens while one forks may be in the child or not: it is kept."""
    _lease._see_forks()
    _lease._begun.append(0)
    lease, array = place.lease()
    lease.settle()
    _lease._over.append(0)
    del array
    assert place.full
    born, array = place.lease()
    born.settle()
    _lease._begun.append(0)
    _lease._armed.clear()
    del array
    _lease._over.append(0)
    assert place.full


def test_a_fork_counts_on_both_sides():
    """Before it and after it; then none is being made."""
    _lease._see_forks()
    before = forks()
    pid = os.fork()
    if not pid:
        os._exit(0)
    forked.exit_code(pid)
    assert forked.in_fork(_lease._forking) is False
    before += 2
    assert (forks(), _lease._forking()) == (before + 2, False)


def test_graves_wait_for_the_children_that_can_see(place):
    """Only those count that were forked while it lived."""
    graves = Graves()
    with child(lambda: True):
        early = forks()
        lease, array = place.lease(graves)
        lease.settle()
        seen = [array]
        with child(lambda seen=seen: seen[0].sum() == PAGE):
            middle = forks()
            seen.clear()
            del array
            with child(lambda: True):
                late = forks()
                assert graves and place.full
                graves.dig([early, middle, late])
                assert graves and place.full
        graves.dig([early, late])
        assert not graves and not place.full


def test_it_outlives_the_descriptor(place):
    """Memory is given back when the file was closed in this process before, and its number is another's."""
    watched = os.dup(place.fd)
    lease, array = place.lease()
    lease.settle()
    other = os.memfd_create("other")
    os.pwrite(other, b"\2" * PAGE, 4 * PAGE)
    os.dup2(other, place.fd)
    assert array.sum() == PAGE and taken(watched)
    del array
    assert not taken(watched) and taken(other)
    os.close(watched)
    os.close(other)


def test_nothing_of_python_runs_when_it_ends(place):
    """An exception of a signal handler would be lost there: a Ctrl-C, or a time limit."""
    seen = []

    def look(frame, event, argument):
        seen.append(frame.f_code.co_name)
        return look

    lease, array = place.lease()
    lease.settle()
    before = sys.gettrace()
    sys.settrace(look)
    try:
        del array
    finally:
        sys.settrace(before)
    assert not place.full and not seen


def test_it_leaves_no_mapping(place):
    """Neither of the bytes nor of the handle, here or in a fork: each would keep the whole file."""

    def mapped() -> int:
        with open("/proc/self/maps") as file:
            return file.read().count("memfd:test ")

    lease, array = place.lease()
    lease.settle()
    _, other = place.lease()
    assert mapped() == 4
    seen = [array, other]
    del array

    def let_go() -> int:
        nonlocal other
        del other
        seen.clear()
        return mapped()

    assert forked.in_fork(let_go) == 0
    del other
    seen.clear()
    assert mapped() == 0


def test_a_child_buries_nothing(place):
    """What it has inherited is for its parent to give back."""
    graves = Graves()
    seen = list(place.lease(graves))
    assert forked.in_fork(lambda: (seen.clear(), gc.collect(), bool(graves))[-1]) is False
    seen.clear()
    graves.dig([])


def test_a_fork_disarms_without_python(place):
    """For the same reason, and because what is not disarmed would be punched under the child."""
    lease, _array = place.lease()
    lease.settle()
    assert lease._number in _lease._armed
    forked.exit_code(forked.fork(lambda: None))
    assert lease._number not in _lease._armed
    assert _lease._armed.clear.__self__ is _lease._armed


def test_what_has_ended_is_forgotten(place):
    """The books do not grow with the number of leases that were."""
    for _ in range(3 * _lease.FEW):
        lease, array = place.lease()
        lease.settle()
        del array
    assert len(_lease._held) < 2 * _lease.FEW + 2 * living()
    assert _lease._armed.keys() <= _lease._held.keys()


def test_there_are_not_too_many(place, monkeypatch):
    """Beyond a limit, mapping is refused; the kernel's own limit would hit the rest of the program too."""
    monkeypatch.setattr(_lease, "MOST", living() + 1)
    _, array = place.lease()
    with pytest.raises(MemoryError):
        place.lease()
    assert array.sum() == PAGE


def test_a_refused_mapping_is_an_error(place):
    """A descriptor that is none, and a mapping that lies outside of what the system can do."""
    with pytest.raises(OSError):
        Lease(999_999, 0, PAGE, place.punch)
    with pytest.raises((OSError, MemoryError, OverflowError)):
        Lease(place.fd, 0, 1 << 62, place.punch)
