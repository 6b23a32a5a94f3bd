"""Vortex on this package: TaylorRun components, of the tests' and of Vortex's own (world: main)."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import footprints
import numpy as np
import psutil
import pytest
import samples
import vortex
import vortex_parts
from vortex.algo.components import DelayedAlgoComponentError
from vortex.nwp.algo.stdpost import parallel_grib_filter
from vortex.nwp.tools.grib import GRIBFilter
from vortex.tools.systems import ExecutionError

samples.prepare_epygram()

HERE = Path(__file__).parent
#: 1.1.0 sends SIGTERM twice, and so interrupts now and then the cleaning that the first one began.
ON_THE_ORIGINAL = importlib.metadata.version("taylorism") == "1.1.0"
not_on_the_original = pytest.mark.skipif(
    ON_THE_ORIGINAL,
    reason="1.1.0 waits for the end of the work: its exit joins the listener",
)
TEMPERATURES = {
    "filter_name": "temperatures",
    "fid_format": "GRIB2",
    "fields_include": [{"parameterCategory": 0, "parameterNumber": 0}],
}
UPPER_AIR = {
    "filter_name": "upper",
    "fid_format": "GRIB2",
    "fields_exclude": [{"typeOfFirstFixedSurface": 103}],
}
#: What Vortex wants to know of a gridpoint file; the geometry is one of its own list.
GRIDPOINT = dict(
    model="arome",
    date="2020010100",
    cutoff="prod",
    origin="hst",
    geometry="franmgsp",
    nativefmt="grib",
    format="grib",
)
#: Where the resources of these tests come from.
LOCAL = dict(hostname="localhost", tube="file")
#: Which messages of a sample file each filter keeps.
KEPT = {"temperatures": [0, 2, 3], "upper": [2, 3]}


@pytest.fixture
def taylorism_log_file(here: Path) -> Iterator[Path]:
    """Send the log of taylorism, that of its processes too, to a file."""
    path = here / "taylorism.log"
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("taylorism")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield path
    logger.removeHandler(handler)
    logger.setLevel(level)
    handler.close()


def loop(numbers: list[int], what: list[str] | str = "square", **options: Any) -> Any:
    """Build a Loop component that does *what* with each of *numbers*, two at a time."""
    each = [what] * len(numbers) if isinstance(what, str) else what
    component = footprints.proxy.component(
        kind="clientloop",
        engine="algo",
        numbers=footprints.FPList(numbers),
        what=footprints.FPList(each),
        ntasks=2,
        **options,
    )
    assert isinstance(component, vortex_parts.Loop)
    return component


def program(directory: Path) -> Any:
    """Make a Vortex resource of a shell program that shows its number and cpus, and fails on 7."""
    source = directory / "source.sh"
    source.write_text(
        "#!/bin/sh\n"
        'echo "number $CLIENT_NUMBER"\n'
        "grep Cpus_allowed_list /proc/self/status\n"
        'test "$CLIENT_NUMBER" != 7\n'
    )
    (handler,) = vortex.executable(
        role="Program",
        kind="script",
        language="bash",
        remote=str(source),
        local="program",
        **LOCAL,
    )
    assert handler.get()
    return handler


def programs(kind: str, numbers: list[int], **options: Any) -> Any:
    """Build a component that runs the program once for each number, two at a time."""
    how = dict(engine="blind", taskset="raw_taskset")
    if kind == "clientexpresso":
        how = dict(engine="exec", interpreter="bash")
    return footprints.proxy.component(kind=kind, numbers=footprints.FPList(numbers), ntasks=2, **how, **options)


def test_component_runs_all_its_workers(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A TaylorRun component gets every report, and shows what each worker wrote on stdout."""
    component = loop([1, 2, 3, 4, 5, 6])
    assert component.run() is True
    assert sorted(report["square"] for _, report in component.seen) == [1, 4, 9, 16, 25, 36]
    assert all(rc is True for rc, _ in component.seen)
    assert {report["slot"] for _, report in component.seen} <= {0, 1}
    assert os.getpid() not in {report["pid"] for _, report in component.seen}
    shown = capsys.readouterr().out
    assert sorted(re.findall(r"^hello from number (\d)$", shown, re.MULTILINE)) == list("123456")


def test_component_runs_again_and_again(session: Any) -> None:
    """The same session runs several components one after the other, each with a Boss of its own."""
    for numbers in ([1], [2, 3], [4, 5, 6]):
        component = loop(numbers)
        assert component.run() is True
        assert len(component.seen) == len(numbers)


def test_report_that_is_no_dict_is_wrapped(session: Any) -> None:
    """Vortex wraps a plain report and its records come along."""
    component = loop([8], "spell")
    assert component.run() is True
    ((rc, report),) = component.seen
    assert rc is True
    assert report["msg"] == "number 8"
    assert set(report) == {"msg", "context_record", "stdoe_record"}


