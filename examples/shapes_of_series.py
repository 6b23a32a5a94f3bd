#!/usr/bin/env python3
"""Find the shape of four series of measurements: a trend, a step, or a cycle.

`batch_main` in one line over a list of series, a worker for each. It fits the three shapes to its
series by least squares, and reports the one that explains most of the variance. The series come
with statsmodels. Each is famous for its shape; the script fails if one comes out differently.

    pip install taylorism statsmodels
    python shapes_of_series.py
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from statsmodels import datasets

import taylorism

#: what is known of each: its shape, and a number with a tolerance
KNOWN = {
    "co2": ("trend", 1.33, 0.05),  # Mauna Loa, 1958-2001: ppm a year
    "nile": ("step", 1898, 0),  # Aswan, 1871-1970: the last year before the drop (Cobb, 1978)
    "sunspots": ("cycle", 11.0, 0.2),  # 1700-2008: years
    "elnino": ("cycle", 1.0, 0.01),  # sea surface off Peru, 1950-2010: years
}


def load(series):
    """Return times (years) and values, two arrays of one length."""
    data = getattr(datasets, series).load_pandas().data
    if series == "co2":  # weekly, with gaps
        months = data["co2"].resample("MS").mean().interpolate()
        return np.asarray(months.index.year + months.index.month / 12), months.to_numpy()
    if series == "elnino":  # a row for each year, a column for each month
        months = data.drop(columns="YEAR").to_numpy().ravel()
        return data["YEAR"].iloc[0] + np.arange(months.size) / 12, months
    times, values = data.to_numpy().T
    return times, values


def fit(values, *curves):
    """Return the fraction of the variance that a sum of curves explains, and its coefficients."""
    curves = np.stack([np.ones_like(values), *curves], axis=1)
    coefficients = np.linalg.lstsq(curves, values, rcond=None)[0]
    return 1 - np.var(values - curves @ coefficients) / np.var(values), coefficients


def trend(times, values):
    """Fit a straight line."""
    explained, (_, slope) = fit(values, times - times.mean())
    return explained, slope, f"a trend of {slope:+.2f} a year"


def step(times, values):
    """Fit a step, at the best place that there is for it."""
    places = pairwise(times[1:-1])
    fits = [(*fit(values, times >= first), last) for last, first in places]
    explained, (before, height), last = max(fits, key=lambda each: each[0])
    text = f"a step from {before:.0f} to {before + height:.0f} after {last:.0f}"
    return explained, int(last), text


def cycle(times, values):
    """Fit a sine wave, of the best period that there is for it."""
    span, interval = times[-1] - times[0], times[1] - times[0]
    frequencies = np.arange(2 / span, 0.5 / interval, 0.05 / span)
    angles = 2 * np.pi * np.outer(frequencies, times)
    fits = [fit(values, np.cos(angle), np.sin(angle))[0] for angle in angles]
    period = 1 / frequencies[np.argmax(fits)]
    return max(fits), period, f"a cycle of {period:.2f} years"


class ShapeFinder(taylorism.Worker):
    """Finds the shape of one series."""

    _footprint = dict(
        attr=dict(series=dict(info="Name of the series.", values=list(KNOWN))),
    )

    def _task(self, **kwargs):
        times, values = load(self.series)
        shapes = {shape.__name__: shape(times, values) for shape in (trend, step, cycle)}
        best = max(shapes, key=lambda name: shapes[name][0])
        explained, number, text = shapes[best]
        return dict(shape=best, number=number, text=f"{text} ({explained:.0%} of the variance)")


def show(found):
    """Print what a worker has found."""
    print(found["text"])


def check(records):
    """Compare with what is known."""
    for record in records:
        shape, number, tolerance = KNOWN[record["name"]]
        found = record["report"]
        if found["shape"] != shape or abs(found["number"] - number) > tolerance:
            raise SystemExit(f"{record['name']} should be a {shape} ({number}): {found['text']}")


def main():
    """Find the shapes of all series, and compare."""
    report = taylorism.batch_main({"name": "[series]"}, {"series": list(KNOWN)}, print_report=show)
    check(report["workers_report"])
    print()
    print("As known: carbon dioxide rises, the Nile dropped after 1898,")
    print("sunspots come every 11 years, and summer every year.")


if __name__ == "__main__":
    main()
