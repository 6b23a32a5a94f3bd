"""The pages in `docs/`: each whole program in them prints what stands below it."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ground import Ground

import taylorism

DOCS = Path(__file__).resolve().parent.parent / "docs"
#: a program, and what it prints; pieces of programs are in `{code-block}`s, which this does not match
PROGRAM = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def needs(program: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a program that needs an extra."""
    missing = "import jobmon" in program or "from jobmon" in program
    missing = missing and importlib.util.find_spec("jobmon") is None
    return [pytest.mark.skipif(missing, reason="the extra jobmon is not there")]


def programs() -> list[object]:
    """Return the programs of all pages, each with its page and number as the name of its test."""
    return [
        pytest.param(program, output, id=f"{page.relative_to(DOCS)}-{number}", marks=needs(program))
        for page in sorted(DOCS.rglob("*.md"))
        for number, (program, output) in enumerate(PROGRAM.findall(page.read_text("utf-8")), 1)
    ]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Import what nearly all of them do; that it can be imported by a script is shown with the README."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as activated
    ground = Ground("taylorism._boss", "taylorism._listener", PATH=path)
    yield ground
    ground.close()


@pytest.mark.parametrize(("program", "output"), programs())
def test_a_program_prints_what_stands_below_it(program: str, output: str, tmp_path: Path, ground: Ground) -> None:
    """Run as a script, it succeeds and prints exactly that."""
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    done = ground.run(script, tmp_path, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output


def test_each_program_is_tested() -> None:
    """No page has a block of Python without the output that it is compared with."""
    for page in DOCS.rglob("*.md"):
        text = page.read_text("utf-8")
        assert text.count("\n```python\n") == len(PROGRAM.findall(text)), page.name
    assert len(programs()) >= 10


def test_the_reference_has_all_public_names() -> None:
    """Each name of the package has its entry."""
    text = (DOCS / "reference.md").read_text("utf-8")
    assert [name for name in taylorism.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_the_design_has_all_modules() -> None:
    """The table says the one purpose of each module that is there, and of no other."""
    table = (DOCS / "design.md").read_text("utf-8").partition("## Modules")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    source = Path(taylorism.__file__).parent
    files = [path.relative_to(source).with_suffix("") for path in source.rglob("*.py")]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files}
    assert told == modules - {"util"}  # named in the row of _shared
