"""Leaf, worker process: caps on the threads that compiled libraries start by themselves, BLAS and OpenMP.

Each such library takes all the cpus of the machine, whatever else runs there, unless it is told otherwise: by its
environment variable, read when it is loaded, or by a call afterwards, which `threadpoolctl` (an extra, ``threads``)
knows how to make. What the user has set himself is never touched.

What is not reached: libraries that are loaded without `threadpoolctl` there; numexpr once it is imported; and, once
an OpenMP library is loaded, the threads that the task itself starts, for its limit is one of the calling thread.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["cap_threads"]

#: what each variable stands in for: with one of these set, the library would have followed that, unless this one is
_INSTEAD_OF = {
    "OMP_NUM_THREADS": (),
    "OPENBLAS_NUM_THREADS": ("GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "MKL_NUM_THREADS": ("OMP_NUM_THREADS",),
    "BLIS_NUM_THREADS": ("OMP_NUM_THREADS",),
    "NUMEXPR_NUM_THREADS": ("OMP_NUM_THREADS",),
    "VECLIB_MAXIMUM_THREADS": (),  # Apple's Accelerate knows no other
}

#: the variables that a library which is loaded has followed, by the name that threadpoolctl has for it
_FOLLOWS = {
    "openblas": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "mkl": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    "blis": ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
}

#: names of the files of such libraries, as Linux shows them
_FILES = re.compile(rb"/[^/\n]*(?:blas|blis|mkl|[gi]?omp)[^/\n]*\.so")

#: what threadpoolctl sets when it is imported
_ALLOWING = "KMP_DUPLICATE_LIB_OK"

#: what this process, or the one that it was forked from, has set: it may be lowered
_ours: dict[str, str] = {}


def cap_threads(count: int) -> None:
    """Cap the threads of BLAS and OpenMP, in this process and in the programs that it starts.

    Limits of what is loaded are lowered, never raised; those that the user has set by an environment variable stay.
    It never fails.

    Parameters
    ----------
    count : int
        How many threads each library may use, at least 1.
    """
    count = max(1, count)
    users = {name for names in _FOLLOWS.values() for name in names if _is_users(name)}
    _cap_environment(count)
    if _is_any_loaded():
        _cap_loaded(count, users)


def _is_users(name: str) -> bool:
    """Tell whether a variable was set by the user."""
    value = os.environ.get(name, "")
    return bool(value.strip()) and value != _ours.get(name)


def _cap_environment(count: int) -> None:
    for name, others in _INSTEAD_OF.items():
        if not any(_is_users(each) for each in (name, *others)):
            most = min(count, _most_of_numexpr()) if name.startswith("NUMEXPR") else count
            _ours[name] = os.environ[name] = str(min(most, int(_ours.get(name, most))))


def _most_of_numexpr() -> int:
    """Return how many threads numexpr would take at most: asked for more, it complains and runs in a single one."""
    try:
        return max(1, int(os.environ["NUMEXPR_MAX_THREADS"]))
    except (KeyError, ValueError):
        return 16


def _is_any_loaded() -> bool:
    """Tell whether a library may be loaded that can be capped: a fifth of a millisecond, the import takes five."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return _FILES.search(file.read()) is not None
    except OSError:  # not Linux, or no /proc
        return "numpy" in sys.modules


def _cap_loaded(count: int, users: set[str]) -> None:
    """Lower the limits of what is loaded, but of those that have followed one of the variables `users`."""
    try:
        with warnings.catch_warnings():
            # That two OpenMP libraries do not go together is for main to say, not for each worker.
            warnings.simplefilter("ignore")
            libraries = _threadpoolctl().ThreadpoolController().lib_controllers
    except Exception:  # not installed, or too old, or it does not get on with this system
        return
    for library in libraries:
        if users.isdisjoint(_FOLLOWS.get(library.internal_api, ("OMP_NUM_THREADS",))):
            _lower(library, count)


def _threadpoolctl() -> Any:
    """Return the module, without the variable that it leaves in the environment.

    That one allows several OpenMP libraries of Intel's and LLVM's in one process: for the task and its programs to
    decide, and not needed to look at what is loaded.
    """
    untouched = os.environ.get(_ALLOWING)
    try:
        return importlib.import_module("threadpoolctl")
    finally:
        if untouched is None:
            os.environ.pop(_ALLOWING, None)


def _lower(library: Any, count: int) -> None:
    try:
        if library.num_threads > count:
            library.set_num_threads(count)
    except Exception:  # a library that has no such call
        pass
