#!/usr/bin/env python3
"""Fit the economy of Longley in three ways, each with a log of its own.

The data of Longley (1967) are famous for breaking programs: their columns are so much alike that a
careless fit loses all digits. Each worker fits them in its own way, and tells in its log what it sees.
The fit in single precision fails. Its error quotes the end of its log, and the log has both its trials.

    pip install taylorism statsmodels
    python longley_logs.py
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from statsmodels import datasets

import taylorism

#: the coefficients that the NIST has certified: the intercept, and the number of employed for each year
KNOWN = {"intercept": -3482258.63459582, "year": 1829.15146461355}


def by_qr(columns, employed):
    """Fit by an orthogonal decomposition."""
    q, r = np.linalg.qr(columns)
    return np.linalg.solve(r, q.T @ employed)


def by_normal_equations(columns, employed):
    """Fit by the product of the columns with each other, as on paper."""
    root = np.linalg.cholesky(columns.T @ columns)
    return np.linalg.solve(root.T, np.linalg.solve(root, columns.T @ employed))


#: how, and in which precision
METHODS = {
    "QR, double": (by_qr, np.float64),
    "normal equations, double": (by_normal_equations, np.float64),
    "normal equations, single": (by_normal_equations, np.float32),
}


class Fitter(taylorism.Worker):
    """Fits in one of the ways, and talks about it."""

    _footprint = dict(attr=dict(method=dict(values=list(METHODS))))

    def _task(self, **kwargs):
        subprocess.run(["/bin/uname", "-sm"], check=True)  # where this was
        data = datasets.longley.load_pandas()
        method, precision = METHODS[self.method]
        columns = np.column_stack([np.ones(len(data.exog)), data.exog]).astype(precision)
        print(f"{len(columns)} years, {columns.shape[1]} columns, numbers of {columns.itemsize} bytes")
        print(f"condition {np.linalg.cond(columns.astype(float)):.1e}, epsilon {np.finfo(precision).eps:.1e}")
        coefficients = method(columns, data.endog.to_numpy().astype(precision))
        print("fitted:", *(f"{each:.6g}" for each in coefficients))
        return dict(intercept=float(coefficients[0]), year=float(coefficients[-1]))


def digits(found):
    """Return how many digits of the worst coefficient are right."""
    return min(-np.log10(abs(found[name] / known - 1) + 1e-16) for name, known in KNOWN.items())


def fit(log_dir):
    """Return the report, and the errors."""
    boss = taylorism.run_as_server(
        common_instructions=dict(name="[method]"),
        individual_instructions=dict(method=list(METHODS)),
        on_error="collect",
        max_trials=2,
        log_dir=log_dir,
    )
    boss.wait_till_finished()
    return {record["name"]: record["report"] for record in boss.get_report()["workers_report"]}, boss.errors


def main():
    """Fit, look at the logs, and compare."""
    with tempfile.TemporaryDirectory() as directory:
        fits, errors = fit(directory)
        logs = {path.name: path.read_text() for path in sorted(Path(directory).iterdir())}
    for name, text in logs.items():
        if text:
            print(f"--- {name}\n{text}", end="")
    for name, error in errors.items():
        print(f"--- {name} has failed: {error}")
    if logs["normal equations, single.out"].count("condition") != 2 or "fitted" not in logs["QR, double.out"]:
        raise SystemExit("The logs do not say what the workers have done.")
    if list(errors) != ["normal equations, single"] or "condition" not in str(errors.popitem()[1].__cause__):
        raise SystemExit("The fit in single precision should fail, and its error quote its log.")

    right = {name: digits(found) for name, found in fits.items()}
    print("Digits that are right:", ", ".join(f"{right[name]:.0f} by {name}" for name in METHODS if name in right))
    if not 5 < right["normal equations, double"] < 9 < right["QR, double"]:
        raise SystemExit("QR should keep twice the digits of the normal equations.")
    print(f"Each year, {fits['QR, double']['year']:.2f} thousand more were employed, as the NIST has certified.")


if __name__ == "__main__":
    main()
