#!/usr/bin/env python3
"""Find since when parents have fewer than 2.1 children, in all countries, whatever happens.

A batch that must finish. It has a worker for each of 219 countries and regions. For nine of them there
are no figures: their workers fail, are tried once more, and fail again. One worker is killed in the
middle of its work, as the system kills who takes too much memory: it is tried again, and gets there.
The main program has the answers of all the others, and the errors beside them.

    pip install taylorism statsmodels
    python small_families.py
"""

from __future__ import annotations

import math
import os
import signal

import footprints
import numpy as np
from statsmodels import datasets

import taylorism
from taylorism.util import SharedNumpyArray

#: children of a woman, at which a population neither grows nor shrinks in the long run
REPLACEMENT = 2.1
#: the first year from which on there were fewer, until 2011
KNOWN = {"Germany": 1970, "Japan": 1974, "Italy": 1977, "Spain": 1981, "Iran, Islamic Rep.": 2001, "Niger": None}
#: of whom there are no figures at all
SILENT = {
    "American Samoa",
    "Cayman Islands",
    "Faeroe Islands",
    "Monaco",
    "Northern Mariana Islands",
    "San Marino",
    "Sub-Saharan Africa (IFC classification)",
    "Turks and Caicos Islands",
    "Tuvalu",
}
#: whose worker is killed once
VICTIM = "Japan"


class FamilyCounter(taylorism.Worker):
    """Finds since when families are small in one country."""

    _footprint = dict(
        attr=dict(
            country=dict(info="Name of the country."),
            years=dict(info="The years of the figures.", type=footprints.FPList),
            rates=dict(info="Children of a woman, nan where nobody has counted.", type=footprints.FPList),
            kills=dict(info="How often the victim is still to be killed.", type=SharedNumpyArray),
        ),
    )

    def _task(self, **kwargs):
        if self.country == VICTIM and self.kills[0] > 0:
            self.kills[0] -= 1
            os.kill(os.getpid(), signal.SIGKILL)
        figures = zip(self.years, self.rates, strict=True)
        rates = {year: rate for year, rate in figures if not math.isnan(rate)}
        if not rates:
            raise LookupError(f"no figures of {self.country}")
        last = max((year for year, rate in rates.items() if rate >= REPLACEMENT), default=min(rates) - 1)
        return None if last == max(rates) else last + 1


def count():
    """Return the report on all countries."""
    data = datasets.fertility.load_pandas().data
    years = [name for name in data.columns if name.isdigit()]
    boss = taylorism.run_as_server(
        common_instructions=dict(name="[country]", years=[int(year) for year in years]),
        individual_instructions=dict(country=data["Country Name"], rates=data[years].to_numpy().tolist()),
        sharedmemory_common_instructions=dict(kills=SharedNumpyArray(np.ones(1, dtype=int))),
        on_error="collect",
        max_trials=2,
    )
    boss.wait_till_finished()
    return boss.get_report()


def main():
    """Count, and compare with what is known."""
    report = count()
    since = {record["name"]: record["report"] for record in report["workers_report"]}
    trials = {name: info["trials"] for name, info in report["workers_info"].items()}
    print(f"{report['status']}: {len(since)} countries and regions, {len(report['errors'])} without an answer.")
    for name, error in sorted(report["errors"].items()):
        print(f"    {type(error).__name__}: {error}, at {trials[name]} trials")
    print(f"The worker of {VICTIM} was killed, and took {trials[VICTIM]} trials.")
    if set(report["errors"]) != SILENT or {trials[name] for name in (VICTIM, *SILENT)} != {2}:
        raise SystemExit("Other workers have failed than those of whom that is known.")

    small = sorted((year, name) for name, year in since.items() if year in range(1961, 2012))
    print(f"In {len(small)} of them, families became small between 1961 and 2011. Some:")
    for year, name in small:
        if name in KNOWN:
            print(f"    {year}  {name}")
    if any(since[name] != year for name, year in KNOWN.items()):
        raise SystemExit(f"Since when families are small there: {KNOWN}.")


if __name__ == "__main__":
    main()
