"""The shared array: what it keeps of the array that it is made of, and how it passes for an ndarray."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import io
import operator
import pickle
import resource
import warnings

import footprints
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sharing import FORK, dies_poking, forked, same

from taylorism import _pages
from taylorism._errors import TaylorismError
from taylorism._handles import by_handle
from taylorism.util import SharedNumpyArray, UnsharableError

# --------------------------------------------------------------------------------------------------
# What is shared


def test_a_childs_writes_are_seen_by_main():
    """What a forked child writes is in the array of the parent, and in that of other children."""
    array = SharedNumpyArray(np.zeros((2, 3)))

    def write():
        array[0, 1] = 5
        array[1] += 2

    forked(write)
    np.testing.assert_array_equal(array[...], [[0, 5, 0], [2, 2, 2]])
    assert forked(lambda: float(array.sum())) == 11


def test_the_copy_is_independent_of_the_original():
    """An ndarray is copied: neither sees what is written to the other afterwards."""
    original = np.arange(3.0)
    array = SharedNumpyArray(original)
    original[0], array[1] = 7, 8
    assert (array[0], original[1]) == (0, 1)


DTYPES = [*"?bBhHiIlLqQefdgFDG", "M8[D]", "M8[ns]", "m8[s]", "S5", "U7", "V6"]

DTYPES += [">f8", "<f8", ">i4", ">U3", ">c16", ">M8[s]"]

RECORD = np.dtype([("name", "S4"), ("level", ">i2"), ("value", "f8", (2,))])

GAPS = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def counted(dtype):
    """Return six different elements, as far as there are as many."""
    if dtype.kind != "V":
        return np.arange(6).astype(dtype)
    values = np.zeros(6, dtype)
    for name in dtype.names or ():
        values[name].T[...] = np.arange(6).astype(dtype[name].base)
    return values if dtype.names else np.arange(6 * dtype.itemsize, dtype="u1").view(dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, RECORD, GAPS], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_every_dtype_of_fixed_size(dtype, masked):
    """Values and the exact dtype are kept, and a child's write of any dtype arrives."""
    source = counted(np.dtype(dtype))
    if masked:
        source = np.ma.array(source, mask=[0, 1, 0, 0, 0, 0])
    array = SharedNumpyArray(source)
    assert array.dtype == source.dtype
    assert np.asarray(array).tobytes() == np.asarray(source).tobytes()
    assert np.asarray(array).dtype == source.dtype
    forked(lambda: operator.setitem(array, 5, source[3]))
    assert np.asarray(array)[5] == np.asarray(source)[3]


ANY_DTYPE = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.array_dtypes(allow_subarrays=True),
)

ANY_ARRAY = ANY_DTYPE.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


@given(ANY_ARRAY, st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_array_comes_out_as_it_went_in(source, data):
    """Shape, dtype, order of axes and bytes are kept for any shape, transposed and cut at will."""
    source = source.transpose(data.draw(st.permutations(range(source.ndim))))
    if source.ndim and data.draw(st.booleans()):
        source = source[:: data.draw(st.sampled_from([-1, 1, 2]))]
    array = SharedNumpyArray(source)
    assert (array.shape, array.dtype) == (source.shape, source.dtype)
    assert array.strides == np.empty_like(source).strides
    assert array.tobytes() == source.tobytes()
    assert not np.shares_memory(array[...], source)
    assert array.flags.writeable


# numpy's own default value, 1e20, for halves
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@given(ANY_ARRAY, st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_masked_array_comes_out_as_it_went_in(source, data):
    """Mask, hardness and fill value are kept, of structures too."""
    mask_dtype = np.ma.make_mask_descr(source.dtype)
    mask = data.draw(st.one_of(st.none(), hnp.arrays(mask_dtype, source.shape)))
    hard = data.draw(st.booleans())
    masked = np.ma.MaskedArray(source, mask=np.ma.nomask if mask is None else mask, hard_mask=hard)
    array = SharedNumpyArray(masked)
    assert array.data.tobytes() == source.tobytes()
    np.testing.assert_array_equal(array.mask, np.ma.getmaskarray(masked))
    assert array.hardmask == hard
    assert (array._fill_value is None) == (masked._fill_value is None)  # a default stays one
    assert repr(array.fill_value) == repr(masked.fill_value)


@pytest.mark.parametrize(
    "source",
    [
        np.array([None, "x"]),
        np.zeros(2, [("a", "f8"), ("b", object)]),
        np.ma.array([None, 1]),
    ],
    ids=["objects", "field", "masked"],
)
def test_objects_are_refused(source):
    """An array of Python objects is refused, with the advice to convert it."""
    with pytest.raises(UnsharableError, match=r"cannot be shared.*array\.astype\(float\)") as caught:
        SharedNumpyArray(source)
    # The last is what 1.1 raised; a worker's error must be it in main, too.
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert type(error) is UnsharableError
        assert all(isinstance(error, kind) for kind in (TaylorismError, TypeError, NotImplementedError))
        assert str(error) == str(caught.value)


@pytest.mark.skipif(not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="old")
def test_strings_of_variable_width_are_refused():
    """They lie elsewhere in private memory."""
    with pytest.raises(TypeError, match="cannot be shared"):
        SharedNumpyArray(np.array(["a", "b" * 100], dtype=np.dtypes.StringDType()))


@pytest.mark.parametrize("wrong", [[1, 2], 3.5, None, "x", (ctypes.c_double * 3)()], ids=lambda x: type(x).__name__)
def test_what_is_no_array_is_refused(wrong):
    """Anything but an array is a TypeError at once, which says what to do."""
    with pytest.raises(TypeError, match=r"numpy\.asarray\(\)"):
        SharedNumpyArray(wrong)


def test_subclasses_of_ndarray_become_ndarrays(tmp_path):
    """A memory-mapped file is read into shared memory, and is an ndarray there."""
    file = np.memmap(tmp_path / "data", dtype="f4", mode="w+", shape=(3,))
    file[:] = 2
    array = SharedNumpyArray(file)
    assert type(array[...]) is np.ndarray
    np.testing.assert_array_equal(array[...], [2, 2, 2])


def test_metadata_of_a_dtype_is_kept():
    """A dtype's metadata survive, through np.asarray too."""
    dtype = np.dtype("i4", metadata={"unit": "K"})
    array = SharedNumpyArray(np.zeros(2, dtype))
    assert array.dtype.metadata == np.asarray(array).dtype.metadata == {"unit": "K"}


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 5)], ids=str)
def test_scalars_and_nothing(shape):
    """0-d and empty arrays, masked or not, are arrays like others."""
    source = np.full(shape, 3.5)
    for array in (SharedNumpyArray(source), SharedNumpyArray(np.ma.array(source, mask=False))):
        assert (array.shape, array.size) == (source.shape, source.size)
        array[...] = 4
        same(np.asarray(array + 1), np.asarray(source * 0 + 5))


