"""What is pickled here and loaded there: which way it takes, and that it is the same, exotic things included."""

from __future__ import annotations

import gc
import os
import pickle

import numpy as np
import pytest
from holding import MIB, PAGE, hold_of_two, taken

from taylorism import _channel, _freight
from taylorism._hold import NoRoom
from taylorism._lease import Graves


@pytest.fixture
def hold():
    """Return a hold in which nothing is left after the test."""
    with hold_of_two() as made:
        yield made


def there_and_back(value, hold):
    """Return what main would get, as memoryviews on a frame are what it loads from."""
    segments, remark = _freight.pack(value, hold.berth(0))
    assert remark == ""
    frame = [memoryview(bytearray(each)) for each in segments]
    found = _freight.loaded(frame, hold)
    found.settle()
    return found.value


def opened(packed, hold):
    """Return what is in one piece, read once."""
    found = _freight.loaded([packed], hold)
    found.settle()
    return found.value


def is_bill(segments):
    """Whether these went through the hold."""
    return len(segments) == 1 and bytes(segments[0][:1]) == b"B"


class Sub(np.ndarray):
    """An array with something besides."""

    note = ""

    def __reduce__(self):
        made, arguments, state = super().__reduce__()
        return made, arguments, (*state, self.note)

    def __setstate__(self, state):
        super().__setstate__(state[:-1])
        self.note = state[-1]


class Buffers:
    """An object that hands its buffers over, as libraries do."""

    def __init__(self, *buffers):
        self.buffers = buffers

    def __reduce_ex__(self, protocol):
        return Buffers, tuple(map(pickle.PickleBuffer, self.buffers))


N = 1 << 17
STRUCTURE = np.dtype([("a", "<i4"), ("b", ">f8", (2,)), ("c", "S5")])


