"""EPyGrAM's Extractor worker on this package, in a process of its own (world: main)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_extractor_equals_serial(here: Path) -> None:
    """What the Extractor workers extract in parallel is what a serial extraction gives."""
    done = subprocess.run(
        [sys.executable, str(HERE / "usevortex_job.py")],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parallel"] == found["serial"]
    assert [len(series) for series in found["parallel"]] == [3, 3, 3, 3]
    assert len({tuple(series) for series in found["parallel"]}) == 4  # no member is another's twin
    assert "unhashable" in found["unhashable"]


def test_extractor_wants_an_older_vortex() -> None:
    """The module refuses Vortex 2: the day it no longer does, drive it without stand-ins."""
    with pytest.raises(AssertionError, match="not compatible with vortex>=2"):
        __import__("epygram.extra.usevortex")