def test_a_scalar_is_written_by_a_child():
    """A 0-d array is shared as well."""
    array = SharedNumpyArray(np.array(1))
    forked(lambda: operator.setitem(array, (), 9))
    assert int(array) == 9 == array[()]


def test_views_outlive_the_handle():
    """An ndarray taken from a shared array keeps the memory, after the shared array is gone."""
    view = SharedNumpyArray(np.arange(5.0))[1:]
    gc.collect()
    np.testing.assert_array_equal(view, [1, 2, 3, 4])


# --------------------------------------------------------------------------------------------------
# Masked arrays


def test_a_childs_mask_is_seen_by_main():
    """What a child masks and unmasks is masked and unmasked in main, where nothing was masked too."""
    for mask in ([0, 1, 0], np.ma.nomask):
        array = SharedNumpyArray(np.ma.array([1.0, 2.0, 3.0], mask=mask))

        def write(array=array):
            array[0] = np.ma.masked
            array[1] = 7

        forked(write)
        assert array.mask.tolist() == [True, False, False]
        assert array[1] == 7


def test_a_hard_mask_stays_hard():
    """A hard mask does not let a child's value through; it can be softened."""
    array = SharedNumpyArray(np.ma.array([1, 2], mask=[1, 0], hard_mask=True, fill_value=-9))
    forked(lambda: operator.setitem(array, slice(None), 5))
    assert array.mask.tolist() == [True, False]
    assert array.filled().tolist() == [-9, 5]
    array.soften_mask()
    array[0] = 4
    assert array.mask.tolist() == [False, False]


def _ufunc_with_out(array):
    np.add(array, np.ma.array([1, 1, 1], mask=[1, 0, 0]), out=array)


def _power(array):
    array **= np.ma.array([2, 2, 2], mask=[1, 0, 0])


def _sum(array):
    array += np.ma.array([1, 1, 1], mask=[1, 0, 0])


def _quotient(array):
    array /= np.array([0, 1, 1])


def _shrunk(array):
    array.mask = False
    array.shrink_mask()
    array.unshare_mask()
    array[0] = np.ma.masked


def _seen_as_integers(array):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy 2.5
        array.dtype = "i8"
    array[0] = np.ma.masked


@pytest.mark.parametrize("operation", [_ufunc_with_out, _power, _sum, _quotient, _shrunk, _seen_as_integers])
def test_the_mask_stays_shared(operation):
    """No operation of a child makes a private mask: the element that it masks is masked in main."""
    array = SharedNumpyArray(np.ma.array([1.0, 2.0, 3.0], mask=[0, 0, 0]))
    forked(lambda: operation(array))
    assert array.mask.tolist() == [True, False, False]
    operation(array)
    forked(lambda: operator.setitem(array, 2, np.ma.masked))
    assert array.mask.tolist() == [True, False, True]


