"""A Vortex job of three long tasks, two at a time, to be killed (worlds: main and worker)."""

from __future__ import annotations

import footprints
import vortex
import vortex_parts


def main() -> None:
    """Run the job with Vortex's own signal handling, as its tasks do."""
    assert vortex_parts.Loop is not None  # imported for its footprint
    system = vortex.ticket().sh
    system.signal_intercept_on()
    component = footprints.proxy.component(
        kind="clientloop",
        engine="algo",
        numbers=footprints.FPList([1, 2, 3]),
        what=footprints.FPList(["wait"] * 3),
        ntasks=2,
    )
    component.run()


if __name__ == "__main__":
    main()
