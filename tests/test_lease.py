"""Private mappings of parts of a file: when their memory is given back, and when it must not be."""

from __future__ import annotations

import gc
import os

import forked
import numpy as np
import pytest
from holding import PAGE, child, taken

from taylorism import _hold, _lease
from taylorism._lease import Graves, Lease, forks


class Place:
    """A file of one page of ones, in memory, and leases of it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("test")
        os.pwrite(self.fd, b"\1" * PAGE, 4 * PAGE)

    def punch(self, offset: int, size: int) -> None:
        """Punch a hole."""
        _hold.libc.fallocate(self.fd, 3, _hold.ctypes.c_long(offset), _hold.ctypes.c_long(size))

    def lease(self, graves: Graves | None = None) -> tuple[Lease, np.ndarray]:
        """Return a lease and an array on it."""
        lease = Lease(4 * PAGE, PAGE, self.punch, graves)
        return lease, np.frombuffer(lease.map(self.fd), np.uint8)

    @property
    def full(self) -> bool:
        """Whether the page is still there."""
        return taken(self.fd) > 0


@pytest.fixture
def place():
    """Return a file, and see that all leases have ended after the test."""
    gc.collect()
    before = _lease._living
    found = Place()
    yield found
    os.close(found.fd)
    assert _lease._living == before


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
    lease, array = place.lease()
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
    with child(lambda: array.sum() == PAGE):
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


def test_a_fork_that_is_being_made_counts(place, monkeypatch):
    """What another thread opens while one forks may be in the child or not: it is kept."""
    _lease._count_forks()
    _lease._before_fork()
    lease, array = place.lease()
    lease.settle()
    _lease._after_fork()
    del array
    assert place.full
    born, array = place.lease()
    born.settle()
    _lease._before_fork()
    del array
    _lease._after_fork()
    assert place.full


def test_a_fork_counts_on_both_sides(place, monkeypatch):
    """Before it and after it; then none is being made."""
    _lease._count_forks()
    before = forks()
    pid = os.fork()
    if not pid:
        os._exit(0)
    forked.exit_code(pid)
    assert (forks(), _lease._forking) == (before + 2, 0)


def test_graves_wait_for_the_children_that_can_see(place):
    """Only those count that were forked while it lived."""
    graves = Graves()
    with child(lambda: True):
        early = forks()
        lease, array = place.lease(graves)
        lease.settle()
        with child(lambda: array.sum() == PAGE):
            middle = forks()
            del array
            with child(lambda: True):
                late = forks()
                assert graves and place.full
                graves.dig([early, middle, late])
                assert graves and place.full
        graves.dig([early, late])
        assert not graves and not place.full


def test_it_outlives_the_descriptor(place):
    """Memory is given back when the file was closed in this process before."""
    watched = os.dup(place.fd)
    lease, array = place.lease()
    lease.settle()
    lease.outlive(place.fd)
    place.punch = None
    assert array.sum() == PAGE and taken(watched)
    del array
    assert not taken(watched)
    os.close(watched)


def test_what_has_ended_needs_no_handle(place):
    """Nothing is mapped for what nobody looks at, settled or not."""
    lease, array = place.lease()
    del array
    lease.outlive(place.fd)
    assert lease._handle is None
    kept, array = place.lease()
    kept.outlive(place.fd)
    del array
    assert kept._handle is None and place.full


def test_there_are_not_too_many(place, monkeypatch):
    """Beyond a limit, mapping is refused; the kernel's own limit would hit the rest of the program too."""
    monkeypatch.setattr(_lease, "MOST", _lease._living + 1)
    _, array = place.lease()
    with pytest.raises(MemoryError):
        place.lease()
    assert array.sum() == PAGE


def test_a_refused_mapping_is_an_error(place):
    """A descriptor that is none, and a mapping that lies outside of what the system can do."""
    with pytest.raises(OSError):
        Lease(0, PAGE, place.punch).map(999_999)
