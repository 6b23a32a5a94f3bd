#!/usr/bin/env python3
"""Tell whether the drop of the flow of the Nile after 1898 can be chance.

A Boss in server mode that is given more work while it runs. The workers shuffle the hundred years
again and again, and count how often a shuffled series has a step as clear as the real one. The main
program looks at the interim report while they are at it, and orders more shuffles until the answer
is as certain as it wants.

    pip install taylorism statsmodels
    python nile_drop.py
"""

from __future__ import annotations

import time

import footprints
import numpy as np
from statsmodels import datasets

import taylorism

#: shuffles of one worker
BATCH = 2000
#: what we want to be able to say: by chance, this happens less than once in so many series
WANTED = 10_000
#: if none of n trials succeeds, the probability of success is below 3 / n, at 95 %
RULE_OF_THREE = 3


def clearest_step(series):
    """Return how much of the variance the best step explains, and after which value it comes.

    The last axis of `series` is time.
    """
    size = series.shape[-1]
    before = np.arange(1, size)
    deviations = series - series.mean(axis=-1, keepdims=True)
    sums = np.cumsum(deviations, axis=-1)[..., :-1]
    explained = sums**2 / (before * (size - before)) / np.var(series, axis=-1, keepdims=True)
    return explained.max(axis=-1), explained.argmax(axis=-1)


class Shuffler(taylorism.Worker):
    """Shuffles a series many times, and counts the steps that are as clear as the real one."""

    _footprint = dict(
        attr=dict(
            series=dict(info="The series.", type=footprints.FPList),
            shuffles=dict(info="How many times to shuffle it.", type=int),
            seed=dict(info="Seed of the random numbers, another one for each worker.", type=int),
        ),
    )

    def _task(self, **kwargs):
        series = np.array(self.series)
        real, _ = clearest_step(series)
        random = np.random.default_rng(self.seed)
        shuffled = random.permuted(np.tile(series, (self.shuffles, 1)), axis=1)
        return int((clearest_step(shuffled)[0] >= real).sum())


def shuffle_until_certain(series):
    """Return how many shuffles were made, and how many of them have a step as clear."""
    common = dict(series=series.tolist(), shuffles=BATCH)
    ordered = 4
    boss = taylorism.run_as_server(common, dict(seed=range(ordered)))
    while ordered * BATCH < RULE_OF_THREE * WANTED:
        interim = boss.get_report()  # what is done so far; this does not wait
        done = len(interim["workers_report"])
        if done > ordered - 3:  # soon nothing will be left to do
            print(f"{interim['status']}: {done} batches done, {ordered} ordered, 3 more")
            boss.set_instructions(common, dict(seed=range(ordered, ordered + 3)))
            ordered += 3
        time.sleep(0.01)
    boss.wait_till_finished()
    report = boss.get_report()
    print(f"{report['status']}: {len(report['workers_report'])} batches done")
    counts = [record["report"] for record in report["workers_report"]]
    return BATCH * len(counts), sum(counts)


def main():
    """Find the step, and how likely it is."""
    nile = datasets.nile.load_pandas().data
    years, flow = nile["year"].to_numpy(int), nile["volume"].to_numpy()
    last = int(clearest_step(flow)[1])
    before, after = flow[: last + 1].mean(), flow[last + 1 :].mean()
    print(
        f"After {years[last]}, the flow dropped from {before:.0f} to {after:.0f} (1e8 m3 a year)."
    )

    shuffles, as_clear = shuffle_until_certain(flow)
    print(f"Of {shuffles} shuffled series, {as_clear} have a step as clear.")
    if years[last] != 1898 or as_clear or shuffles < RULE_OF_THREE * WANTED:
        raise SystemExit("That is not what is known of the Nile.")
    print(f"By chance, that happens less than once in {WANTED} series: it was no chance.")


if __name__ == "__main__":
    main()
