"""The files in which big buffers cross: who writes where, what is given back, and what the system refuses."""

from __future__ import annotations

import errno
import gc
import os
import resource

import forked
import numpy as np
import pytest
from holding import MIB, PAGE, taken

from taylorism import _hold, _lease
from taylorism._hold import BERTH, Hold, NoRoom


@pytest.fixture
def hold():
    """Return a hold of three lanes, which is closed at the end."""
    made = Hold([os.memfd_create("test") for _ in range(3)])
    yield made
    made.close()


def new():
    """Return a hold that is open; None where there is none."""
    hold = Hold()
    return hold if hold.open() else None


def full(hold, size=PAGE):
    """Return a berth, and where it has put one buffer."""
    berth = hold.berth(0)
    return berth, berth.stow([b"\1" * size])[0]


def leased(hold, lane, extent):
    """Return an array on an extent, which gives its memory back."""
    lease = hold.lease(lane, *extent)
    view, lease.view = lease.view, None
    lease.settle()
    return np.frombuffer(view, np.uint8)


def test_no_two_launches_share_a_berth(hold):
    """Each number has a place of its own, in each of the lanes for reports in turn, up to the end of a file."""
    berths = [hold.berth(number) for number in range(7)]
    assert [each.lane for each in berths] == [1, 2, 1, 2, 1, 2, 1]
    assert len({(each.lane, each._start) for each in berths}) == 7
    last = 2 * (2**63 // BERTH - 1) - 1
    assert hold.berth(last)._start + BERTH <= 2**63 - 1
    assert hold.berth(last + 2) is None


def test_instructions_have_a_lane_of_their_own(hold):
    """Each call has a berth there."""
    berths = [hold.own_berth() for _ in range(3)]
    assert {each.lane for each in berths} == {0}
    assert [each._start for each in berths] == [0, BERTH, 2 * BERTH]


def test_far_berths_work(hold):
    """The last berth of all can be written, read, mapped and emptied; memory is taken for what was written."""
    berth = hold.berth(2 * (2**63 // BERTH - 1) - 1)
    (extent,) = berth.stow([b"\1" * MIB])
    assert MIB <= taken(*hold.descriptors) < 2 * MIB
    assert bytes(hold.read(berth.lane, *extent)) == b"\1" * MIB
    assert leased(hold, berth.lane, extent).sum() == MIB
    assert taken(*hold.descriptors) == 0
    berth.stow([b"\2" * MIB])
    berth.empty()
    assert taken(*hold.descriptors) == 0


def test_buffers_lie_on_pages_the_small_ones_first(hold):
    """So that those can be mapped together, and each of the others given back by itself."""
    berth = hold.berth(0)
    buffers = [b"a" * MIB, b"b" * 10, b"c" * (2 * MIB + 1), b"d" * (PAGE + 1)]
    extents = berth.stow(buffers)
    assert [offset % PAGE for offset, _ in extents] == [0] * 4
    order = sorted(extents)
    assert [extents.index(each) for each in order] == [1, 3, 0, 2]
    assert [bytes(hold.read(1, *each)) for each in extents] == buffers
    (after,) = berth.stow([b"e"])
    assert after[0] >= sum(order[-1])


def test_what_is_written_in_parts_is_whole(hold, monkeypatch):
    """The system may take less than it is given."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:1000], offset))
    (extent,) = hold.berth(0).stow([bytes(range(256)) * 20])
    assert bytes(hold.read(1, *extent)) == bytes(range(256)) * 20


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.ENOMEM, errno.EDQUOT, errno.EIO, 0])
def test_a_refusal_leaves_nothing(hold, monkeypatch, code):
    """What was written before it is given back, and the next may try again at the same place."""
    write, left = os.pwrite, [3]

    def pwrite(fd, data, offset):
        left[0] -= 1
        if left[0] >= 0:
            return write(fd, data[:PAGE], offset)
        if code:
            raise OSError(code, os.strerror(code))
        return 0

    berth = hold.berth(0)
    (before,) = berth.stow([b"\1" * PAGE])
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(NoRoom, match=os.strerror(code or errno.ENOSPC)):
        berth.stow([b"\2" * PAGE, b"\3" * MIB])
    assert taken(*hold.descriptors) == PAGE
    assert bytes(hold.read(1, *before)) == b"\1" * PAGE
    monkeypatch.undo()
    assert berth.stow([b"\2"]) == [(before[0] + PAGE, 1)]


@pytest.mark.parametrize("error", [forked.Injected(), TimeoutError("of a handler")])
def test_an_interruption_leaves_nothing_and_comes_out(hold, monkeypatch, error):
    """What a signal handler of the user's raises is no refusal of the system."""
    write, calls = os.pwrite, []

    def pwrite(fd, data, offset):
        if calls:
            raise error
        calls.append(1)
        return write(fd, data[:PAGE], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(type(error)) as caught:
        hold.own_berth().stow([b"\1" * MIB])
    assert caught.value is error and taken(*hold.descriptors) == 0


def test_a_limit_of_file_sizes_is_a_refusal():
    """The system would send SIGXFSZ, whose default ends the program."""

    def limited():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        hold = new()
        hold.berth(0).stow([b"\1" * PAGE])
        with pytest.raises(NoRoom, match="ulimit -f"):
            hold.berth(100).stow([b"\1" * PAGE])
        with pytest.raises(NoRoom, match="ulimit -f"):
            hold.berth(0).stow([b"\1" * (MIB + 1)])

    forked.in_fork(limited)


def test_more_than_a_berth_is_a_refusal(hold):
    """It would run into the next one."""

    class Endless:
        def __len__(self):
            return BERTH + 1

    with pytest.raises(NoRoom, match="512 GiB"):
        hold.berth(0).stow([Endless()])
    assert hold.berth(0).stow([b"1"]) == [(0, 1)]


def test_a_number_that_is_another_files_by_now_is_not_written_to(hold, tmp_path):
    """A task that makes itself a daemon closes everything, and opens files of its own."""
    os.close(hold.descriptors[1])
    with open(tmp_path / "file", "wb") as file:
        moved = file.fileno() != hold.descriptors[1]
        if moved:
            os.dup2(file.fileno(), hold.descriptors[1])
        with pytest.raises(NoRoom, match=os.strerror(errno.EBADF)):
            hold.berth(0).stow([b"\1" * PAGE])
        hold.punch(1, 0, PAGE)
        hold.drop()
        os.fstat(file.fileno())
        if moved:
            os.close([fd for fd in map(int, os.listdir("/proc/self/fd")) if _same(fd, file.fileno())][-1])
    assert (tmp_path / "file").read_bytes() == b""


def _same(fd, other):
    try:
        return fd != other and os.path.samestat(os.fstat(fd), os.fstat(other))
    except OSError:
        return False


def test_where_it_cannot_be_mapped_it_is_copied(hold, monkeypatch):
    """The bytes are the same, and writable, and the memory is given back at once."""
    berth, extent = full(hold, MIB)
    monkeypatch.setattr(_lease, "MOST", 0)
    array = leased(hold, berth.lane, extent)
    assert taken(*hold.descriptors) == 0
    array[0] = 5
    assert array.sum() == MIB + 4


def test_a_drop_gives_back_all_that_nobody_looks_at(hold):
    """Reports in use stay, and give their memory back later, without a descriptor; instructions are left alone."""
    berth = hold.berth(0)
    first, _, third = berth.stow([b"\1" * MIB, b"\2" * MIB, b"\3" * MIB])
    hold.berth(1).stow([b"\4" * MIB])
    hold.own_berth().stow([b"\5" * MIB])
    array, other = leased(hold, 1, first), leased(hold, 1, third)
    watched = list(map(os.dup, hold.descriptors))
    hold.drop()
    hold.drop()
    assert hold.descriptors == []
    assert list(map(taken, watched)) == [MIB, 2 * MIB, 0]
    del other
    assert (taken(watched[1]), array.sum()) == (MIB, MIB)
    del array
    assert taken(watched[1]) == 0
    for each in watched:
        os.close(each)


def test_a_drop_spares_what_a_child_can_see(hold):
    """A part that was not given back for the sake of a fork is not given back for the end of the Boss either."""
    berth, extent = full(hold, MIB)
    watched = os.dup(hold.descriptors[1])
    array = leased(hold, berth.lane, extent)
    pid = forked.fork(lambda: None)
    del array
    hold.drop()
    assert taken(watched) == MIB
    os.close(watched)
    assert forked.exit_code(pid) == 0


def test_a_drop_in_a_child_closes_only(hold):
    """What it has inherited is its parent's."""
    full(hold, MIB)
    assert forked.in_fork(lambda: (hold.drop(), hold.descriptors)[1]) == []
    assert taken(*hold.descriptors) == MIB


def test_a_closed_hold_has_no_berths(hold):
    """Nor does it read, or punch."""
    berth = hold.berth(0)
    hold.close()
    assert hold.berth(0) is None and hold.own_berth() is None
    with pytest.raises(NoRoom):
        berth.stow([b"\1"])
    berth.empty()
    with pytest.raises(OSError):
        hold.read(1, 0, 1)


def test_forgotten_it_is_closed():
    """A Boss that could not be started leaves no descriptor."""
    hold = new()
    descriptors = hold.descriptors
    assert len(descriptors) > 1
    del hold
    gc.collect()
    for each in descriptors:
        with pytest.raises(OSError):
            os.fstat(each)


def test_no_descriptor_is_inherited_by_programs():
    """They would keep the memory."""
    hold = new()
    assert not any(map(os.get_inheritable, hold.descriptors))
    hold.close()


@pytest.mark.parametrize("how", ["missing", "forbidden"])
def test_without_memfd_a_nameless_file_does(monkeypatch, how):
    """It is in memory too, and has no name any more."""

    def forbidden(*arguments):
        raise PermissionError(errno.EPERM, "forbidden")

    if how == "missing":
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(os, "memfd_create", forbidden)
    hold = new()
    assert os.readlink(f"/proc/self/fd/{hold.descriptors[0]}").startswith("/dev/shm/#")
    berth, extent = full(hold, MIB)
    assert leased(hold, berth.lane, extent).sum() == MIB
    assert taken(*hold.descriptors) == 0
    hold.close()


def test_without_either_there_is_none(monkeypatch):
    """Files on a disk are no memory."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "O_TMPFILE")
    before = os.listdir("/proc/self/fd")
    assert new() is None
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_last_descriptors_are_left_to_the_program():
    """With nearly none left there is no hold, and none is used up."""

    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept = []
        while not kept or kept[-1] < 40:
            kept.append(os.dup(0))
        free = kept[-1] + 1
        return new() is None and os.dup(0) == free

    assert forked.in_fork(limited)


def test_closed_standard_streams_are_not_taken():
    """The first print of a task would land among the buffers."""

    def closed():
        os.close(0)
        hold = new()
        return min(hold.descriptors)

    assert forked.in_fork(closed) > 2


def test_an_original_is_as_it_was_each_time(hold):
    """Whatever is done to what was taken from it, and to where it came from; and what was taken stays."""
    extents = hold.berth(0).stow([b"\1" * MIB, b"\2" * 100])
    original = _hold.Original(hold, 1, extents)
    first = original.views()
    first[0][:5] = first[1][:5] = b"spoil"
    hold.punch(1, 0, 2 * MIB)
    second = original.views()
    assert [bytes(each[:6]) for each in second] == [b"\1" * 6, b"\2" * 6]
    original.close()
    original.close()
    assert bytes(first[0][:6]) == b"spoil\1" and bytes(second[0]) == b"\1" * MIB


def test_an_original_without_a_file_of_its_own_is_read_each_time(hold, monkeypatch):
    """The system may have none, or no descriptor to spare."""
    monkeypatch.setattr(_hold, "_ways", list)
    extents = hold.berth(0).stow([b"\1" * MIB])
    original = _hold.Original(hold, 1, extents)
    (view,) = original.views()
    view[:5] = b"spoil"
    assert bytes(original.views()[0][:5]) == b"\1" * 5
    hold.punch(1, 0, 2 * MIB)