NESTED = np.dtype([("where", [("x", "f4"), ("y", "f4", (3,))]), ("at", "M8[s]")])


@pytest.mark.parametrize("dtype", ["f8", RECORD, GAPS, NESTED], ids=["plain", "record", "gaps", "nested"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_all_handles_have_one_mask(dtype, shape, hard):
    """The mask of structures, too, is the one in the memory: for other handles, and where they are rebuilt."""
    array = SharedNumpyArray(np.ma.MaskedArray(np.zeros(shape, dtype).T, hard_mask=hard))
    with by_handle():
        rebuilt = pickle.loads(pickle.dumps(array))
    again = SharedNumpyArray(array)
    assert np.shares_memory(array.mask, again.mask) or not array.size
    assert not np.shares_memory(array.mask, array.data)
    forked(lambda: operator.setitem(rebuilt, ..., np.ma.masked))
    for handle in (array, again, SharedNumpyArray(array, readonly=True), rebuilt):
        assert handle.mask.tobytes() == b"\1" * handle.mask.nbytes
        assert (handle.data == np.zeros(shape, dtype).T).all()


#: What numpy.ma does to a mask, and to which it may give one of its own, or none, in doing so.
MASKING = {
    "put": lambda x: x.put([0, 3], [7, 8]),
    "put masked": lambda x: x.put([1], np.ma.array([7], mask=[1])),
    "put by names": lambda x: x.put(indices=[-4, 7], values=7, mode="wrap"),
    "put of the class": lambda x: type(x).put(x, [0, 3], [7, 8]),
    "numpy.put": lambda x: np.put(x, [0, 3], [7, 8]),
    "numpy.put by names": lambda x: np.put(a=x, ind=[0, 3], v=7, mode="clip"),
    "numpy.ma.put": lambda x: np.ma.put(x, [0, 3], [7, 8]),
    "numpy.ma.putmask": lambda x: np.ma.putmask(x, [1, 1, 1, 1], 9.0),
    "numpy.putmask": lambda x: np.putmask(x, [1, 0, 0, 1], 9.0),
    "numpy.copyto": lambda x: np.copyto(x, np.ones(4)),
    "numpy.clip, by position": lambda x: np.clip(np.ma.array(x[...], mask=False), 1, 2, x),
    "numpy.cumsum, by position": lambda x: np.cumsum(x, 0, None, x),
    "numpy.round": lambda x: np.round(x, out=x),
    "elements": lambda x: operator.setitem(x, slice(None), np.ma.array(np.ones(4), mask=[0, 1, 0, 0])),
    "no element": lambda x: operator.setitem(x, slice(None), 1.0),
    "flat": lambda x: operator.setitem(x.flat, 1, np.ma.masked),
    "fill": lambda x: x.fill(3),
    "mask": lambda x: setattr(x, "mask", [0, 0, 1, 0]),
    "nomask": lambda x: setattr(x, "mask", np.ma.nomask),
    "all of the mask": lambda x: setattr(x, "mask", True),
    "__setmask__": lambda x: x.__setmask__([0, 1, 0, 0]),
    "harden_mask": lambda x: x.harden_mask(),
    "soften_mask": lambda x: x.soften_mask(),
    "unshare_mask": lambda x: x.unshare_mask(),
    "shrink_mask": lambda x: x.shrink_mask(),
    "sort": lambda x: x.sort(),
    "resize": lambda x: x.resize(4, refcheck=False),
    "dtype": lambda x: x.__setattr__("dtype", x.dtype),
    "+=": lambda x: operator.iadd(x, np.ma.array(np.ones(4), mask=[0, 1, 0, 0])),
    "*= nothing masked": lambda x: operator.imul(x, np.ma.array(np.ones(4))),
    "/=": lambda x: operator.itruediv(x, 0),
    "//=": lambda x: operator.ifloordiv(x, np.array([1, 0, 1, 1])),
    "**=": lambda x: operator.ipow(x, 0.5),
}


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # of the dtype: numpy 2.5
@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize("mask", [[1, 0, 0, 1], [0, 0, 0, 0]], ids=["some", "none"])
def test_what_is_done_to_a_mask_is_done_to_that_of_all(name, mask):
    """Another handle has the mask that a masked array would have, and sees what is masked later, either way."""
    expected = np.ma.array([0.0, 1.0, 2.0, 3.0], mask=mask)
    array = SharedNumpyArray(expected)
    other = SharedNumpyArray(array)
    for target in (expected, array):
        with contextlib.suppress(ValueError):  # of resize: neither of them can be
            MASKING[name](target)
    for seen in (array, other):
        np.testing.assert_array_equal(seen.mask, np.ma.getmaskarray(expected))
        np.testing.assert_array_equal(seen.filled(-1), expected.filled(-1))
    array[2] = other[1] = np.ma.masked
    assert other.mask.tolist() == array.mask.tolist()
    assert array.mask[1:3].all()


def test_structures_can_be_put():
    """They are unmasked, and they alone; numpy's own method ends with all masked, in a mask of another dtype."""
    array = SharedNumpyArray(np.ma.array(np.zeros(3, GAPS), mask=[(1, 0), (1, 1), (0, 1)]))
    other = SharedNumpyArray(array)
    array.put([1], np.ones(1, GAPS))
    np.put(array, [2], np.ones(1, GAPS))
    for seen in (array, other):
        assert seen.mask.tolist() == [(True, False), (False, False), (False, False)]
        assert seen.data.tolist() == [(0, 0), (1, 1), (1, 1)]


@pytest.mark.parametrize("put", [SharedNumpyArray.put, np.put], ids=["method", "function"])
def test_to_put_does_not_unmask_what_another_masks(put, monkeypatch):
    """Another process may mask an element of its own while one is put, without the lock."""
    array = SharedNumpyArray(np.ma.array([1.0, 2.0], mask=[1, 0]))
    other = SharedNumpyArray(array)

    def masking(*arguments, **options):
        made = make_mask(*arguments, **options)
        other[1] = np.ma.masked
        return made

    make_mask = np.ma.core.make_mask
    monkeypatch.setattr(np.ma.core, "make_mask", masking)
    put(array, [0], [7.0])
    assert array.mask.tolist() == other.mask.tolist() == [False, True]


def test_functions_of_masked_arrays():
    """Functions of numpy and numpy.ma see the mask, from wherever they get it."""
    source = np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])
    array = SharedNumpyArray(source)
    other = np.ma.array([1, 1, 1], mask=[1, 0, 0])
    functions = np.ma.sum, np.ma.count, np.ma.filled, np.ma.asarray, np.ma.getmaskarray
    for function in (*functions, np.sin, np.mean, np.asanyarray):
        same(function(array), function(source))
    same(other + array, other + source)
    same(np.ma.concatenate([array, array]), np.ma.concatenate([source, source]))
    same(np.asarray(array), np.asarray(source))
    assert isinstance(array, np.ma.MaskedArray)


