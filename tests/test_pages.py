"""The pages under a shared array: mapped where they are wanted, huge if they can be, and read-only for good."""

from __future__ import annotations

import gc
import mmap
import operator
import os
import resource
import weakref

import numpy as np
import psutil
import pytest
from sharing import descriptors, dies_poking, forked

from taylorism import _pages
from taylorism._pages import Pages
from taylorism.util import SharedNumpyArray


@pytest.mark.parametrize("nbytes", [2**21 - 8, 2**21, 5 * 2**20 + 24])
def test_arrays_of_huge_pages(nbytes):
    """The values are right where memory is gathered into huge pages, and where it is not."""
    source = np.arange(nbytes // 8, dtype=float)
    array = SharedNumpyArray(source)
    np.testing.assert_array_equal(array[...], source)
    np.testing.assert_array_equal(SharedNumpyArray(array, readonly=True)[...], source)
    forked(lambda: operator.setitem(array, slice(None), -source))
    np.testing.assert_array_equal(array[...], -source)


def test_where_there_are_no_huge_pages(monkeypatch):
    """A system that does not tell the size of its huge pages gets ordinary ones."""
    monkeypatch.setattr(_pages, "_HUGE", 0)
    array = SharedNumpyArray(np.arange(2.0**18 + 1))
    assert array[-1] == 2**18


def test_memory_that_cannot_be_had():
    """An array larger than the memory that may be used is a MemoryError that says how large."""

    def look():
        source = np.broadcast_to(np.float64(0), (2**27,))
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
        with pytest.raises(MemoryError, match=r"1024\.0 MiB of shared memory"):
            SharedNumpyArray(source)
        return descriptors()

    assert forked(look) == forked(descriptors)


def pages_of(kind: str) -> tuple[Pages, int]:
    """Return a page, of a file or of none, and the descriptor of the file."""
    if kind == "memory":
        return Pages.of(-1, 0, mmap.PAGESIZE), -1
    descriptor = os.memfd_create("taylorism")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return Pages.of(descriptor, 0, mmap.PAGESIZE), descriptor


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_frozen_pages_and_their_twin(kind):
    """The twin is the same memory: frozen, it sees what a child writes to the first, and is a fault to write."""

    def look():
        pages, descriptor = pages_of(kind)
        twin = pages.twin(descriptor)
        twin.freeze()
        forked(lambda: operator.setitem(np.asarray(pages), 3, 7))
        readonly = np.asarray(twin)
        assert not readonly.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            readonly.flags.writeable = True
        return readonly[:5].tolist(), dies_poking(readonly), dies_poking(np.asarray(pages))

    assert forked(look) == ([0, 0, 0, 7, 0], True, False)


def test_pages_go_with_the_last_array_over_them():
    """An array keeps them mapped without the object that mapped them."""
    array = np.asarray(Pages.of(-1, 0, mmap.PAGESIZE))
    kept = weakref.ref(array.base)
    gc.collect()
    array[0] = 5
    assert array[0] == 5
    del array
    gc.collect()
    assert kept() is None


def test_pages_that_cannot_be_protected():
    """What the system refuses is an OSError that says so."""
    pages = Pages.of(-1, 0, mmap.PAGESIZE)
    address, pages.address = pages.address, pages.address + 1
    with pytest.raises(OSError, match="cannot protect shared memory"):
        pages.freeze()
    pages.address = address


def test_pages_of_no_file():
    """A descriptor that is none is an OSError, with its number, that says how much was wanted."""
    with open(os.devnull) as file, pytest.raises(OSError, match="MiB of shared memory") as caught:
        Pages.of(file.fileno(), 0, mmap.PAGESIZE)
    assert caught.value.errno
