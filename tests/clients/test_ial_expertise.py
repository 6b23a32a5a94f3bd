"""ial-expertise on this package: its comparison of files, parallel against serial (world: main)."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import footprints
import pytest
import samples
from ial_expertise.experts import fields

samples.prepare_epygram()

PAIRS = 5


def reference(name: str) -> Any:
    """Stand for a resource handler: the expert reads nothing of it but these two things."""
    return SimpleNamespace(
        resource=SimpleNamespace(kind="gridpoint"),
        container=SimpleNamespace(localpath=lambda: name),
    )


def expert(parallel: bool, **options: Any) -> Any:
    """Build the expert for the files of :func:`make_pairs`."""
    return footprints.proxy.outputexpert(
        kind="gridpoint",
        expert="fields_in_file",
        filenames=footprints.FPList(names()),
        parallel=parallel,
        fatal_exceptions=True,
        hide_bit_repro_fields=False,
        **options,
    )


def names() -> list[str]:
    """Return the names of the files to compare, each with its ``ref.`` twin."""
    return [f"PFFPOS{number}" for number in range(PAIRS)]


def make_pairs(here: Path, differing: set[int]) -> list[Any]:
    """Write the files and their references, those of *differing* with other values."""
    for number, name in enumerate(names()):
        samples.write_fa(here / f"ref.{name}", seed=number)
        if number in differing:
            samples.write_fa(here / name, seed=number + 100)
        else:
            shutil.copy(here / f"ref.{name}", here / name)
    return [reference(f"ref.{name}") for name in names()]


@pytest.mark.parametrize("differing", [set(), {1, 3}])
def test_parallel_comparison_equals_serial(here: Path, differing: set[int]) -> None:
    """The expert's parallel comparison of several files says what its serial one says."""
    references = make_pairs(here, differing)
    serial = expert(parallel=False).compare(references)
    parallel = expert(parallel=True).compare(references)
    assert set(parallel) >= set(names())
    assert parallel == serial
    assert parallel["Bit-reproducible"] is (not differing)
    for number, name in enumerate(names()):
        assert parallel[name]["Bit-reproducible"] is (number not in differing)
        assert set(parallel[name]["Common fields differences"]) == set(samples.FA_FIELDS)


def test_unreadable_file_raises_what_the_serial_run_raises(here: Path) -> None:
    """A file that is no field file comes out as the same error in parallel and in serial."""
    references = make_pairs(here, set())
    (here / names()[2]).write_text("not a field file")
    with pytest.raises(Exception) as serial:  # whatever epygram raises
        expert(parallel=False).compare(references)
    with pytest.raises(type(serial.value)) as parallel:
        expert(parallel=True).compare(references)
    assert type(parallel.value) is type(serial.value)
    assert parallel.value.args == serial.value.args


def test_its_worker_is_chosen_for_its_instructions() -> None:
    """Among the workers of every client, a pair of files to compare chooses ial-expertise's own."""
    worker = footprints.proxy.worker(test="a", ref="b")
    assert type(worker) is fields.FieldComparer