# --------------------------------------------------------------------------------------------------
# Read-only arrays


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_readonly_is_enforced(masked):
    """Writes are refused by numpy, cannot be allowed again, and are faults through a pointer."""
    source = np.ma.array([1.0, 2.0], mask=[0, 1]) if masked else np.array([1.0, 2.0])
    array = SharedNumpyArray(source, readonly=True)
    same(array[...], source)
    for write in (
        lambda: operator.setitem(array, 0, 9),
        lambda: operator.iadd(array, 1),
        lambda: np.sin(array, out=array),
        lambda: setattr(array.flags, "writeable", True),
        lambda: array[...].setflags(write=True),
    ):
        with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
            write()
    if masked:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = np.ma.masked
        assert dies_poking(array.mask)
    assert dies_poking(array.data if masked else array)
    assert not dies_poking(SharedNumpyArray(source))


def test_the_lock_of_a_readonly_array_works():
    """Who can only read may wait for who writes."""
    array = SharedNumpyArray(np.zeros(1), readonly=True)
    with array.get_lock():
        assert not forked(lambda: array.acquire(False))
    assert forked(lambda: array.acquire(False))


def test_a_readonly_handle_on_a_writable_array():
    """Main writes, and workers that have the read-only handle see it and cannot; one lock."""
    array = SharedNumpyArray(np.ma.array([1.0, 2.0], mask=[0, 1]))
    readonly = SharedNumpyArray(array, readonly=True)
    array[:] = 5
    assert forked(readonly.tolist) == [5, 5]
    with pytest.raises(ValueError, match="read-only"):
        readonly[0] = 1
    assert dies_poking(readonly.data)
    assert dies_poking(readonly.mask)
    assert not SharedNumpyArray(readonly).flags.writeable
    assert readonly.get_lock() is array.get_lock()
    assert hash(readonly) == hash(array)


def test_a_readonly_ndarray_is_copied_to_a_writable_one():
    """The flag of the original is not the wish of the caller."""
    source = np.arange(3.0)
    source.flags.writeable = False
    array = SharedNumpyArray(source)
    array[0] = 1
    assert not SharedNumpyArray(source, readonly=True).flags.writeable


def test_readonly_is_a_keyword():
    """The one positional argument of 1.1 stays the only one, under its name."""
    with pytest.raises(TypeError):
        SharedNumpyArray(np.zeros(1), True)
    assert SharedNumpyArray(array=np.zeros(1)).shape == (1,)


# --------------------------------------------------------------------------------------------------
# Arrays of multiprocessing. Their heap keeps a descriptor for ever: so they are made in children.


