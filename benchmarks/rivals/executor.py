"""The standard library's ProcessPoolExecutor, whose processes serve again.

It has no fresh process for each task under fork: its ``max_tasks_per_child`` refuses that start method.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import figures

fork = multiprocessing.get_context("fork")


def run(tasks: Sequence[figures.Task], slots: int) -> list[Any]:
    """Run from the creation of the executor to the end of its processes."""
    with ProcessPoolExecutor(slots, mp_context=fork) as executor:
        return list(executor.map(figures.perform, tasks))


if __name__ == "__main__":
    figures.main(run)
