"""Door, any process: arrays in memory that all processes share, laid over it by numpy.

A `SharedNumpyArray` is a handle on memory of `_segments`, which looks like the ndarray laid over it.
How it lies there is a `_Layout`, which travels with the handle.
"""

from __future__ import annotations

import copy
import ctypes
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taylorism import _handles
from taylorism._errors import TaylorismError
from taylorism._handles import in_handles
from taylorism._segments import Memory, borrow, ctypes_array, is_multiprocessing

__all__ = ["SharedNumpyArray", "UnsharableError"]

_ALIGNMENT = 64  # bytes, of the mask that follows the data: a cache line, and any dtype's alignment


class UnsharableError(TaylorismError, TypeError, NotImplementedError):
    """
    These elements cannot be shared between processes.

    Raised for arrays of Python objects and of variable-width strings: the memory holds addresses,
    which mean nothing in another process. Convert the array to a dtype of fixed size first. It is a
    `NotImplementedError` too, because that is what taylorism 1.1 raised.
    """

    __module__ = "taylorism.util"


# --- Layouts ---------------------------------------------------------------------------------------


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise UnsharableError(
            f"an array of dtype {dtype} cannot be shared: its elements are addresses of objects in"
            " this process. Convert it to a dtype of fixed size first, as in array.astype(float) or"
            " array.astype('U20')"
        )