class Point(ctypes.Structure):
    """A structure for multiprocessing to share."""

    _fields_ = [("level", ctypes.c_int), ("value", ctypes.c_double)]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("d", "f8"),
        ("f", "f4"),
        ("i", "i4"),
        ("b", "i1"),
        ("H", "u2"),
        ("q", "i8"),
        ("c", "S1"),
        ("u", "U1"),
        (ctypes.c_bool, "?"),
        (ctypes.c_double * 2, "f8"),
        (Point, np.dtype(Point)),
    ],
    ids=str,
)
def test_an_array_of_multiprocessing_is_seen_in_its_own_dtype(kind, dtype):
    """The memory is the same, in the array's dtype and shape, under the array's own lock."""

    def look():
        source = FORK.Array(kind, 3)
        array = SharedNumpyArray(source)
        array[...] = np.ones(array.shape, array.dtype)
        size = source[0] if isinstance(source[0], (bytes, str, int, float, bool)) else None
        expected = np.ones(1, dtype)[0] if size is not None else None
        return (
            array.dtype,
            array.shape,
            size == expected,
            bytes(memoryview(source.get_obj()).cast("B")) == array.tobytes(),
            array.get_lock() is source.get_lock(),
            hash(array) == hash(SharedNumpyArray(source)),
        )

    shape = (3, 2) if kind == ctypes.c_double * 2 else (3,)
    assert forked(look) == (np.dtype(dtype), shape, True, True, True, True)


def test_empty_and_readonly_arrays_of_multiprocessing():
    """They may have no element; read-only ones see what is written, are refused by numpy, and faults beneath it."""

    def look():
        empty = [SharedNumpyArray(FORK.Array("d", 0), readonly=readonly).shape for readonly in (False, True)]
        FORK.Array("b", 3)  # so that the next does not begin a page
        source = FORK.Array("d", 2)
        readonly = SharedNumpyArray(source, readonly=True)
        source[1] = 5
        for write in (
            lambda: operator.setitem(readonly, 0, 1),
            lambda: setattr(readonly.flags, "writeable", True),
        ):
            with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
                write()
        seen = readonly.tolist()
        dies = dies_poking(readonly), dies_poking(SharedNumpyArray(source))
        return empty, seen, readonly.get_lock() is source.get_lock(), dies

    assert forked(look) == ([(0,), (0,)], [0, 5], True, (True, False))


def test_where_pages_cannot_be_mapped_twice(monkeypatch):
    """There the arrays of multiprocessing are flagged as read-only."""

    def look():
        monkeypatch.setattr(_pages, "_mapped_again", refuse)
        readonly = SharedNumpyArray(FORK.Array("d", 2), readonly=True)
        with pytest.raises(ValueError, match="read-only"):
            readonly[0] = 1
        return readonly.tolist()

    def refuse(address, size):
        raise AttributeError("mremap")

    assert forked(look) == [0, 0]


# --------------------------------------------------------------------------------------------------
# Copies and pickles


def test_a_copy_is_a_private_array():
    """As in 1.1 a copy, deep or not, is an ndarray of its own, which later writes do not change."""
    for source in (np.arange(3.0), np.ma.array([1.0, 2.0], mask=[0, 1])):
        array = SharedNumpyArray(source)
        for duplicate in (copy.copy(array), copy.deepcopy(array), copy.deepcopy({"x": array})["x"]):
            array[0] = 77
            same(duplicate, source)
            array[0] = source[0]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_has_the_values(protocol):
    """As in 1.1 a worker may return a shared array as its report: main gets an ndarray."""
    for source in (np.arange(3.0), np.ma.array([1.0, 2.0], mask=[0, 1]), np.array("2020", "M8[D]")):
        for readonly in (False, True):
            array = SharedNumpyArray(source, readonly=readonly)
            same(pickle.loads(pickle.dumps(array, protocol)), source)


# --------------------------------------------------------------------------------------------------
# As an ndarray

BINARY = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "lt",
    "le",
    "gt",
    "ge",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
    "matmul",
]

IN_PLACE = [
    "iadd",
    "isub",
    "imul",
    "ifloordiv",
    "imod",
    "ipow",
    "iand",
    "ior",
    "ixor",
    "ilshift",
    "irshift",
    "imatmul",
]

INTEGERS = np.array([[5, 3, 2], [2, 7, 1], [1, 2, 9]])

SMALL = np.array([[1, 2, 1], [2, 1, 2], [1, 1, 1]])

