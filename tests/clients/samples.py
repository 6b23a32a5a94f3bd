"""Small GRIB and FA files with known values, made from eccodes' samples (world: main)."""

from __future__ import annotations

import datetime as dt
import functools
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import eccodes
import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class Grid(NamedTuple):
    """A regular longitude-latitude grid, from the north-west, in degrees."""

    west: float
    north: float
    step: float
    columns: int
    rows: int


#: FA wants more than twice the eight points of its relaxation zone in each direction.
REGION = Grid(west=0.0, north=50.0, step=1.0, columns=40, rows=32)

#: (eccodes sample, keys of the message): two surface fields and two of the upper air.
MESSAGES: tuple[tuple[str, dict[str, int]], ...] = (
    ("regular_ll_sfc_grib2", {"parameterCategory": 0, "typeOfFirstFixedSurface": 103, "level": 2}),
    (
        "regular_ll_sfc_grib2",
        {
            "parameterCategory": 2,
            "parameterNumber": 2,
            "typeOfFirstFixedSurface": 103,
            "level": 10,
        },
    ),
    ("regular_ll_pl_grib2", {"parameterCategory": 0, "level": 850}),
    ("regular_ll_pl_grib2", {"parameterCategory": 0, "level": 500}),
)

FA_FIELDS = ("SURFGEOPOTENTIEL", "SURFTEMPERATURE", "CLSTEMPERATURE")


@functools.cache
def prepare_epygram() -> Any:
    """Import and set up epygram for a whole session of tests, and return it.

    The Fortran library below it keeps the header of every FA file ever opened, 20 by default, and
    stops the process at the next one.
    """
    import epygram

    epygram.init_env(fa_limits={"JPNXCA": 1000})
    epygram.config.GRIB_safe_indexes = tempfile.gettempdir()  # it would leave links in a fixed place
    return epygram


def values(seed: int, number: int, grid: Grid = REGION) -> Values:
    """Return the values of field *number* of file *seed*, which no other field has."""
    draw = np.random.default_rng([seed, number])
    return 280.0 + 10 * number + draw.normal(size=grid.columns * grid.rows)


def _set_grid(message: Any, grid: Grid) -> None:
    keys = {
        "Ni": grid.columns,
        "Nj": grid.rows,
        "longitudeOfFirstGridPointInDegrees": grid.west,
        "longitudeOfLastGridPointInDegrees": grid.west + grid.step * (grid.columns - 1),
        "latitudeOfFirstGridPointInDegrees": grid.north,
        "latitudeOfLastGridPointInDegrees": grid.north - grid.step * (grid.rows - 1),
        "iDirectionIncrementInDegrees": grid.step,
        "jDirectionIncrementInDegrees": grid.step,
    }
    for key, value in keys.items():
        eccodes.codes_set(message, key, value)


def _write_message(out: Any, sample: str, keys: dict[str, int], data: Values, grid: Grid) -> None:
    message = eccodes.codes_grib_new_from_samples(sample)
    try:
        _set_grid(message, grid)
        for key, value in keys.items():
            eccodes.codes_set(message, key, value)
        eccodes.codes_set(message, "bitsPerValue", 24)
        eccodes.codes_set_values(message, data)
        eccodes.codes_write(message, out)
    finally:
        eccodes.codes_release(message)


def write_grib(path: Path, seed: int, grid: Grid = REGION) -> Path:
    """Write a GRIB2 file of four fields whose values depend on *seed*, and return its path."""
    with path.open("wb") as out:
        for number, (sample, keys) in enumerate(MESSAGES):
            _write_message(out, sample, keys, values(seed, number, grid), grid)
    return path


def read_grib(path: Path) -> list[Values]:
    """Return the values of every message of a GRIB file, read by eccodes alone."""
    found = []
    with path.open("rb") as source:
        while (message := eccodes.codes_grib_new_from_file(source)) is not None:
            found.append(np.array(eccodes.codes_get_values(message)))
            eccodes.codes_release(message)
    return found


def write_fa(path: Path, seed: int, grid: Grid = REGION) -> Path:
    """Write an FA file of three fields on *grid*, through epygram, and return its path."""
    epygram = prepare_epygram()
    model = write_grib(path.with_suffix(".model"), seed, grid)
    source = epygram.open(str(model), "r")
    field = source.readfield(source.listfields()[0])
    source.close()
    model.unlink()
    _write_fields(epygram, path, seed, grid, field)
    return path


def _write_fields(epygram: Any, path: Path, seed: int, grid: Grid, field: Any) -> None:
    validity = epygram.base.FieldValidity(date_time=dt.datetime(2020, 1, 1), term=dt.timedelta(0))
    field.geometry.position_on_horizontal_grid = "center"
    field.validity = epygram.base.FieldValidityList(validity)
    target = epygram.open(
        str(path),
        "w",
        fmt="FA",
        validity=validity,
        geometry=field.geometry,
        processtype="initialization",
    )
    for number, name in enumerate(FA_FIELDS):
        field.fid["FA"] = name
        field.setdata(values(seed, number, grid).reshape(grid.rows, grid.columns))
        target.writefield(field, compression={"KNGRIB": 0})
    target.close()
