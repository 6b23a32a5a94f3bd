"""joblib with its default backend, loky, whose processes are spawned afresh and serve again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import figures
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor


def run(tasks: Sequence[figures.Task], slots: int) -> list[Any]:
    """Run from nothing to the end of the processes, which joblib would keep for the next call."""
    try:
        jobs = (delayed(figures.perform)(task) for task in tasks)
        return list(Parallel(n_jobs=slots, backend="loky")(jobs))
    finally:
        get_reusable_executor().shutdown(wait=True)


if __name__ == "__main__":
    figures.main(run)
