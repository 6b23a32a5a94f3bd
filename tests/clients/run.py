"""Install the project next to its real clients, in a fresh environment, and run their tests.

Only the standard library is needed. See README.md, beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ORIGINAL = "1.1.0"

#: Run in the environment: where its taylorism comes from, and whether every client is really there.
IDENTITY = """
import importlib.metadata, json, sys
import taylorism, vortex, epygram, ial_expertise, eccodes
origin = importlib.metadata.distribution("taylorism").read_text("direct_url.json")
facts = dict(
    version=importlib.metadata.version("taylorism"),
    file=taylorism.__file__,
    prefix=sys.prefix,
    url=json.loads(origin or "{}").get("url"),
)
print("identity:" + json.dumps(facts))
"""


class WrongPackage(Exception):
    """The environment does not hold the taylorism that was to be tested."""


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and what is left for pytest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--venv",
        type=Path,
        help="environment to reuse, or to make and keep (by default: one made for this run only)",
    )
    parser.add_argument(
        "--original",
        action="store_true",
        help=f"run on taylorism {ORIGINAL}, to see that a test holds there too",
    )
    return parser.parse_known_args(argv)


def install(venv: Path, original: bool) -> Path:
    """Make the environment if needed, install the project and its clients, and return its Python.

    One single command of pip, so that it cannot put another taylorism in place of the project to
    please a client: it would say that they exclude each other.
    """
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    what = f"taylorism=={ORIGINAL}" if original else str(ROOT)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", what]
    subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
    return python


def environment(home: Path) -> dict[str, str]:
    """Return the variables of the tests: no setting of the user's, and nothing written but in *home*."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TAYLORISM"))}
    places = {"HOME": str(home), "TMPDIR": str(home)}  # epygram leaves temporary files
    return dict(kept, **places, PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")


def check_identity(python: Path, original: bool, home: Path) -> str:
    """Check that the taylorism of the environment is the one to be tested, and say which it is.

    Raises
    ------
    WrongPackage
        It is of another version, comes from elsewhere than this project, lies outside of the
        environment, or one of the clients cannot be imported.
    """
    done = subprocess.run(
        [str(python), "-c", IDENTITY],
        env=environment(home),
        cwd=home,
        check=False,
        capture_output=True,  # epygram talks on stderr when imported
        text=True,
    )
    if done.returncode:
        raise WrongPackage(f"the environment is not complete:\n{done.stderr}")
    facts = json.loads(done.stdout.rpartition("identity:")[2])
    if not Path(facts["file"]).is_relative_to(facts["prefix"]):
        raise WrongPackage(f"taylorism was imported from outside of the environment: {facts}")
    if original and facts["version"] != ORIGINAL:
        raise WrongPackage(f"taylorism {ORIGINAL} was wanted: {facts}")
    if not original and not (facts["version"].startswith("2.") and facts["url"] == ROOT.as_uri()):
        raise WrongPackage(f"taylorism of {ROOT} was wanted, and was displaced: {facts}")
    return f"taylorism {facts['version']} ({facts['url'] or 'released'})"


def run_tests(python: Path, home: Path, options: list[str]) -> int:
    """Run pytest on this directory with its own configuration, and return its exit status."""
    tests = [] if any(Path(o.partition("::")[0]).exists() for o in options) else [str(HERE)]
    pytest = [str(python), "-m", "pytest", "-c", str(HERE / "pytest.ini"), *tests, *options]
    basetemp = f"--basetemp={home / 'pytest'}"
    done = subprocess.run([*pytest, basetemp], env=environment(home), cwd=HERE, check=False)
    return done.returncode


def main() -> int:
    """Install, check, test, check again."""
    asked, options = parse()
    with tempfile.TemporaryDirectory(prefix="taylorism-clients-") as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        venv = asked.venv or Path(scratch) / "venv"
        python = install(venv.resolve(), asked.original)
        print("testing", check_identity(python, asked.original, home), flush=True)
        status = run_tests(python, home, options)
        print("tested", check_identity(python, asked.original, home))
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WrongPackage as error:
        sys.exit(f"error: {error}")