#: made when they are needed: as arrays, they would be in memory, and in each fork of it, while all other tests run
ARRAYS = {
    "big-endian": lambda: np.arange(N, dtype=">i4"),
    "of three dimensions": lambda: np.arange(N).reshape(2, -1, 4),
    "in the order of Fortran": lambda: np.asfortranarray(np.arange(N).reshape(512, -1)),
    "with steps": lambda: np.arange(4 * N)[::3],
    "transposed, with steps": lambda: np.arange(N).reshape(512, -1).T[::2],
    "of a structure": lambda: np.zeros(N, STRUCTURE),
    "of dates": lambda: np.arange(N).astype("datetime64[s]"),
    "of text": lambda: np.full(N, "héh", "U4"),
    "complex": lambda: np.arange(N, dtype=complex),
    "of truths": lambda: np.arange(N) % 2 == 0,
    "broadcast": lambda: np.broadcast_to(np.arange(4.0), (N, 4)),
    "a matrix": lambda: np.arange(N).view(np.matrix),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_arrive_as_they_were(name, hold):
    """Values, shape, order and type; writable, and their own."""
    array = ARRAYS[name]()
    found = there_and_back({"one": array, "again": array, "other": 3}, hold)
    got = found["one"]
    assert type(got) is type(array) and got.dtype == array.dtype and got is found["again"]
    np.testing.assert_array_equal(got, array)
    assert got.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc
    got[...] = got[...]


def test_masked_arrays_arrive_as_they_were(hold):
    """Mask, fill value, and the array below."""
    array = np.ma.masked_less(np.arange(float(N)), 5, copy=False)
    array.fill_value = -1
    got = there_and_back(array, hold)
    assert got.mask.sum() == 5 and got.fill_value == -1
    np.testing.assert_array_equal(got.filled(), array.filled())


@pytest.mark.parametrize(
    "value",
    [
        np.float64(3),
        np.array(5),
        np.zeros((0, 3)),
        np.array([None, "x", (1,)], dtype=object),
        None,
        "text",
        b"",
        [np.zeros(10)] * 3,
    ],
    ids=repr,
)
def test_small_things_take_the_pipe_as_ever(value, hold):
    """Nothing is written for them, and the segments are the ones of the channel."""
    segments, _ = _freight.pack(value, hold.berth(0))
    assert segments == _channel.pack_object(value)
    assert taken(*hold.descriptors) == 0
    np.testing.assert_equal(there_and_back(value, hold), value)


def test_small_and_big_ones_come_together(hold):
    """0-d, empty, objects and large ones in one report."""
    big, middle = np.arange(N), np.arange(float(12_000))
    report = [np.array(5), big, np.zeros((0, 2)), middle, np.array(["x", None], object), middle + 1]
    got = there_and_back(report, hold)
    for one, other in zip(got, report, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [each.flags.writeable for each in got] == [True] * 6


def test_ten_thousand_small_arrays_stay_in_the_pickle(hold):
    """They are copied into it; to keep track of each would take longer."""
    segments, _ = _freight.pack([np.arange(10)] + [np.zeros(100) + n for n in range(10_000)], hold.berth(0))
    assert is_bill(segments) and len(segments[0]) < 100  # as one big pickle
    got = opened(segments[0], hold)
    assert len(got) == 10_001 and got[-1][0] == 9999


def test_many_middling_arrays_are_mapped_together(hold):
    """Each would be two mappings, of which a process has few."""
    arrays = [np.full(10_000, float(n)) for n in range(300)]
    got = there_and_back(arrays, hold)
    assert len(hold._leases) == 1
    assert [each[-1] for each in got] == list(range(300))
    got[3][:] = -1
    assert got[4][0] == 4 and got[2][-1] == 2


BIG = {
    "a text": lambda: "x" * MIB,
    "bytes": lambda: b"\1" * MIB,
    "a bytearray": lambda: bytearray(MIB),
    "a list": lambda: [0.5] * 300_000,
    "a dictionary": lambda: {"é" * MIB: 1},
}


@pytest.mark.parametrize("name", BIG)
def test_big_pickles_without_buffers_take_the_same_way(name, hold):
    """A text, bytes or a list of a MiB."""
    value = BIG[name]()
    segments, _ = _freight.pack(value, hold.berth(0))
    assert is_bill(segments)
    assert opened(segments[0], hold) == value


def test_buffers_of_any_kind_arrive(hold):
    """Read-only ones as such; a bytearray, a view, an array of the array module."""
    import array

    value = Buffers(b"\1" * MIB, bytearray(b"\2" * MIB), memoryview(b"\3" * MIB), array.array("d", [4.0] * N))
    got = there_and_back(value, hold).buffers
    assert [memoryview(each)[-1] for each in got[:3]] == [1, 2, 3]
    assert np.frombuffer(got[3])[-1] == 4.0
    assert [memoryview(each).readonly for each in got] == [True, False, True, False]


def test_each_large_array_gives_its_memory_back_by_itself(hold):
    """To keep a small part of a report must not keep the large one."""
    got = there_and_back({"large": np.ones(4 * N), "other": np.ones(N)}, hold)
    assert taken(*hold.descriptors) == 40 * N
    del got["large"]
    assert taken(*hold.descriptors) == 8 * N
    assert got["other"].sum() == N


def test_what_is_not_settled_is_loaded_again(hold):
    """As often as it takes."""
    segments, _ = _freight.pack(["x" * MIB, np.ones(N)], hold.berth(0))
    for _ in range(3):
        found = _freight.loaded(segments, hold)
        assert found.value[0][-1] == "x" and found.value[1].sum() == N
    found.settle()


def test_a_copy_leaves_all_to_the_owner(hold):
    """A scheduler may keep what main gives back."""
    segments, _ = _freight.pack(np.ones(N), hold.berth(0))
    copy = _freight.load_copy(segments, hold)
    opened(segments[0], hold)
    assert taken(*hold.descriptors) == 0 and copy.sum() == N
    assert _freight.load_copy(_channel.pack_object([1]), hold) == [1]


def test_what_does_not_load_is_given_back_in_the_end(hold):
    """Instructions of a class that the listener does not know, for instance."""
    packed, _ = _freight.dump([np.ones(N), Unloadable()], hold.own_berth())
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        _freight.load(packed, hold, graves := Graves())
    gc.collect()
    graves.dig([])


class Unloadable:
    """Something that raises while it is loaded."""

    def __reduce__(self):
        return _raise, ()


def _raise():
    raise RuntimeError("cannot be loaded")


def test_what_cannot_be_pickled_raises_before_anything_is_written(hold):
    """The error is the one of pickle."""
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):  # the last, from Python 3.14 on
        _freight.pack([np.ones(N), lambda: 0], hold.berth(0))


def test_refused_it_takes_the_pipe(hold, monkeypatch):
    """With the reason for the log; instructions in one piece."""

    def refuse(self, buffers):
        raise NoRoom("there is none")

    monkeypatch.setattr(_freight.Berth, "stow", refuse)
    array = np.ones(N)
    segments, remark = _freight.pack(array, hold.berth(0))
    assert remark == "there is none" and len(segments) == 2
    assert _freight.loaded(segments, hold).value.sum() == N
    packed, remark = _freight.dump(array, hold.own_berth())
    assert remark == "there is none" and pickle.loads(packed).sum() == N


def test_without_a_hold_all_is_as_it_was():
    """No berth is no reason for a remark."""
    array = np.ones(N)
    segments, remark = _freight.pack(array, None)
    assert remark == "" and len(segments) == 2
    assert _freight.loaded(segments, None).value.sum() == N
    packed, _ = _freight.dump(array, None)
    assert _freight.load(packed, None, Graves()).sum() == N


def test_instructions_of_middle_size_are_in_one_piece(hold):
    """Their arrays are large enough to travel beside the pickle, and too small for the hold."""
    packed, _ = _freight.dump([np.arange(10_000.0)], hold.own_berth())
    assert pickle.loads(packed)[0][-1] == 9999


def test_the_bytes_of_a_page_do_not_leak_into_the_next(hold):
    """Lengths that are no multiple of a page come back to the byte."""
    values = [np.frombuffer(os.urandom(PAGE * 70 + n), np.uint8) for n in (-1, 0, 1)]
    for one, other in zip(there_and_back(values, hold), values, strict=True):
        np.testing.assert_array_equal(one, other)