def test_context_record_is_replayed_in_main(session: Any, here: Path) -> None:
    """What a worker fetched is known to the context of the main process afterwards."""
    for number in (1, 2):
        (here / f"source{number}").write_text(str(number))
        vortex.input(
            role="Thing",
            unknown=True,
            format="ascii",
            remote=str(here / f"source{number}"),
            local=f"in{number}.txt",
            **LOCAL,
        )
    assert {s.stage for s in session.context.sequence.inputs()} == {"load"}
    component = loop([1, 3])
    assert component.run() is True
    stages = {s.rh.container.localpath(): s.stage for s in session.context.sequence.inputs()}
    assert stages == {"in1.txt": "get", "in2.txt": "load"}
    assert list(session.context.localtracker) == ["in1.txt"]
    assert Path("in1.txt").read_text() == "1"


def test_verbose_component(session: Any, taylorism_log_file: Path) -> None:
    """Verbose: starts and reports are logged, and each worker leaves its output in a file."""
    component = loop([1, 2, 3], verbose=True)
    assert component.run() is True
    assert len(component.seen) == 3
    logged = taylorism_log_file.read_text()
    assert len(re.findall(r"^INFO Worker \S+ started\.$", logged, re.MULTILINE)) == 3
    assert len(re.findall(r"^INFO .*'square': \d", logged, re.MULTILINE)) == 3
    dumps = [path.read_text() for path in Path().glob("*_stdeo.txt")]
    assert sorted(dump.splitlines()[0] for dump in dumps) == [f"hello from number {number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("verbose", [False, True])
def test_failing_worker_raises_its_own_exception(
    session: Any, capfd: pytest.CaptureFixture[str], verbose: bool
) -> None:
    """A worker's exception comes out of the component, same class and arguments, and is dumped."""
    component = loop([1, 13, 2], ["square", "fail", "square"], verbose=verbose)
    with pytest.raises(ArithmeticError) as caught:
        component.run()
    assert type(caught.value) is ArithmeticError
    assert caught.value.args == ("unlucky number", 13)
    assert component.failure is caught.value
    assert component.seen == []
    captured = capfd.readouterr()
    assert "vortex_task" in captured.err  # the worker's traceback
    assert "('number', 13)" in captured.err  # the guilty instructions
    assert any("hello from number 13" in p.read_text() for p in Path().glob("*_stdeo.txt"))


def test_failure_stops_the_other_workers(session: Any) -> None:
    """When a worker fails, the other one is stopped in the middle of its task and cleans up."""
    component = loop([5, 13], ["wait", "fail_late"])
    with pytest.raises(ArithmeticError):
        component.run()
    pid = int(Path("waiting5").read_text())
    assert psutil.wait_procs([p for p in psutil.process_iter() if p.pid == pid], 3)[1] == []
    assert Path("cleaned5").exists() or ON_THE_ORIGINAL


def test_component_works_after_a_failure(session: Any) -> None:
    """The session goes on after a failed component."""
    with pytest.raises(ArithmeticError):
        loop([1], "fail").run()
    assert loop([1, 2]).run() is True


def test_delayed_exception(session: Any) -> None:
    """An exception given as a return code lets the others finish and is raised at the end."""
    component = loop([1, 2, 3, 4], ["square", "delay", "square", "square"])
    with pytest.raises(DelayedAlgoComponentError) as caught:
        component.run()
    (error,) = list(caught.value)
    assert type(error) is OSError
    assert error.args == ("disk full", 2)
    assert sorted(str(rc) for rc, _ in component.seen) == ["False", "True", "True", "True"]
    assert sorted(report.get("square", 0) for _, report in component.seen) == [0, 1, 9, 16]


@pytest.mark.parametrize("kind", ["clientblind", "clientexpresso"])
def test_programs_run_in_parallel(session: Any, here: Path, kind: str) -> None:
    """A program is run once for each number, with its own environment and output file."""
    component = programs(kind, [1, 2, 3, 4, 5])
    assert component.run(program(here)) is True
    assert sorted(report["number"] for _, report in component.seen) == [1, 2, 3, 4, 5]
    for number in (1, 2, 3, 4, 5):
        assert Path(f"out{number}").read_text().startswith(f"number {number}\n")


def test_slot_number_binds_the_program(session: Any, here: Path) -> None:
    """The slot of a worker, between 0 and ntasks - 1, chooses the cpu of its program."""
    component = programs("clientblind", [1, 2, 3, 4])
    assert component.run(program(here)) is True
    cpus = session.sh.cpus_ids_per_blocks(blocksize=1, topology="raw")
    for _, report in component.seen:
        assert report["slot"] in (0, 1)
        (cpu,) = cpus[report["slot"] % len(cpus)]
        text = Path(f"out{report['number']}").read_text()
        assert text.split("Cpus_allowed_list:")[1].split() == [str(cpu)]


@pytest.mark.parametrize("kind", ["clientblind", "clientexpresso"])
def test_failing_program_raises_execution_error(session: Any, here: Path, kind: str) -> None:
    """A program with a bad exit status fails the component with Vortex's own error."""
    with pytest.raises(ExecutionError):
        programs(kind, [1, 7, 2]).run(program(here))


@pytest.mark.parametrize("kind", ["clientblind", "clientexpresso"])
def test_failing_program_may_be_delayed(session: Any, here: Path, kind: str) -> None:
    """With the delayed manner the other programs run to their end first."""
    component = programs(kind, [1, 7, 2, 3], delayed=True)
    with pytest.raises(DelayedAlgoComponentError) as caught:
        component.run(program(here))
    assert [type(error) for error in caught.value] == [ExecutionError]
    assert all(Path(f"out{number}").exists() for number in (1, 7, 2, 3))
    assert len(component.seen) == 4


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_parallel_grib_filter(session: Any, processes: int) -> None:
    """Vortex's parallel filter of GRIB files keeps, bit by bit, what its serial filter keeps."""
    names = [str(samples.write_grib(Path(f"f{i}.grib"), seed=i)) for i in range(5)]
    filters = [TEMPERATURES, UPPER_AIR]
    parallel_grib_filter(
        session.context,
        names,
        [name.replace(".grib", "_{filtername:s}.grib") for name in names],
        filters=footprints.FPTuple(json.dumps(one) for one in filters),
        nthreads=processes,
    )
    serial = GRIBFilter()
    serial.add_filters(*filters)
    for name in names:
        stem = name.removesuffix(".grib")
        serial(name, stem + "_{filtername:s}.serial")
        source = samples.read_grib(Path(name))
        for kept, numbers in KEPT.items():
            got = Path(f"{stem}_{kept}.grib")
            assert got.read_bytes() == Path(f"{stem}_{kept}.serial").read_bytes()
            wanted = [source[number] for number in numbers]
            np.testing.assert_array_equal(samples.read_grib(got), wanted)


def test_parallel_grib_filter_of_a_missing_file(session: Any) -> None:
    """The filter's own error comes out when one of the files is not there."""
    samples.write_grib(Path("there.grib"), seed=1)
    with pytest.raises(OSError, match=r"absent\.grib doesn't exist"):
        parallel_grib_filter(
            session.context,
            ["there.grib", "absent.grib"],
            ["a_{filtername:s}", "b_{filtername:s}"],
            filters=footprints.FPTuple([json.dumps(TEMPERATURES)]),
            nthreads=2,
        )


def test_grib_filter_component(session: Any, here: Path) -> None:
    """Vortex's own StandaloneGRIBFilter component feeds its Boss file by file, as they come."""
    (here / "request.json").write_text(json.dumps(TEMPERATURES))
    vortex.input(
        role="GRIBFilteringRequest",
        kind="filtering_request",
        filtername="temperatures",
        model="arome",
        remote=str(here / "request.json"),
        local="request.in",
        now=True,
        **LOCAL,
    )
    for number in range(3):
        samples.write_grib(here / f"source{number}", seed=number)
        vortex.input(
            role="Gridpoint",
            kind="gridpoint",
            remote=str(here / f"source{number}"),
            local=f"gridpoint{number}.grib",
            term=number,
            now=True,
            **GRIDPOINT,
            **LOCAL,
        )
    component = footprints.proxy.component(kind="gribfilter", engine="algo", ntasks=2)
    assert component.run() is True
    for number in range(3):
        source = samples.read_grib(here / f"source{number}")
        got = samples.read_grib(Path(f"gridpoint{number}_temperatures.grib"))
        np.testing.assert_array_equal(got, [source[i] for i in KEPT["temperatures"]])


@pytest.mark.parametrize("whole_group", [True, pytest.param(False, marks=not_on_the_original)])
def test_killed_job_stops_its_workers(here: Path, whole_group: bool) -> None:
    """SIGTERM to a job, or to its group as job managers do, ends the workers, which clean up."""
    job = subprocess.Popen(
        [sys.executable, str(HERE / "vortex_job.py")],
        cwd=here,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        workers = {wait_for_pid(here / f"waiting{number}", job) for number in (1, 2)}
        family = psutil.Process(job.pid).children(recursive=True)
        (os.killpg if whole_group else os.kill)(job.pid, signal.SIGTERM)
        _, said = job.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):  # when all went well
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert "SignalInterruptError" in said
    assert job.returncode != 0
    assert {child.pid for child in family} >= workers
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    cleaned = {path.name for path in here.glob("cleaned*")}
    assert cleaned == {"cleaned1", "cleaned2"} or ON_THE_ORIGINAL
    assert not (here / "waiting3").exists()


def wait_for_pid(path: Path, job: subprocess.Popen[str]) -> int:
    """Wait until a worker of *job* has written its pid in *path*."""
    while not path.exists():
        assert job.poll() is None
        time.sleep(0.02)
    return int(path.read_text())
