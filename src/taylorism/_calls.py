"""Packed in main, run in the worker: the calls of functions for which main has a future.

No class is chosen for them: their worker is in no collector where others are, so that it stands in nobody's way,
and is there whatever was imported. They are pickled in the caller's thread and loaded in the worker's process: what
cannot be loaded there is a failure of that call, and the listener runs nothing of the user's for it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from taylorism._errors import InstructionsNotPicklable, TransmissionError, describe, quote
from taylorism._worker import Worker

__all__ = ["ARGUMENTS", "FUNCTION", "Packed", "caller", "label", "packed_arguments", "packed_function"]

#: names in a set of instructions that no attribute has
FUNCTION, ARGUMENTS = "function of the call", "arguments of the call"

#: characters of a call that messages quote
_QUOTED = 200

#: what a call is made with
Arguments = tuple[Sequence[Any], Mapping[str, Any]]


class Packed:
    """Something pickled, and how it is shown.

    Attributes
    ----------
    data : bytes
        The pickle.
    text : str
        For messages.
    """

    __slots__ = ("data", "text")

    def __init__(self, data: bytes, text: str) -> None:
        self.data = data
        self.text = text

    def __repr__(self) -> str:
        return self.text


def packed_function(function: Callable[..., Any]) -> Packed:
    """Pickle a function.

    Raises
    ------
    TypeError
        It cannot be called.
    InstructionsNotPicklable
        It cannot be sent.
    """
    if not callable(function):
        raise TypeError(f"{quote(function, _QUOTED)} cannot be called: give a function.")
    remedy = "Give a function of a module, or of the script itself: no lambda, and none within another function"
    return _packed(function, f"the function {quote(function, _QUOTED)}", label(function), remedy)


def packed_arguments(arguments: Sequence[Arguments], several: bool) -> Packed:
    """Pickle the arguments of a call, or of `several` that one worker makes.

    Raises
    ------
    InstructionsNotPicklable
        They cannot be sent.
    """
    text = quote(arguments if several else arguments[0], _QUOTED)
    remedy = "Give what the function needs to make them, such as a file name"
    return _packed((several, arguments), f"the arguments {text}", text, remedy)


def _packed(value: object, what: str, text: str, remedy: str) -> Packed:
    try:
        return Packed(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), text)
    except Exception as trouble:
        raise InstructionsNotPicklable(
            f"{what} cannot be sent to a worker, because it cannot be pickled: {describe(trouble)}. {remedy}."
        ) from trouble


def label(function: object) -> str:
    """Return what the workers that call a function are named after."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return "".join(char if char.isalnum() or char in "_-." else "_" for char in str(name))


class Caller(Worker):
    """Makes the calls that it is given; its report is the value, or the list of the values."""

    _collector = ("taylorism_caller",)
    _explicit = False
    _footprint: ClassVar[Any] = dict(attr=dict())

    function: Packed
    arguments: Packed

    def _task(self, **kwargs: Any) -> Any:
        function = self._loaded(self.function)
        several, arguments = self._loaded(self.arguments)
        values = [_value(function, *each) for each in arguments]
        return values if several else values[0]

    def _loaded(self, packed: Packed) -> Any:
        try:
            return pickle.loads(packed.data)
        except Exception as trouble:
            raise TransmissionError(
                f"{packed.text}, for worker {self.name!r}, cannot be rebuilt in its process: {describe(trouble)}. "
                "What is defined in the script must be there before the Boss is made; anything else must be found "
                "in a module that can be imported.",
                name=self.name,
            ) from trouble

    def footprint_as_shallow_dict(self) -> dict[str, Any]:
        """Return the attributes, for the message of a failure; from footprints."""
        attributes: dict[str, Any] = super().footprint_as_shallow_dict()
        return {**attributes, FUNCTION: self.function, ARGUMENTS: self.arguments}


def _value(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except SystemExit as error:
        if error.code in (None, 0):  # how a task says that all went well
            return None
        raise


def caller(attributes: Mapping[str, Any]) -> Caller | None:
    """Return the worker for a call, None where these attributes are of another kind."""
    if FUNCTION not in attributes:
        return None
    function, arguments = attributes[FUNCTION], attributes.get(ARGUMENTS)
    if not (isinstance(function, Packed) and isinstance(arguments, Packed)):
        return None
    declared = Caller.footprint_retrieve().attr
    worker = Caller(**{name: value for name, value in attributes.items() if name in declared})
    worker.function, worker.arguments = function, arguments
    return worker