def _ctypes_dtype(kind: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype and the shape of a ctypes array type."""
    lengths = []
    while issubclass(kind, ctypes.Array):
        lengths.append(kind._length_)
        kind = kind._type_
    # The only one that numpy does not know.
    name = f"U{ctypes.sizeof(kind) // 4}" if kind is ctypes.c_wchar else kind
    return np.dtype(name), tuple(lengths)


def _strides(array: NDArray[Any], itemsize: int) -> tuple[int, ...]:
    """Return the strides (bytes) of a packed array whose axes are ordered as this one's."""
    packed = np.empty_like(array, dtype=np.int8, subok=False)
    return tuple(itemsize * stride for stride in packed.strides)


@dataclass(frozen=True)
class _MaskLayout:
    """Where the mask of a masked array is in its memory (bytes), and what goes with it."""

    offset: int
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    fill_value: Any
    hard: bool


@dataclass(frozen=True)
class _Layout:
    """How an array lies over its memory, of which the data are the beginning."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    mask: _MaskLayout | None = None

    @classmethod
    def packing(cls, array: NDArray[Any]) -> _Layout:
        """Return the layout for a copy of an array: no gaps, its order of axes, its mask behind."""
        mask = None
        if isinstance(array, np.ma.MaskedArray):
            dtype = np.ma.make_mask_descr(array.dtype)
            offset = -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            # The attribute: to read the property `fill_value` makes a default an explicit value.
            fill_value = getattr(array, "_fill_value", None)
            mask = _MaskLayout(offset, dtype, _strides(array, dtype.itemsize), fill_value, array.hardmask)
        return cls(array.shape, array.dtype, _strides(array, array.dtype.itemsize), mask)

    @property
    def nbytes(self) -> int:
        """Size of a packed array, in bytes."""
        size = math.prod(self.shape)
        if self.mask is None:
            return size * self.dtype.itemsize
        return self.mask.offset + size * self.mask.dtype.itemsize

    def lay(self, raw: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the array over these bytes."""
        data: NDArray[Any] = np.ndarray(self.shape, self.dtype, raw, 0, self.strides)
        if self.mask is None:
            return data
        mask: NDArray[Any] = np.ndarray(self.shape, self.mask.dtype, raw, self.mask.offset, self.mask.strides)
        array: Any = np.ma.MaskedArray(data, copy=False, fill_value=self.mask.fill_value, hard_mask=self.mask.hard)
        # Given as an argument, the mask of structures would be copied into one that numpy makes.
        array._mask = mask
        laid: NDArray[Any] = array
        return laid


# --- The array -------------------------------------------------------------------------------------


def _spawning() -> bool:
    return context.get_spawning_popen() is not None


def _mask_of(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return the very object that is a masked array's mask; None of an ndarray."""
    return getattr(array, "_mask", None)


def _plain(value: Any) -> Any:
    """Return the ndarray of a shared array, anything else as it is."""
    return value._array if isinstance(value, SharedNumpyArray) else value


def _plain_deep(value: Any) -> Any:
    """Return a value in which the shared arrays, in lists, tuples and dicts too, are ndarrays."""
    if isinstance(value, (list, tuple)):
        items = [_plain_deep(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: _plain_deep(item) for key, item in value.items()}
    return _plain(value)


def _given_back(result: Any, out: Any) -> Any:
    """Return a result in which what was written to a shared array in ``out=`` is that array."""
    if isinstance(result, tuple):
        return tuple(_given_back(item, out) for item in result)
    for target in out if isinstance(out, tuple) else (out,):
        if isinstance(target, SharedNumpyArray):
            target._keep_mask()
            if target._array is result:
                return target
    return result


def _unary(operation: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation on an array."""

    def method(self: SharedNumpyArray) -> Any:
        return operation(self._array)

    return method


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation on an array and something else."""

    def method(self: SharedNumpyArray, other: Any) -> Any:
        return operation(self._array, _plain(other))

    return method


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation on something else and an array."""

    def method(self: SharedNumpyArray, other: Any) -> Any:
        return operation(_plain(other), self._array)

    return method


def _in_place(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation that writes an array."""

    def method(self: SharedNumpyArray, other: Any) -> Any:
        result = operation(self._array, _plain(other))
        self._keep_mask()
        # It is another only if the other operand took over, as it may with an ndarray.
        return self if result is self._array else result

    return method


class SharedNumpyArray:
    """
    An array that the main process and all workers read and write.

    It is made in the main process, and passed in ``sharedmemory_common_instructions`` or with the
    other instructions; nothing is copied on the way. It is used as the `numpy.ndarray` (or the masked array)
    that it is laid over: indexing, attributes, operators, functions of numpy; whatever has a new
    array as its result gives an ordinary one.

    Parameters
    ----------
    array : numpy.ndarray, numpy.ma.MaskedArray, multiprocessing.Array or SharedNumpyArray
        An ndarray is copied into shared memory, once, with its order of axes; subclasses of ndarray
        become ndarrays. Of a masked array the mask is shared as well; fill value and hardness are
        kept. An `Array` or `RawArray` of multiprocessing is not copied: it is the same memory, in
        its own dtype, under its own lock. Another shared array is not copied either: it is another
        handle on the same memory.
    readonly : bool, optional
        Whether this handle can only be read. The processor enforces it: a write, by compiled code
        too, is a fault (arrays of multiprocessing are only flagged as read-only where the system has
        no `mremap`). A read-only ndarray makes a writable shared array, unless this is given. A
        read-only handle on a writable one, ``SharedNumpyArray(shared, readonly=True)``, lets main
        write what workers can only read.

    Raises
    ------
    UnsharableError
        A `TaylorismError` and `TypeError`, if the elements are Python objects or strings of variable width.
    TypeError
        If `array` is none of these.
    MemoryError
        If the memory cannot be had.

    Notes
    -----
    ``==`` and ``!=`` with another shared array compare the elements; with anything else they are
    False and True, because footprints compares attributes with anything. Write
    ``shared[...] == array`` to compare the elements with those of an ndarray.

    As in 1.1 ``isinstance(shared, numpy.ndarray)`` is true (and MaskedArray, of a masked one), though
    it is none. What looks at the type itself (compiled code, ``numpy.ma.array``) is given
    ``shared[...]``.

    A copy (`copy.deepcopy`) and a pickle are those of the ndarray: independent values, so that a
    worker may return the array as its report, and so that nobody who copies before a change finds
    his copy changed. It is the same memory in processes forked after it was made, in those to which
    it is passed when multiprocessing spawns them, and wherever it comes with the instructions of a
    Boss.

    Examples
    --------
    >>> import numpy as np
    >>> shared = SharedNumpyArray(np.zeros((2, 3)))
    >>> shared[0] = 1
    >>> shared += 1
    >>> float(shared.sum())
    9.0
    >>> with shared.get_lock():
    ...     shared[1, 1] += 1
    """

    __module__ = "taylorism.util"
    __slots__ = ("__weakref__", "_array", "_memory", "_shared_mask")

    _array: NDArray[Any]
    _memory: Any
    _shared_mask: NDArray[Any] | None

    def __init__(self, array: Any, *, readonly: bool = False) -> None:
        if isinstance(array, SharedNumpyArray):  # first, since it claims to be an ndarray too
            self._share(array, readonly)
        elif is_multiprocessing(array):
            self._borrow(array, readonly)
        elif isinstance(array, np.ndarray):
            self._copy_in(array, readonly)
        else:
            raise TypeError(
                "a SharedNumpyArray is made of a numpy.ndarray, a numpy.ma.MaskedArray or a"
                f" multiprocessing.Array, not of {type(array).__name__}: convert it by"
                " numpy.asarray()"
            )

    # How it is made, copied and sent

    def _copy_in(self, array: NDArray[Any], readonly: bool) -> None:
        _check_dtype(array.dtype)
        layout = _Layout.packing(array)
        memory = Memory.new(layout.nbytes, f"the shared array {layout.dtype} {layout.shape}")
        self._lay_over(memory, layout, readonly=False)
        np.asarray(self._array)[...] = np.asarray(array)
        if self._shared_mask is not None:
            self._shared_mask[...] = np.ma.getmaskarray(array)
        if readonly:
            memory.freeze()
            self._lay_over(memory, layout, readonly)

    def _borrow(self, array: Any, readonly: bool) -> None:
        content = ctypes_array(array)
        dtype, shape = _ctypes_dtype(type(content))
        _check_dtype(dtype)
        like: NDArray[Any] = np.ndarray(shape, dtype, content)
        self._lay_over(borrow(array), _Layout.packing(like), readonly)

    def _share(self, other: SharedNumpyArray, readonly: bool) -> None:
        self._lay_over(other._memory, other._layout(), readonly or not other._array.flags.writeable)

    def _lay_over(self, memory: Any, layout: _Layout, readonly: bool) -> None:
        raw: NDArray[np.uint8] = np.asarray(memory.raw(readonly))
        if readonly:
            raw.flags.writeable = False  # which the memory of multiprocessing is not by itself
        array = layout.lay(raw)
        object.__setattr__(self, "_memory", memory)
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "_shared_mask", _mask_of(array))

    def _layout(self) -> _Layout:
        """Return how the array lies now; its shape, for one, can be set after it was made."""
        array, mask = self._array, self._shared_mask
        layout = _Layout(array.shape, array.dtype, array.strides)
        if mask is None:
            return layout
        packed = _Layout.packing(array).mask
        assert packed is not None
        offset = _address(mask) - _address(np.asarray(array))
        return replace(layout, mask=replace(packed, offset=offset, strides=mask.strides))

    def _keep_mask(self, *, written: bool = False) -> None:
        """
        Take the shared mask back if numpy has put one of its own, or none, in its place.

        It does so in ``**=``, and in ufuncs with ``out=``; then other processes would not see the
        new mask. In ``put`` it has `written` the shared one before: nothing is to be copied from
        the other, least of all over elements that another process has masked since.
        """
        shared, mask = self._shared_mask, _mask_of(self._array)
        if shared is mask or shared is None or mask is None:
            return
        if np.may_share_memory(shared, mask):  # seen otherwise: the dtype was set
            object.__setattr__(self, "_shared_mask", mask)
            return
        if not written:
            shared[...] = mask
        self._array._mask = shared  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not (in_handles() or _spawning()):
            return self._array.__reduce_ex__(protocol)
        return _rebuild, (type(self), self._memory, self._layout(), not self._array.flags.writeable)

    def __copy__(self) -> Any:
        return self if in_handles() else copy.copy(self._array)

    def __deepcopy__(self, memo: Any) -> Any:
        return self if in_handles() else copy.deepcopy(self._array, memo)

    # The lock

    def get_lock(self) -> Any:
        """
        Return the lock of the memory, which works as a context manager.

        Returns
        -------
        RobustLock or multiprocessing.synchronize.RLock
            That of multiprocessing for an array of multiprocessing, and where there are no robust
            ones.
        """
        return self._memory.lock

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """
        Take the lock: see `RobustLock.acquire`.

        Parameters
        ----------
        block : bool
            Whether to wait for it.
        timeout : float, optional
            How long at most, in seconds.

        Returns
        -------
        bool
            Whether it was taken.
        """
        taken: bool = self._memory.lock.acquire(block, timeout)
        return taken

    def release(self) -> None:
        """
        Give the lock back: see `RobustLock.release`.

        Raises
        ------
        AssertionError
            If the calling thread does not hold it.
        """
        self._memory.lock.release()

    # Attributes: the ndarray's

    # As in 1.1, where code that asks isinstance(x, numpy.ndarray), or MaskedArray, hears yes.
    __class__ = property(operator.attrgetter("_array.__class__"))

    def __getattr__(self, name: str) -> Any:
        if name in SharedNumpyArray.__slots__:  # before __init__: never ask for ever
            raise AttributeError(name)
        if name in _LESSER_DOORS and not self._is_simple():
            raise AttributeError(name)
        if name in _PRIVATE_MASK and self._shared_mask is not None:
            return partial(_PRIVATE_MASK[name], self)
        return getattr(self._array, name)

    def _is_simple(self) -> bool:
        """
        Return whether ``__array_struct__`` tells the whole of it.

        It loses the mask, the unit of times, the gaps of structures, and metadata.
        """
        dtype = self._array.dtype
        known = dtype.isbuiltin == 1 and dtype.kind in "biufcSU"
        return known and self._shared_mask is None and dtype.metadata is None

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._array, name, value)
        self._keep_mask()

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._array), "acquire", "get_lock", "release"})

    # Elements

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array[key] = value

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._array)

    def __contains__(self, value: Any) -> bool:
        return _plain(value) in self._array

    # Comparison

    def __hash__(self) -> int:
        return hash(self._memory)

    def __eq__(self, other: object) -> Any:
        return self._array == other._array if isinstance(other, SharedNumpyArray) else False

    def __ne__(self, other: object) -> Any:
        return self._array != other._array if isinstance(other, SharedNumpyArray) else True

    # numpy's own doors

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if dtype is None and not copy:
            return self._array
        return np.array(self._array, dtype, copy=copy, subok=True)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        operation = getattr(ufunc, method)
        if not options:
            return operation(*map(_plain, inputs))
        plain = {name: _plain_deep(value) for name, value in options.items()}
        return _given_back(operation(*map(_plain, inputs), **plain), options.get("out", ()))

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        result = _given_back(function(*_plain_deep(inputs), **_plain_deep(options)), options.get("out", ()))
        if self._shared_mask is not None:  # numpy.put, and ``out`` that is given by its position
            for value in (*inputs, *options.values()):
                if isinstance(value, SharedNumpyArray):
                    value._keep_mask(written=function is np.put)
        return result

    # Operators

    __lt__, __le__ = _binary(operator.lt), _binary(operator.le)
    __gt__, __ge__ = _binary(operator.gt), _binary(operator.ge)

    __neg__, __pos__ = _unary(operator.neg), _unary(operator.pos)
    __abs__, __invert__ = _unary(operator.abs), _unary(operator.invert)
    __bool__, __index__ = _unary(bool), _unary(operator.index)
    __int__, __float__, __complex__ = _unary(int), _unary(float), _unary(complex)

    __add__, __radd__ = _binary(operator.add), _reflected(operator.add)
    __sub__, __rsub__ = _binary(operator.sub), _reflected(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul), _reflected(operator.mul)
    __matmul__, __rmatmul__ = _binary(operator.matmul), _reflected(operator.matmul)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _reflected(operator.truediv)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv), _reflected(operator.floordiv)
    __mod__, __rmod__ = _binary(operator.mod), _reflected(operator.mod)
    __divmod__, __rdivmod__ = _binary(divmod), _reflected(divmod)
    __pow__, __rpow__ = _binary(operator.pow), _reflected(operator.pow)
    __lshift__, __rlshift__ = _binary(operator.lshift), _reflected(operator.lshift)
    __rshift__, __rrshift__ = _binary(operator.rshift), _reflected(operator.rshift)
    __and__, __rand__ = _binary(operator.and_), _reflected(operator.and_)
    __or__, __ror__ = _binary(operator.or_), _reflected(operator.or_)
    __xor__, __rxor__ = _binary(operator.xor), _reflected(operator.xor)

    __iadd__, __isub__ = _in_place(operator.iadd), _in_place(operator.isub)
    __imul__, __imatmul__ = _in_place(operator.imul), _in_place(operator.imatmul)
    __itruediv__, __ifloordiv__ = _in_place(operator.itruediv), _in_place(operator.ifloordiv)
    __imod__, __ipow__ = _in_place(operator.imod), _in_place(operator.ipow)
    __ilshift__, __irshift__ = _in_place(operator.ilshift), _in_place(operator.irshift)
    __iand__, __ior__, __ixor__ = (
        _in_place(operator.iand),
        _in_place(operator.ior),
        _in_place(operator.ixor),
    )

    # Text

    def __repr__(self) -> str:
        return f"SharedNumpyArray({self._array!r})"

    def __str__(self) -> str:
        return str(self._array)

    def __format__(self, specification: str) -> str:
        return format(self._array, specification)


