"""What a job manager requests: numbers and text, as cpus, MiB and seconds; nonsense is refused by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taylorism import BadOption
from taylorism.compat import _resources
from taylorism.compat._resources import cores, memory, runtime


@pytest.mark.parametrize(("value", "expected"), [(None, 1), (1, 1), (8, 8), ("4", 4), (2.0, 2)])
def test_cores(value, expected):
    """A whole number, one where nothing is said."""
    assert cores({"cores": value}) == expected
    assert cores({}) == 1


@pytest.mark.parametrize(
    ("value", "mib"),
    [
        (None, 0), (0, 0), (1, 1024), (0.5, 512), ("2", 2048), ("2G", 2048), ("2GiB", 2048), ("1.5 gb", 1536),
        ("512M", 512), ("1T", 1024**2), ("1024K", 1), ("1048576B", 1),
    ],
)  # fmt: skip
def test_memory(value, mib):
    """GiB, unless there is a unit."""
    assert memory({"memory": value}) == mib
    assert memory({}) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (30, 30), (0.5, 0.5), ("30", 30), ("90s", 90), ("10m", 600), ("1h30m", 5400),
        ("2 days", 172800), ("1 hour 5 minutes", 3900), ("01:30:00", 5400), ("1-00:00:01", 86401), ("0.5h", 1800),
    ],
)  # fmt: skip
def test_runtime(value, seconds):
    """Seconds, unless there is a unit; no limit where nothing is said."""
    assert runtime({"runtime": value}) == seconds
    assert runtime({}) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cores", 0), ("cores", -1), ("cores", 1.5), ("cores", "many"), ("cores", True), ("cores", math.nan),
        ("cores", math.inf), ("memory", -1), ("memory", "lots"), ("memory", "1X"), ("memory", math.nan),
        ("memory", math.inf), ("memory", ""), ("memory", [1]), ("runtime", 0), ("runtime", -5), ("runtime", "soon"),
        ("runtime", "5 fortnights"), ("runtime", math.nan), ("runtime", ""), ("runtime", "1h30"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name(key, value):
    """The message has the key, the value and what may be given."""
    with pytest.raises(BadOption, match=f"{key}=.*: give ") as caught:
        getattr(_resources, key)({key: value})
    assert repr(value) in str(caught.value)


@given(st.floats(min_value=0, max_value=1e6), st.sampled_from("KMGT"))
def test_a_unit_is_a_factor(number, unit):
    """Of 1024 from one to the next."""
    factor = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}[unit]
    assert memory({"memory": f"{number:.6f}{unit}"}) == pytest.approx(float(f"{number:.6f}") * factor)


@given(st.text(max_size=12))
@settings(max_examples=30)
def test_no_text_is_worse_than_nonsense(text):
    """Whatever stands there, it is a number or a refusal."""
    for read, key in ((cores, "cores"), (memory, "memory"), (runtime, "runtime")):
        try:
            number = read({key: text})
        except BadOption:
            continue
        assert number > 0 or (key == "memory" and number == 0)