MASKED = np.ma.array(INTEGERS, mask=[[0, 1, 0], [0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("name", [*BINARY, "divmod"])
@pytest.mark.parametrize("source", [INTEGERS, MASKED], ids=["plain", "masked"])
def test_binary_operators(name, source):
    """Each is the ndarray's, from both sides, with arrays, numbers, lists and shared arrays."""
    operation = divmod if name == "divmod" else getattr(operator, name)
    array = SharedNumpyArray(source)
    others = [SMALL, SharedNumpyArray(SMALL), SMALL.tolist()]
    if name != "matmul":
        others.append(2)
    if name == "divmod" and source is MASKED:  # numpy's own has no mask to speak of
        others.pop(2)
    for other in others:
        plain = other[...] if isinstance(other, SharedNumpyArray) else other
        same(operation(array, other), operation(source, plain))
        same(operation(other, array), operation(plain, source))


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("start", [INTEGERS, MASKED], ids=["plain", "masked"])
def test_in_place_operators(name, start):
    """Each returns the very shared array, and a child's use of it is seen by main."""
    operation = getattr(operator, name)
    for other in (SMALL, SharedNumpyArray(SMALL)):
        expected, array = start.copy(), SharedNumpyArray(start)
        expected = operation(expected, SMALL)
        assert forked(lambda array=array, other=other: operation(array, other) is array)
        same(array[...], expected)


def test_true_division_in_place():
    """It is refused for integers, as an ndarray refuses it, and done for floats."""
    array = SharedNumpyArray(INTEGERS)
    with pytest.raises(TypeError):
        array /= 2
    floats = before = SharedNumpyArray(INTEGERS / 1)
    floats /= 2
    assert floats is before
    same(floats[...], INTEGERS / 2)


def test_an_operand_that_takes_over():
    """In place, an operand that wants the operation gets it, as with an ndarray."""

    class Takes:
        __array_priority__ = 1000

        def __radd__(self, other):
            return type(other).__name__

    array = SharedNumpyArray(INTEGERS)
    array += Takes()
    assert array == "ndarray"


@pytest.mark.parametrize("name", ["neg", "pos", "abs", "invert"])
def test_unary_operators(name):
    """Each is the ndarray's."""
    for source in (-INTEGERS, MASKED):
        same(getattr(operator, name)(SharedNumpyArray(source)), getattr(operator, name)(source))


def test_conversions():
    """An array of one element is a number and a truth, others are an error, as with an ndarray."""
    array = SharedNumpyArray(np.array(3))
    assert [10, 20, 30, 40][array] == 40
    assert (int(array), float(array), complex(array), bool(array)) == (3, 3.0, 3 + 0j, True)
    assert not SharedNumpyArray(np.array([0]))
    for function in (bool, int, float):
        with pytest.raises((ValueError, TypeError)):
            function(SharedNumpyArray(np.arange(3)))
    with pytest.raises(TypeError):
        operator.index(SharedNumpyArray(np.array(1.5)))


def test_containers():
    """Length, iteration, membership and reversal are the ndarray's; a scalar has none."""
    array = SharedNumpyArray(INTEGERS)
    assert len(array) == 3
    assert [row.tolist() for row in array] == INTEGERS.tolist()
    assert [row.tolist() for row in reversed(array)] == INTEGERS.tolist()[::-1]
    assert 7 in array
    assert SharedNumpyArray(np.array(7)) in array
    assert 8 not in array
    for function in (len, iter, list):
        with pytest.raises(TypeError):
            function(SharedNumpyArray(np.array(1)))


def test_indexing():
    """Any index of an ndarray reads and writes; the whole is a view on the memory."""
    array, plain = SharedNumpyArray(INTEGERS), INTEGERS.copy()
    keys = [0, (1, 2), slice(1), (..., 1), plain > 3, [0, 2], (None, 1), (np.array([0, 1]), 1), ()]
    for number, key in enumerate(keys):
        same(array[key], plain[key])
        array[key] = plain[key] = number
        same(array[...], plain)
    array[SharedNumpyArray(np.array([2]))] = SharedNumpyArray(np.array([4, 5, 6]))
    assert array[2].tolist() == [4, 5, 6] == array[SharedNumpyArray(np.array([2]))][0].tolist()
    view = array[...]
    assert type(view) is np.ndarray
    view[0, 0] = -1
    assert array[0, 0] == -1


def test_attributes():
    """Every public attribute of the ndarray is there, as it is there, and can be set as there."""
    array = SharedNumpyArray(INTEGERS)
    for name in dir(np.ndarray):
        if hasattr(INTEGERS, name) and not name.startswith("_") and name != "base":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert type(getattr(array, name)) is type(getattr(INTEGERS, name)), name
    assert (array.shape, array.ndim, array.sum(), array.T[0, 1]) == ((3, 3), 2, 32, 2)
    assert {"shape", "get_lock", "sum"} <= set(dir(array))
    assert "mask" not in dir(array)
    assert SharedNumpyArray.sum(array, axis=0).tolist() == [8, 12, 12]
    masked = SharedNumpyArray(MASKED)
    assert masked.filled(0).sum() == 28
    assert {"mask", "filled"} <= set(dir(masked))
    array.flat = 3
    array.real = 4
    assert forked(lambda: int(array.sum())) == 36
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy 2.5
        array.shape = (9,)
    assert array.shape == (9,)


def test_attributes_that_are_not_there():
    """An unknown attribute is an AttributeError, to read and to set, before __init__ as well."""
    array = SharedNumpyArray(INTEGERS)
    assert not hasattr(array, "mask")
    assert not hasattr(array, "nothing")
    with pytest.raises(AttributeError):
        array.something = 1
    with pytest.raises(AttributeError):
        SharedNumpyArray.__new__(SharedNumpyArray).shape


def test_it_claims_to_be_an_ndarray():
    """As in 1.1 isinstance says that it is an ndarray, and a shared array."""
    array = SharedNumpyArray(INTEGERS)
    assert isinstance(array, np.ndarray)
    assert isinstance(array, SharedNumpyArray)
    assert not isinstance(array, np.ma.MaskedArray)
    assert type(array) is SharedNumpyArray
    assert SharedNumpyArray.__module__ == "taylorism.util"


def test_a_shared_array_of_a_shared_array():
    """It is another handle on the same memory, in the shape that it has then."""
    array = SharedNumpyArray(MASKED)
    again = SharedNumpyArray(array)
    again[0, 0] = np.ma.masked
    again[1, 1] = 100
    assert array.mask[0, 0]
    assert array[1, 1] == 100
    assert again.get_lock() is array.get_lock()


def test_text():
    """It prints like the array, and shows what it is."""
    array = SharedNumpyArray(np.array([1, 2]))
    assert str(array) == f"{array}" == "[1 2]"
    assert repr(array) == "SharedNumpyArray(array([1, 2]))"
    assert f"{SharedNumpyArray(np.array(2.5)):.2f}" == "2.50"


def test_equality():
    """Shared arrays compare their elements; with anything else they are unequal, and say so."""
    array, other = SharedNumpyArray(INTEGERS), SharedNumpyArray(INTEGERS.T)
    same(array == other, INTEGERS == INTEGERS.T)
    same(array != other, INTEGERS != INTEGERS.T)
    for anything in (None, 3, "x", INTEGERS, MASKED, [5], object()):
        assert (array == anything) is False
        assert (array != anything) is True
    assert None not in [array, other]
    assert array in [3, array]
    left_to_the_ndarray = operator.eq(INTEGERS, array)
    same(left_to_the_ndarray, np.full((3, 3), True))


def test_hash():
    """The hash is the memory's: equal for its handles, stable, another for other memory."""
    array = SharedNumpyArray(INTEGERS)
    before = hash(array)
    array += 1
    assert hash(array) == before == hash(SharedNumpyArray(array)) == forked(lambda: hash(array))
    assert hash(SharedNumpyArray(INTEGERS)) != before
    assert {array: "found"}[array] == "found"


# --------------------------------------------------------------------------------------------------
# numpy's functions

FUNCTIONS = {
    "sin": np.sin,
    "add": lambda x: np.add(x, x),
    "where": lambda x: np.add(x, 1, where=x > 2, out=np.zeros((3, 3), int)),
    "reduce": np.add.reduce,
    "accumulate": lambda x: np.multiply.accumulate(x, axis=1),
    "outer": lambda x: np.subtract.outer(x, x),
    "frexp": np.frexp,
    "mean": np.mean,
    "sum": lambda x: np.sum(x, axis=0, keepdims=True),
    "concatenate": lambda x: np.concatenate([x, x]),
    "stack": lambda x: np.stack((x, INTEGERS)),
    "block": lambda x: np.block([[x, x], [x, x]]),
    "einsum": lambda x: np.einsum("ij,jk", x, x),
    "linalg": np.linalg.inv,
    "svd": np.linalg.svd,
    "sort": np.sort,
    "unique": np.unique,
    "clip": lambda x: np.clip(x, 2, 5),
    "atleast": np.atleast_3d,
    "histogram": lambda x: np.histogram(x, bins=3),
    "fft": np.fft.fft,
    "interp": lambda x: np.interp(x, [0, 10], [0, 100]),
    "array": np.array,
    "asanyarray": np.asanyarray,
    "float32": lambda x: np.asarray(x, dtype="f4"),
    "save": lambda x: np.load(io.BytesIO(saved(x))),
}


def saved(array) -> bytes:
    """Return the .npy file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_numpy(name):
    """Each gives what it gives for the ndarray, as an ordinary ndarray."""
    array = SharedNumpyArray(INTEGERS)
    left, right = FUNCTIONS[name](array), FUNCTIONS[name](INTEGERS)
    if name == "svd":
        left, right = tuple(left), tuple(right)
    same(left, right)
    same(array[...], INTEGERS)


def test_results_in_shared_arrays():
    """With ``out=`` a function writes the shared memory, and returns the shared array itself."""
    array, other = SharedNumpyArray(INTEGERS / 2), SharedNumpyArray(INTEGERS / 2)
    total = SharedNumpyArray(np.array(0.0))
    assert forked(lambda: np.sin(array, out=array) is array)
    same(array[...], np.sin(INTEGERS / 2))
    assert np.add(array, 1, array) is array
    assert np.mean(array, out=total) is total
    assert float(total) == array.mean()
    first, second = np.modf(array, out=(other, None))
    assert first is other
    assert type(second) is np.ndarray
    assert np.concatenate([array[:1], array[1:]], out=other) is other
    same(other[...], array[...])
    assert type(np.sin(array, out=np.empty((3, 3)))) is np.ndarray


@pytest.mark.parametrize("source", [INTEGERS / 4, MASKED / 4], ids=["plain", "masked"])
def test_the_results_of_methods_in_shared_arrays(source):
    """The function takes ``out=`` where the method does not, as the documentation tells, and the mask is shared."""
    functions = {"cumsum": {"axis": 0}, "round": {}, "dot": {"b": SMALL / 1}, "clip": {"a_min": 1, "a_max": 2}}
    for name, options in functions.items():
        array, out = SharedNumpyArray(source), SharedNumpyArray(np.zeros_like(source))
        expected = getattr(np, name)(source, **options, out=np.zeros_like(source))
        other = SharedNumpyArray(out)
        assert getattr(np, name)(array, **options, out=out) is out
        same(other[...], expected)
    with pytest.raises(TypeError, match="output must be an array"):
        array.cumsum(axis=0, out=out)
    same(array.cumsum(axis=0, out=out[...]), source.cumsum(axis=0))


def test_functions_that_write():
    """Functions that change their argument change the shared memory."""
    array = SharedNumpyArray(np.zeros((3, 3)))

    def write():
        np.fill_diagonal(array, 1)
        np.copyto(array, 5, where=np.eye(3, k=1, dtype=bool))
        np.add.at(array, ([2, 2], [0, 0]), 1)
        np.put(array, [5], 8)

    forked(write)
    assert array.tolist() == [[1, 5, 0], [0, 1, 8], [2, 0, 1]]


def test_conversion_makes_no_copy():
    """np.asarray and the like give the very memory; what needs a copy says so if it may not."""
    for source in (INTEGERS, INTEGERS.astype(">f8"), np.array(["2020"], "M8[D]"), np.ones(2, GAPS)):
        array = SharedNumpyArray(source)
        for plain in (np.asarray(array), np.asanyarray(array), np.ascontiguousarray(array)):
            assert plain.dtype == source.dtype
            assert np.shares_memory(plain, array[...])
        assert not np.shares_memory(np.array(array), array[...])
    assert np.array(array, copy=True).dtype == GAPS
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        array = SharedNumpyArray(INTEGERS)
        assert np.shares_memory(np.array(array, copy=False), array[...])
        with pytest.raises(ValueError, match="copy"):
            np.asarray(array, dtype="f4", copy=False)


def test_addresses():
    """Programs that want the address of the memory get it, of a simple array."""
    array = SharedNumpyArray(INTEGERS)
    address = array[...].__array_interface__["data"][0]
    assert array.__array_interface__["data"][0] == address == array.ctypes.data
    assert address % 64 == 0


def test_whole_array_work_copies_nothing():
    """A sum, a product in place and a conversion of 64 MiB take no memory of that order."""

    def look():
        array = SharedNumpyArray(np.ones(2**23))
        free = 2**24
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + free, used + free))
        array += 1
        np.multiply(array, 2, out=array)
        return float(array.sum()), float(np.mean(array)), float(np.asarray(array).max())

    assert forked(look) == (2**25, 4, 4)


# --------------------------------------------------------------------------------------------------
# In a footprint


class SharedUser(footprints.FootprintBase):
    """Something that has a shared array, as workers have."""

    _collector = ("shareduser",)
    _footprint = {
        "info": "Uses a shared array.",
        "attr": {
            "kind": {"values": ["shareduser"]},
            "array": {"type": SharedNumpyArray, "access": "rwx"},
            "more": {"type": SharedNumpyArray, "access": "rwx", "optional": True, "default": None},
        },
    }


@pytest.mark.parametrize(
    "source",
    [np.arange(6.0).reshape(2, 3), np.zeros(4), np.zeros(0), np.array(0), MASKED],
    ids=["matrix", "zeros", "empty", "scalar", "masked"],
)
def test_as_the_type_of_a_footprint_attribute(source):
    """footprints finds the class, keeps the very array, and can describe, copy and export it."""
    array = SharedNumpyArray(source)
    found = footprints.proxy.shareduser(kind="shareduser", array=array, more=array)
    assert isinstance(found, SharedUser)
    assert found.array is array is found.more
    found.array[...] = 3
    assert forked(lambda: bool((found.array[...] == 3).all()))
    same(found.footprint_as_dict()["array"], array[...])
    with by_handle():
        assert found.footprint_as_dict()["array"] is array
    assert found.footprint_export()["kind"] == "shareduser"
    found.array = SharedNumpyArray(np.ones(2))
    assert found.array.tolist() == [1, 1]
