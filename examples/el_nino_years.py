#!/usr/bin/env python3
"""Find the El Nino years in the temperatures of the sea off Peru.

All workers share three arrays. They read the temperatures of 61 years and 12 months, and fill the
anomalies, each worker for one month: the temperature less the mean and the trend of that month. The
main program compares what they made with a serial calculation, then looks for the warmest seasons.

    pip install taylorism statsmodels
    python el_nino_years.py
"""

from __future__ import annotations

import numpy as np
from statsmodels import datasets

import taylorism
from taylorism.util import SharedNumpyArray

#: the two great ones of the century
KNOWN = {"1982-83", "1997-98"}


def anomalies_of(years, temperatures):
    """Return temperatures (K) less their straight-line fit over the years."""
    return temperatures - np.polyval(np.polyfit(years, temperatures, deg=1), years)


class AnomalyMaker(taylorism.Worker):
    """Computes the anomalies of one month, in all years, in the place where they belong."""

    _footprint = dict(
        attr=dict(
            month=dict(info="Index of the month.", type=int, values=list(range(12))),
            years=dict(info="The years.", type=SharedNumpyArray),
            temperatures=dict(info="In degrees Celsius: years, months.", type=SharedNumpyArray),
            anomalies=dict(info="In kelvin: years, months.", type=SharedNumpyArray),
        ),
    )

    def _task(self, **kwargs):
        column = self.temperatures[:, self.month]
        self.anomalies[:, self.month] = anomalies_of(self.years[...], column)


def warmest_seasons(years, anomalies):
    """Return the five warmest seasons and their mean anomalies, the warmest first."""
    # El Nino, the Christ child, comes around Christmas: a season is from July to June.
    means = anomalies[...].ravel()[6:-6].reshape(-1, 12).mean(axis=1)
    return [
        (f"{years[i]:.0f}-{years[i + 1] % 100:02.0f}", means[i]) for i in np.argsort(-means)[:5]
    ]


def main():
    """Make the anomalies in parallel, compare, and name the warmest seasons."""
    data = datasets.elnino.load_pandas().data
    years, temperatures = data["YEAR"].to_numpy(), data.drop(columns="YEAR").to_numpy()

    anomalies = SharedNumpyArray(np.full(temperatures.shape, np.nan))
    boss = taylorism.run_as_server(
        individual_instructions=dict(month=range(12)),
        sharedmemory_common_instructions=dict(
            years=SharedNumpyArray(years),
            temperatures=SharedNumpyArray(temperatures),
            anomalies=anomalies,
        ),
    )
    boss.wait_till_finished()

    serial = np.stack([anomalies_of(years, column) for column in temperatures.T], axis=1)
    if not np.array_equal(anomalies, serial):
        raise SystemExit("The workers and the serial calculation do not agree.")
    print(f"{anomalies.size} anomalies, each the same as in the serial calculation.")

    warmest = warmest_seasons(years, anomalies)
    print("The warmest seasons off Peru since 1950:")
    for season, anomaly in warmest:
        print(f"    {season}  {anomaly:+.1f} K")
    if {season for season, _ in warmest[:2]} != KNOWN:
        raise SystemExit(f"The great El Nino years should be {sorted(KNOWN)}.")


if __name__ == "__main__":
    main()
