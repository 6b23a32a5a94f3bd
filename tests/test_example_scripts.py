"""The scripts in `examples/`: each runs, prints what is known, and notices what is not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from ground import Ground

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("statsmodels") is None,
    reason="the measurements come with statsmodels: pip install '.[examples]'",
)

SCRIPTS = Path(__file__).resolve().parent.parent / "examples"
#: seconds: a good second to load statsmodels, three where a spawned listener and its workers load it again
TIME = 50

#: what each prints at its end
LAST_LINES = {
    "shapes_of_series.py": "sunspots come every 11 years, and summer every year.",
    "nile_drop.py": "By chance, that happens less than once in 10000 series: it was no chance.",
    "el_nino_years.py": "    1991-92  +0.9 K",
    "small_families.py": "    2001  Iran, Islamic Rep.",
    "nile_steps.py": "The best score is the lowest: the flow of the Nile has one step, after 1898.",
    "sunspot_period.py": "Since 1700, sunspots have come every 11.0 years.",
    "engel_in_cells.py": "The law of Engel: who has more spends a smaller share of it on food.",
    "longley_logs.py": "Each year, 1829.15 thousand more were employed, as the NIST has certified.",
    "sea_by_month.py": "The sea off Peru is warmest in March, and coldest in September.",
}
#: for each, a piece of what is known, and something wrong to put in its place
FALSE = {
    "shapes_of_series.py": ('("step", 1898, 0)', '("step", 1897, 0)'),
    "nile_drop.py": ("!= 1898", "!= 1897"),
    "el_nino_years.py": ('"1982-83"', '"1981-82"'),
    "small_families.py": ('"Japan": 1974', '"Japan": 1975'),
    "nile_steps.py": ("KNOWN = [1898]", "KNOWN = [1897]"),
    "sunspot_period.py": ("KNOWN, TOLERANCE = 11.0", "KNOWN, TOLERANCE = 11.2"),
    "engel_in_cells.py": ("slope - 0.4852", "slope - 0.4855"),
    "longley_logs.py": ("1829.15146461355", "1829.15"),
    "sea_by_month.py": ('"MAR", "SEP"', '"APR", "SEP"'),
}
#: how many workers fail in it, as they should; each is announced on the standard error
FAILING = {"small_families.py": 9, "nile_steps.py": 1, "longley_logs.py": 1, "sea_by_month.py": 1}


@pytest.fixture(scope="module", autouse=True)
def ground() -> Iterator[Ground]:
    """Import statsmodels once for all scripts."""
    ground = Ground("statsmodels.datasets", "taylorism.util", TAYLORISM_START_METHOD="fork", OMP_NUM_THREADS="1")
    yield ground
    ground.close()


@lru_cache
def finished(name: str, ground: Ground) -> subprocess.CompletedProcess[str]:
    """Run the script of this name, once for all tests that look at what it printed."""
    with tempfile.TemporaryDirectory() as directory:
        done = ground.run(SCRIPTS / name, Path(directory), TIME)
        assert os.listdir(directory) == []
    return done


def check_end(done: subprocess.CompletedProcess[str], name: str) -> None:
    """Check that the script of this name succeeded, and said on the standard error what it should."""
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Instructions of guilty worker") == FAILING.get(name, 0)
    assert name in FAILING or done.stderr == ""


def test_each_script_is_tested() -> None:
    """A script that is added to the directory must be added here."""
    assert FAILING.keys() < LAST_LINES.keys()
    assert {path.name for path in SCRIPTS.glob("*.py")} == set(LAST_LINES) == set(FALSE)


@pytest.mark.parametrize("name", LAST_LINES)
def test_a_script_prints_what_is_known(name: str, ground: Ground) -> None:
    """It succeeds, announces the failures that are expected alone, and ends with what a person recognises."""
    done = finished(name, ground)
    check_end(done, name)
    assert done.stdout.splitlines()[-1] == LAST_LINES[name]


@pytest.mark.parametrize(
    ("name", "start_method"), [(name, "spawn") for name in list(LAST_LINES)[:3]] + [("nile_steps.py", "fork")]
)
def test_a_script_runs_as_a_user_runs_it(name: str, start_method: str, tmp_path: Path) -> None:
    """In an interpreter of its own it prints the same, where its listener is spawned and where it is forked."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / name)],
        cwd=tmp_path,
        env={**os.environ, "TAYLORISM_START_METHOD": start_method, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIME,
        check=False,
    )
    check_end(done, name)
    assert done.stdout.splitlines()[-1] == LAST_LINES[name]


