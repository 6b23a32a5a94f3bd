#!/usr/bin/env python3
"""Tell how many steps there are in the flow of the Nile, within a limit of time.

Each worker tries all the ways to lay so many steps into a hundred years. For one, two or three steps,
that takes a moment, and they may take half a minute. For eight it would take years; whoever asks for
it anyway is given one second. The limit is a function of the instructions.

    pip install taylorism statsmodels
    python nile_steps.py
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import footprints
import numpy as np
from statsmodels import datasets

import taylorism
from taylorism.util import SharedNumpyArray

#: the numbers of steps to try
STEPS = [1, 2, 3, 8]
#: what is known: one step, after this year (Cobb, 1978)
KNOWN = [1898]


def limit(instructions):
    """Return the seconds that a worker may take."""
    return 30 if instructions["steps"] <= max(STEPS[:-1]) else 1


def costs(flow):
    """Return what is lost when the years from i to j - 1 are replaced by their mean: a square matrix."""
    sums, squares = (np.concatenate([[0], np.cumsum(flow**power)]) for power in (1, 2))
    first, last = np.indices((flow.size + 1, flow.size + 1))
    years = np.maximum(last - first, 1)
    return np.where(last > first, squares[last] - squares[first] - (sums[last] - sums[first]) ** 2 / years, 0)


class StepLayer(taylorism.Worker):
    """Lays steps into a series, in the best of all ways."""

    _footprint = dict(
        attr=dict(
            steps=dict(info="How many.", type=int),
            costs=dict(info="What each level costs.", type=SharedNumpyArray),
        ),
    )

    def _task(self, **kwargs):
        table = self.costs[...].tolist()
        size = len(table) - 1
        ways = combinations(range(1, size), self.steps)
        cost, places = min((sum(table[i][j] for i, j in pairwise((0, *way, size))), way) for way in ways)
        # The criterion of Schwarz: each step has to pay for its place and its height.
        return dict(places=places, score=size * math.log(cost / size) + 2 * self.steps * math.log(size))


def main():
    """Try all, and compare with what is known."""
    nile = datasets.nile.load_pandas().data
    years, flow = nile["year"].to_numpy(int), nile["volume"].to_numpy()
    boss = taylorism.run_as_server(
        common_instructions=dict(name="[steps]"),
        individual_instructions=dict(steps=STEPS),
        sharedmemory_common_instructions=dict(costs=SharedNumpyArray(costs(flow))),
        scheduler=footprints.proxy.scheduler(limit="threads", max_threads=len(STEPS)),
        on_error="collect",
        timeout=limit,
        stop_grace=1,
    )
    boss.wait_till_finished()

    found = {int(record["name"]): record["report"] for record in boss.get_report()["workers_report"]}
    for steps in STEPS:
        ways = f"{math.comb(flow.size - 1, steps):,} ways to lay {steps}"
        if steps in found:
            after = ", ".join(str(years[place - 1]) for place in found[steps]["places"])
            print(f"{ways}: best after {after}; score {found[steps]['score']:.1f}")
        else:
            error = boss.errors[str(steps)]
            print(f"{ways}: {type(error).__name__} after {error.seconds:g} s")

    best = min(found.values(), key=lambda each: each["score"])
    after = [int(years[place - 1]) for place in best["places"]]
    if after != KNOWN or list(boss.errors) != [str(STEPS[-1])]:
        raise SystemExit(f"The Nile should have steps after {KNOWN}, not {after}; failed: {boss.errors}")
    print(f"The best score is the lowest: the flow of the Nile has one step, after {after[0]}.")


if __name__ == "__main__":
    main()
