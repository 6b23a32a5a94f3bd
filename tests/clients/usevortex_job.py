"""Drive EPyGrAM's Extractor worker over stand-ins for Vortex 1 (worlds: main and worker).

``epygram.extra.usevortex`` refuses Vortex 2, and Vortex 1 is not to be had from a package index.
Three things are replaced here: the modules of Vortex, the fetching of resources, and a list of dates
that the current bronx gives as a generator. The extraction, the worker and its batch are EPyGrAM's.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import types
from pathlib import Path
from typing import Any

import samples
from footprints import FPDict, proxy

MEMBERS = 4
TERMS = 3


def import_usevortex() -> Any:
    """Import the module over the stand-ins."""
    vortex = types.ModuleType("vortex")
    vortex.__version__ = "1.9.0"  # type: ignore[attr-defined]
    vortex.toolbox = types.ModuleType("vortex.toolbox")  # type: ignore[attr-defined]
    sys.modules["vortex"] = vortex
    for name in ("vortex.toolbox", "common", "olive"):
        sys.modules[name] = types.ModuleType(name)
    from epygram.extra import usevortex

    dates = usevortex.daterange
    usevortex.daterange = lambda *args: list(dates(*args))
    usevortex.get_resources = get_resources
    return usevortex


def get_resources(local: str, term: int, member: int, **_: Any) -> list[Any]:
    """Make the file of one term of one member, and open it."""
    epygram = samples.prepare_epygram()
    return [epygram.open(str(samples.write_fa(Path(local), seed=10 * member + term)), "r")]


def directives(member: int, nest: type = FPDict) -> FPDict:
    """Return the arguments of the extraction of one point of one member."""
    day = dt.datetime(2020, 1, 1)
    return FPDict(
        vortex_description=nest(member=member),
        coords=nest(here=(10.0, 40.0)),
        start_cutoff=day,
        end_cutoff=day,
        start_term=0,
        end_term=TERMS - 1,
        points_fields=nest(SURFTEMPERATURE=nest(nc_name="ts")),
        outdir=f"member{member}",
        nc_global_attributes=nest(),
    )


def read(path: str) -> list[float]:
    """Return the series of a point."""
    resource = samples.prepare_epygram().open(path, "r")
    try:
        return [float(value) for value in resource.readfield("ts").getdata()]
    finally:
        resource.close()


def main() -> None:
    """Extract every member in parallel, then again in this process, and print both."""
    samples.prepare_epygram()
    usevortex = import_usevortex()
    import taylorism

    report = taylorism.batch_main(
        {},
        dict(directives=[directives(member) for member in range(MEMBERS)]),
        scheduler=proxy.scheduler(limit="threads", max_threads=2),
        print_report=lambda _: None,
    )
    parallel = sorted(record["report"][0] for record in report["workers_report"])
    series = [read(path) for path in parallel]
    serial = [read(usevortex.extractor(**directives(member))[0]) for member in range(MEMBERS)]
    try:
        taylorism.batch_main({}, dict(directives=[directives(0, nest=dict)]))
    except TypeError as error:  # footprints cannot hash what it is given
        unhashable = str(error)
    print(json.dumps(dict(parallel=series, serial=serial, unhashable=unhashable)))


if __name__ == "__main__":
    main()