@pytest.mark.parametrize("name", FALSE)
def test_a_script_notices_what_is_not_as_known(name: str, tmp_path: Path, ground: Ground) -> None:
    """With something false in the place of what is known, it fails."""
    true, false = FALSE[name]
    text = (SCRIPTS / name).read_text(encoding="utf-8")
    assert text.count(true) == 1
    altered = tmp_path / name
    altered.write_text(text.replace(true, false), encoding="utf-8")
    done = ground.run(altered, tmp_path, TIME)
    assert done.returncode == 1
    assert done.stderr


def test_the_shapes_are_printed_in_the_manner_of_batch_main(ground: Ground) -> None:
    """Each of the four series has its block, in whatever order they came."""
    out = finished("shapes_of_series.py", ground).stdout
    blocks = re.findall(
        r"^(=+)\nWORKER NAME: (\w+)\n(-+)\n(.*) \(\d+% of the variance\)$", out, re.MULTILINE
    )
    assert {name: text for _, name, _, text in blocks} == {
        "co2": "a trend of +1.33 a year",
        "nile": "a step from 1098 to 850 after 1898",
        "sunspots": "a cycle of 11.00 years",
        "elnino": "a cycle of 1.00 years",
    }


def test_the_nile_is_given_more_work_while_it_runs(ground: Ground) -> None:
    """Interim reports are printed while work is left, then the final one with all batches."""
    lines = finished("nile_drop.py", ground).stdout.splitlines()
    told = [re.fullmatch(r"interim: (\d+) batches done, (\d+) ordered, 3 more", x) for x in lines]
    interim = [(int(match[1]), int(match[2])) for match in told if match]
    assert [ordered for _, ordered in interim] == [4, 7, 10, 13]
    assert all(done <= ordered for done, ordered in interim)
    assert "finished: 16 batches done" in lines
    assert "After 1898, the flow dropped from 1098 to 850 (1e8 m3 a year)." in lines


def test_the_great_el_nino_years_come_first(ground: Ground) -> None:
    """All anomalies agree with the serial calculation, and the two great seasons lead the list."""
    lines = finished("el_nino_years.py", ground).stdout.splitlines()
    assert lines[0] == "732 anomalies, each the same as in the serial calculation."
    assert lines[2:4] == ["    1997-98  +3.3 K", "    1982-83  +2.6 K"]


def test_all_families_are_counted_whatever_happens(ground: Ground) -> None:
    """210 answers and nine errors; who was killed once has an answer."""
    lines = finished("small_families.py", ground).stdout.splitlines()
    assert lines[0] == "finished: 210 countries and regions, 9 without an answer."
    assert "    LookupError: no figures of Monaco, at 2 trials" in lines
    assert "The worker of Japan was killed, and took 2 trials." in lines
    assert "    1974  Japan" in lines


def test_the_worker_without_end_has_its_second(ground: Ground) -> None:
    """And the others have their answers."""
    lines = finished("nile_steps.py", ground).stdout.splitlines()
    assert lines[0] == "99 ways to lay 1: best after 1898; score 977.1"
    assert lines[3] == "171,200,862,756 ways to lay 8: WorkerTimeout after 1 s"


def test_the_period_comes_closer_and_closer(ground: Ground) -> None:
    """Workers were added to the first ten, until the steps were small enough."""
    lines = finished("sunspot_period.py", ground).stdout.splitlines()
    match = re.fullmatch(r"(\d+) workers have looked; the last steps were of (0\.\d+) years\.", lines[-2])
    assert match and int(match[1]) >= 12 and float(match[2]) <= 0.001


def test_what_was_ordered_by_mistake_is_cancelled(ground: Ground) -> None:
    """One that runs and one that may, by name and by id; the other four are done."""
    lines = finished("engel_in_cells.py", ground).stdout.splitlines()
    assert "cancelled: ['seed 1', 4]" in lines
    done = next(line for line in lines if line.startswith("done "))  # in the order in which they ended
    count, names = done.split(None, 2)[1:]
    assert count == "4" and sorted(names.split(", ")) == ["seed 2", "seed 3", "seed 4", "seed 6"]


def test_the_logs_of_longley_are_shown(ground: Ground) -> None:
    """Those of all three, the programs that they started included; the failed one has two trials."""
    out = finished("longley_logs.py", ground).stdout
    assert re.findall(r"^--- (.*)\.out$", out, re.MULTILINE) == [
        "QR, double",
        "normal equations, double",
        "normal equations, single",
    ]
    assert out.count(os.uname().sysname) == 4 and out.count("numbers of 4 bytes") == 2
    assert "--- normal equations, single has failed: Matrix is not positive definite" in out


def test_the_sea_is_measured_by_commands_and_by_functions(ground: Ground) -> None:
    """Both agree, and the command says what is wrong with the damaged file."""
    lines = finished("sea_by_month.py", ground).stdout.splitlines()
    assert lines[0] == "12 months, the same mean by command and by function."
    assert lines[1] == "JUN has failed, status 2: JUN.txt: line 62: cold"
