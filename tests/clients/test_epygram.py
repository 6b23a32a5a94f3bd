"""EPyGrAM on this package: its converters in batch, against a serial run (world: main)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import footprints
import numpy as np
import pytest
import samples
from epygram.formats.conversion import converters
from epygram.formats.conversion.functions import batch_convert

epygram = samples.prepare_epygram()

FILES = 5
WORKER_ATTRIBUTES = {"name", "memory", "expected_time", "scheduler_ticket", "scheduler_hooks"}
CONVERTERS = {
    "nc": converters.NetCDFWriter,
    "grb": converters.Griber,
    "geo": converters.GeoPointsWriter,
}
WRITERS = {"grib": samples.write_grib, "fa": samples.write_fa}


def make_inputs(directory: Path, kind: str, count: int = FILES) -> list[str]:
    """Write *count* distinct files of *kind* in *directory* and return their names."""
    directory.mkdir(exist_ok=True)
    return [str(WRITERS[kind](directory / f"f{i}.{kind}", seed=i)) for i in range(count)]


def convert_serially(filenames: list[str], suffix: str) -> None:
    """Convert in this process, by the very task that the workers run."""
    for filename in filenames:
        footprints.proxy.worker(filename=filename, output_format_suffix=suffix)._task()


def outputs(directory: Path, suffix: str) -> dict[str, Path]:
    """Return the converted files of *directory*, by name."""
    return {path.name: path for path in directory.iterdir() if path.name.endswith("." + suffix)}


def read_fields(path: Path) -> dict[str, Any]:
    """Return the values of each field of a file, by field identifier."""
    resource = epygram.open(str(path), "r")
    try:
        if resource.format == "GeoPoints":
            return {"points": resource.readfield().data.copy()}
        named = [fid for fid in resource.listfields() if not is_coordinate(fid)]
        return {str(fid): np.array(resource.readfield(fid).data) for fid in named}
    finally:
        resource.close()


def is_coordinate(fid: Any) -> bool:
    """Tell the variables that netCDF files hold beside the fields."""
    return isinstance(fid, str) and not fid.startswith(("_", *samples.FA_FIELDS))


def assert_same_fields(got: Path, wanted: Path) -> int:
    """Compare two files field by field, bit by bit, and return how many fields there were."""
    fields, reference = read_fields(got), read_fields(wanted)
    assert fields.keys() == reference.keys()
    for fid, data in fields.items():
        np.testing.assert_array_equal(data, reference[fid], err_msg=f"{got.name}: {fid}")
    return len(fields)


@pytest.mark.parametrize("suffix", sorted(CONVERTERS))
def test_throw_away_worker_lists_its_attributes(suffix: str) -> None:
    """A converter built in main to read its attributes is of the right class and holds nothing."""
    worker = footprints.proxy.worker(filename="", output_format_suffix=suffix)
    assert type(worker) is CONVERTERS[suffix]
    attributes = set(worker.footprint_attributes)
    assert attributes >= WORKER_ATTRIBUTES | {"filename", "output_format_suffix", "fieldseed"}
    del worker  # never started: the fixture sees that no process or descriptor came of it


def test_nothing_was_added_to_the_footprint() -> None:
    """The base footprint has its five old attributes, so that none clashes with a converter's."""
    worker = footprints.proxy.worker(filename="", output_format_suffix="nc")
    own = {"filename", "output_format_suffix", "fieldseed", "subzone", "progressmode"}
    own |= {"grib_short_fid", "compression", "flatten_horizontal_grids"}
    assert set(worker.footprint_attributes) == own | WORKER_ATTRIBUTES


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize(("kind", "suffix"), [("grib", "nc"), ("grib", "geo"), ("fa", "nc"), ("fa", "grb")])
def test_batch_convert_equals_serial(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    suffix: str,
    processes: int,
) -> None:
    """A batch conversion of several files gives, field by field, what a serial one gives."""
    batch, serial = tmp_path / "batch", tmp_path / "serial"
    make_inputs(serial, kind)
    monkeypatch.chdir(serial)  # GeoPoints write their title from the name they are given
    convert_serially([f"f{i}.{kind}" for i in range(FILES)], suffix)
    make_inputs(batch, kind)
    monkeypatch.chdir(batch)
    capsys.readouterr()
    batch_convert([f"f{i}.{kind}" for i in range(FILES)], suffix, threads_number=processes)
    assert_reports(capsys.readouterr().out, kind)
    wanted = outputs(serial, suffix)
    assert outputs(batch, suffix).keys() == wanted.keys()
    count = sum(assert_same_fields(batch / name, wanted[name]) for name in wanted)
    assert count == FILES * (len(samples.MESSAGES) if kind == "grib" else len(samples.FA_FIELDS))


