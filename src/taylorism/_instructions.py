"""Pure, any process: common and individual instructions -> one set for each task, packed and unpacked.

The common part is pickled once for all the sets of a call, each individual part by itself: a large common value is
sent and held once, and a set that cannot be rebuilt in the listener is charged to that set alone.

A shared array among them is sent as a handle on its memory, never as its values: what a worker writes to it would
be lost. Who sends keeps the memory until the work is done, because main may let go of the array meanwhile.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from taylorism._errors import BadInstructions, InstructionsNotPicklable, UnequalLengths, describe
from taylorism._handles import by_handle

__all__ = ["Packed", "check_names", "deal", "gathered", "pack", "pack_one", "unpack", "unpack_common"]


def gathered(individual: Any) -> list[dict[str, Any]]:
    """Return one dict for each task, out of a dict of sequences or a sequence of dicts.

    Raises
    ------
    UnequalLengths
        The sequences are not all of one length.
    BadInstructions
        It is something else, or a name is no string.
    """
    if isinstance(individual, Sequence) and not isinstance(individual, (str, bytes)):
        for one in individual:
            check_names(one, "individual")
        return [dict(one) for one in individual]
    check_names(individual, "individual")
    return deal(individual)


def deal(individual: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn a dict of equally long sequences into a list of dicts; the sequences are only read.

    Parameters
    ----------
    individual : mapping of str to sequence
        For each attribute one value for each task: lists, tuples, ranges, arrays, anything with a length.

    Raises
    ------
    UnequalLengths
        The sequences are not all of one length.
    BadInstructions
        A value is not a sequence.
    """
    lengths = {name: _length(name, values) for name, values in individual.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise UnequalLengths(f"all *individual_instructions* must have the same length, not {told}.")
    names = tuple(individual)
    return [dict(zip(names, values, strict=True)) for values in zip(*individual.values(), strict=True)]


def _length(name: str, values: Any) -> int:
    if isinstance(values, (Mapping, Set)) or not hasattr(values, "__iter__"):
        kind = type(values).__name__
        raise BadInstructions(
            f"the individual instructions {name!r} are a {kind}: give a sequence with one value for each task "
            "(a value for all tasks belongs to the common instructions)."
        )
    try:
        return len(values)
    except TypeError:
        raise BadInstructions(
            f"the individual instructions {name!r} are a {type(values).__name__}, which has no length: "
            "make a list of it, list(...)."
        ) from None


def check_names(instructions: Any, which: str) -> None:
    """Raise `BadInstructions` unless `instructions` maps attribute names to something."""
    if not isinstance(instructions, Mapping):
        raise BadInstructions(
            f"the {which} instructions are a {type(instructions).__name__}: they must be a dict."
        )
    for name in instructions:
        if not isinstance(name, str):
            raise BadInstructions(
                f"the {which} instructions have the key {name!r}: keys are attribute names, hence strings."
            )


class Packed(list[bytes]):
    """The pickles of the common part and of each set.

    Attributes
    ----------
    handed : dict of int to tuple of object
        The shared memory that a pickle has handles on, to be kept while it may be looked for, by its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed: dict[int, tuple[object, ...]] = {}


def _dumped(value: object) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def pack(
    common: Mapping[str, Any], sets: Sequence[dict[str, Any]], dump: Callable[[object], bytes] = _dumped
) -> Packed:
    """Pickle the common part, then each set.

    Parameters
    ----------
    dump : callable
        Pickles.

    Raises
    ------
    InstructionsNotPicklable
        Names the attribute and the cause.
    """
    packed, which = Packed(), "common"
    with by_handle() as handed:
        for instructions in (dict(common), *sets):
            packed.append(_pickled(instructions, which, dump))
            which = "individual"
            if handed:
                packed.handed[len(packed) - 1] = tuple(handed)
                handed.clear()
    return packed


def pack_one(instructions: dict[str, Any]) -> bytes:
    """Pickle one dict of instructions.

    Raises
    ------
    InstructionsNotPicklable
        Names the attribute and the cause.
    """
    with by_handle():
        return _pickled(instructions)


def _pickled(
    instructions: dict[str, Any], which: str = "individual", dump: Callable[[object], bytes] = _dumped
) -> bytes:
    try:
        return dump(instructions)
    except Exception as trouble:
        raise InstructionsNotPicklable(
            f"the {which} instructions {_guilty(instructions)} cannot be sent to the workers, because they cannot "
            f"be pickled: {describe(trouble)}. Give what the worker needs to make them itself, such as a file name."
        ) from trouble


def _guilty(instructions: dict[str, Any]) -> str:
    """Name the attributes that cannot be pickled."""
    return ", ".join(repr(name) for name, value in instructions.items() if not _picklable(value))


def _picklable(value: Any) -> bool:
    try:
        _dumped(value)
    except Exception:
        return False
    return True


def unpack_common(packed: Any, load: Callable[[Any], Any] = pickle.loads) -> dict[str, Any]:
    """Load the common part, to be shared by all the sets of its call."""
    common: dict[str, Any] = load(packed)
    return common


def unpack(
    common: dict[str, Any], packed: Any, load: Callable[[Any], Any] = pickle.loads
) -> dict[str, Any]:
    """Load one set and merge: what is individual wins. The names are the same strings in all sets."""
    return common | {_interned(name): value for name, value in load(packed).items()}


def _interned(name: str) -> str:
    return sys.intern(name if type(name) is str else str.__str__(name))  # the system interns no others
