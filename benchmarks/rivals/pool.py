"""The standard library's Pool with a fresh process for each task."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

import figures

fork = multiprocessing.get_context("fork")


def run(tasks: Sequence[figures.Task], slots: int) -> list[Any]:
    """Run from the creation of the pool to the end of its processes."""
    pool = fork.Pool(slots, maxtasksperchild=1)
    with pool:
        returned = list(pool.imap_unordered(figures.perform, tasks, chunksize=1))
        pool.close()
        pool.join()
    return returned


if __name__ == "__main__":
    figures.main(run)
