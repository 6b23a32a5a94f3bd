"""Main: job folders, for programs that come from pylada; public, imported on demand only.

============================  =====================================================================================
`JobFolder`                   a tree of named jobs
`JobFolderProcess`            runs them, some at a time, each with an equal share of the processors
`PoolProcess`                 runs them, each with the number of processors that it asks for
============================  =====================================================================================

They do what pylada's documentation says of the classes of these names. The tree is in `_jobtree`, what runs
it in `_jobprocess` and `_jobpool`, what runs in the workers in `_jobworker`.
"""

from __future__ import annotations

from taylorism.compat._joberrors import AlreadyStarted, Fail, MPISizeError, NotStarted
from taylorism.compat._jobpool import PoolProcess
from taylorism.compat._jobprocess import JobFolderProcess
from taylorism.compat._jobtree import JobFolder

__all__ = [
    "AlreadyStarted",
    "Fail",
    "JobFolder",
    "JobFolderProcess",
    "MPISizeError",
    "NotStarted",
    "PoolProcess",
]
