"""Leaf, any process: modules of ours that are imported when something of them is asked for.

Whoever imports this package gets the schedulers, since `footprints.proxy.scheduler` may be asked for one. What
these need only at work would be half of the time of that import.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Late"]


class Late:
    """Stands for a module.

    Parameters
    ----------
    name : str
        Its name within the package.
    """

    def __init__(self, name: str) -> None:
        self._name = f"taylorism.{name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)