def assert_reports(printed: str, kind: str) -> None:
    """Check that each worker's report was printed under its rules and its name."""
    found = re.findall(r"^(=+)\n(WORKER NAME: \S+)\n(-+)\n(\S+) : (\d+) fields", printed, re.MULTILINE)
    assert sorted(name for *_, name, _ in found) == [f"f{i}.{kind}" for i in range(FILES)]
    assert all(len(rule) == len(title) == len(line) for rule, title, line, *_ in found)


def test_conversion_keeps_the_source_values(here: Path) -> None:
    """What the batch wrote to netCDF is what eccodes alone reads in the source."""
    names = make_inputs(here, "grib", 2)
    batch_convert(names, "nc", threads_number=2, fieldseed=None, compression=1)
    for name in names:
        source = samples.read_grib(Path(name))
        written = list(read_fields(Path(name + ".nc")).values())
        assert len(written) == len(source)
        for data in source:
            rows = data.reshape(samples.REGION.rows, samples.REGION.columns)
            close = [np.allclose(rows[::-1], got) or np.allclose(rows, got) for got in written]
            assert sum(close) == 1


def test_only_the_fields_asked_for(here: Path) -> None:
    """An instruction that is a list (the fields wanted) reaches every worker whole."""
    names = make_inputs(here, "fa", 3)
    batch_convert(names, "grb", threads_number=2, fieldseed=["SURFTEMPERATURE"], unknown_option=1)
    for seed, name in enumerate(names):
        (data,) = samples.read_grib(Path(name + ".grb"))
        wanted = samples.values(seed, samples.FA_FIELDS.index("SURFTEMPERATURE"))
        np.testing.assert_allclose(np.sort(data), np.sort(wanted), atol=1e-2)


@pytest.mark.parametrize("processes", [1, 3])
def test_missing_file_raises_what_the_serial_run_raises(here: Path, processes: int) -> None:
    """A file that is not there comes out of the batch as the very exception of the serial run."""
    names = make_inputs(here, "grib", 3)
    names[1] = str(here / "absent.grib")
    with pytest.raises(Exception) as serial:  # whatever epygram raises
        convert_serially(names[1:2], "nc")
    with pytest.raises(type(serial.value)) as batch:
        batch_convert(names, "nc", threads_number=processes)
    assert type(batch.value) is type(serial.value)
    assert batch.value.args == serial.value.args


def test_unsupported_conversion_raises_what_the_serial_run_raises(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """EPyGrAM cannot convert GRIB to GRIB: its error comes out; stderr names the instructions."""
    names = make_inputs(here, "grib", 2)
    with pytest.raises(KeyError) as serial:
        convert_serially(names[:1], "grb")
    capfd.readouterr()
    with pytest.raises(KeyError) as batch:
        batch_convert(names, "grb", threads_number=2)
    assert batch.value.args == serial.value.args
    said = capfd.readouterr().err
    assert "get_write_kwargs_for_GRIB" in said  # the worker's own traceback
    assert names[0] in said or names[1] in said


def test_convert_command_verbosely(here: Path) -> None:
    """EPyGrAM's own command converts several files in parallel, and says so when asked to."""
    names = make_inputs(here, "grib", 3)
    command = Path(sys.executable).with_name("epy_convert")
    done = subprocess.run(
        [sys.executable, str(command), "-v", "-o", "nc", "-t", "2", *names],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=here,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WORKER NAME: ") == 3
    assert len(re.findall(r"Worker \S+ started", done.stderr + done.stdout)) == 3
    assert done.stderr.count("fields successfully converted") == 3  # the reports, logged
    assert all(len(read_fields(Path(name + ".nc"))) == len(samples.MESSAGES) for name in names)