# numpy prefers these to __array__ if it finds them.
_LESSER_DOORS = ("__array_interface__", "__array_struct__")


def _put(shared: SharedNumpyArray, indices: Any, values: Any, mode: Any = "raise") -> None:
    """Put values into a masked array, whose mask numpy lets go of when nothing is masked any more."""
    shared._array.put(_plain(indices), _plain(values), mode)
    shared._keep_mask(written=True)


def _itself(shared: SharedNumpyArray) -> SharedNumpyArray:
    """Return the array: its mask is full-sized and shared, and remains so."""
    return shared


# numpy's own would put a private mask, or none, in the place of the shared one.
_PRIVATE_MASK: dict[str, Callable[..., Any]] = {"put": _put, "shrink_mask": _itself, "unshare_mask": _itself}


class _Shortcut(property):
    """
    An attribute that is found before `__getattr__` is asked, which takes five times as long.

    Called on the class, ``SharedNumpyArray.sum(shared)``, it is the method, as numpy.ma has it.
    """

    def __init__(self, name: str) -> None:
        masked = operator.methodcaller("__getattr__", name)
        property.__init__(self, masked if name in _PRIVATE_MASK else operator.attrgetter(f"_array.{name}"))
        self.name = name

    def __call__(self, array: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(array, self.name)(*arguments, **options)


for _name in {*dir(np.ndarray), *dir(np.ma.MaskedArray)}:
    if not _name.startswith("_"):
        setattr(SharedNumpyArray, _name, _Shortcut(_name))


_handles.shared.add(SharedNumpyArray)


def _rebuild(kind: type[SharedNumpyArray], memory: Any, layout: _Layout, readonly: bool) -> SharedNumpyArray:
    """Make a shared array over memory that this process has, or was handed."""
    shared = kind.__new__(kind)
    shared._lay_over(memory, layout, readonly)
    return shared
