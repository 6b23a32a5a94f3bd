"""README.md: its program prints what stands there, and its two commands are where `.ci/run` looks for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of README.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_the_program_prints_what_stands_there(
    tmp_path: Path, start_method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one program, run as a script under each start method, prints the one output and nothing else."""
    monkeypatch.setenv("TAYLORISM_START_METHOD", start_method)
    (program,), (output,) = blocks("python"), blocks("text")
    script = tmp_path / "primes.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output


def test_there_are_two_commands() -> None:
    """The script that `.ci/run` uses finds both, each a line that begins with an environment of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "readme_commands.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    commands = done.stdout.splitlines()
    assert commands == [block.rstrip("\n") for block in blocks("sh")]
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv .venv && ") for command in commands)
    assert "examples/shapes_of_series.py" in commands[0]
    assert commands[1].endswith("-m pytest")


def test_the_files_that_it_names_exist() -> None:
    """No link of the README leads nowhere."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_figure_is_missing() -> None:
    """What `benchmarks/compare.py` measures has been put in its places."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        assert "TODO" not in page.read_text(encoding="utf-8"), page.name
