"""Listener and worker: a Worker made in one step, where only our constructor and that of footprints have a say.

To walk through both for each of very many short tasks takes as long as all else that their process does: they log
what they do, look up the observers of the class, and give the name through a descriptor that checks it. Where a
class leaves all of that as it is, two of its Workers differ in their attributes alone once these are resolved. So
what the first one holds beside them is the *mould* of the others.

That is done only for classes of which it is certain (`_steps`, `_is_plain`), and as long as nobody listens: no
observer, and no debug log of footprints. Any other class is called, as ever.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import footprints
from footprints.access import FootprintAttrDescriptorRWX

from taylorism import _worker
from taylorism._worker import Worker

__all__ = ["build"]

#: what footprints tells of the making of its objects
_log = logging.getLogger(footprints.__name__)
#: what the constructors set to the same for all Workers of a class
_ALIKE = ("_puredict", "_observer", "_terminating", "_messenger")
#: all that they set
_ALL = {*_ALIKE, "_attributes", "_parent_pid"}

#: the mould of a class; None where it has to be called
_moulds: dict[type, dict[str, Any] | None] = {}


def build(cls: Any, resolved: dict[str, Any]) -> Any:
    """Return what ``cls(resolved, checked=True)`` does, out of attributes that are the Worker's from then on."""
    mould = _moulds.get(cls)
    if mould is None or _steps(cls) != _OURS or _is_heard(cls):
        return _called(cls, resolved)
    pid = os.getpid()
    if resolved["name"] is None or resolved["name"] is footprints.UNKNOWN:
        resolved["name"] = _worker.new_name(pid)
    worker = object.__new__(cls)
    state = worker.__dict__
    state.update(mould)
    state["_attributes"], state["_parent_pid"] = resolved, pid
    return worker


def _is_heard(cls: Any) -> bool:
    """Whether somebody may want to know of each Worker."""
    return _log.isEnabledFor(logging.DEBUG) or not _worker.is_unobserved(cls)


def _called(cls: Any, resolved: dict[str, Any]) -> Any:
    """Call the class, and keep a mould if it was not called before."""
    worker = cls(resolved, checked=True)
    if cls not in _moulds and _worker.is_unobserved(cls):
        _moulds[cls] = _mould_of(cls, worker, resolved)
    return worker


def _steps(cls: Any) -> tuple[Any, ...]:
    """Return what is run to make a Worker of a class. Looked at each time, for a class may be patched."""
    return (
        type(cls).__call__,
        cls.__new__,
        cls.__init__,
        super(Worker, cls).__init__,
        cls.__getattribute__,
        cls.__setattr__,
        cls.footprint_riseup,
        cls.footprint_getattr,
        cls.footprint_setattr,
    )


_OURS = _steps(Worker)


def _mould_of(cls: Any, worker: Any, resolved: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a Worker has in common with all others of its class, None where that is not certain."""
    state = vars(worker)
    if _steps(cls) != _OURS or state.keys() != _ALL or not _is_plain(cls):
        return None
    if state["_attributes"] != {**resolved, "name": worker.name}:
        return None
    return {name: state[name] for name in _ALIKE}


def _is_plain(cls: Any) -> bool:
    """Whether a name of ours is accepted as it is."""
    definition = cls._footprint.attr["name"]
    checked = definition.get("isclass") or definition["values"] or definition["outcast"]
    taken = definition.get("type", str) is str and not checked
    descriptor = next(vars(each)["name"] for each in cls.__mro__ if "name" in vars(each))
    return taken and type(descriptor) is FootprintAttrDescriptorRWX
