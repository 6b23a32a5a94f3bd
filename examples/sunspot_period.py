#!/usr/bin/env python3
"""Find the period of the sunspots, closer and closer, with the results as they come.

At first, each worker looks at periods of one range. As soon as one has found a better period than all
before, the main program orders another worker that looks more closely around it, while the others are
still at work. It stops when nothing is left to be looked at.

    pip install taylorism statsmodels
    python sunspot_period.py
"""

from __future__ import annotations

import footprints
import numpy as np
from statsmodels import datasets

import taylorism

#: years: the mean of the cycles of Schwabe since 1700, and how near we must come
KNOWN, TOLERANCE = 11.0, 0.1
#: periods that one worker looks at
TRIED = 41
#: years between two periods, where it is close enough
CLOSE = 0.001
#: by how much the same period may seem worse the second time
ROUNDING = 1e-9


class PeriodFinder(taylorism.Worker):
    """Finds the period in a range that explains most of a series."""

    _footprint = dict(
        attr=dict(
            first=dict(info="The shortest period (years).", type=float),
            last=dict(info="The longest period (years).", type=float),
            years=dict(type=footprints.FPList),
            values=dict(type=footprints.FPList),
        ),
    )

    def _task(self, **kwargs):
        years, values = np.array(self.years), np.array(self.values)
        periods = np.linspace(self.first, self.last, TRIED)
        explained = [self.explained(period, years, values) for period in periods]
        best = int(np.argmax(explained))
        return dict(period=periods[best], explained=explained[best], step=periods[1] - periods[0])

    @staticmethod
    def explained(period, years, values):
        """Return the fraction of the variance that a sine wave explains."""
        angles = 2 * np.pi * years / period
        curves = np.stack([np.ones_like(years), np.cos(angles), np.sin(angles)], axis=1)
        rest = values - curves @ np.linalg.lstsq(curves, values, rcond=None)[0]
        return 1 - np.var(rest) / np.var(values)


def find_period(years, values):
    """Return what the best worker has found, and how many there were."""
    common = dict(years=years.tolist(), values=values.tolist())
    best, workers = dict(explained=0.0), 0
    with taylorism.Boss() as boss:
        boss.set_instructions(common, [dict(first=first, last=first + 4) for first in range(2, 42, 4)])
        for record in boss.as_completed(timeout=40):
            workers += 1
            found = record["report"]
            if found["explained"] < best["explained"] - ROUNDING:
                continue
            best = found
            print(f"{found['period']:7.3f} years explain {found['explained']:.1%} of the variance")
            if found["step"] > CLOSE:
                near = dict(first=found["period"] - found["step"], last=found["period"] + found["step"])
                boss.set_instructions(common, [near])
    return best, workers


def main():
    """Find the period, and compare."""
    data = datasets.sunspots.load_pandas().data
    best, workers = find_period(data["YEAR"].to_numpy(), data["SUNACTIVITY"].to_numpy())
    print(f"{workers} workers have looked; the last steps were of {best['step']:.4f} years.")
    if abs(best["period"] - KNOWN) > TOLERANCE or best["step"] > CLOSE:
        raise SystemExit(f"The period of the sunspots should be {KNOWN} years, not {best['period']}.")
    print(f"Since 1700, sunspots have come every {best['period']:.1f} years.")


if __name__ == "__main__":
    main()
