"""Algo components with their workers, as a Vortex user writes them (worlds: main and worker)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import footprints
from vortex.algo.components import ParaBlindRun, ParaExpresso, TaylorRun
from vortex.tools.parallelism import TaylorVortexWorker, VortexWorkerBlindRun


class LoopWorker(TaylorVortexWorker):
    """Fetch the input of its number if there is one, say hello, then do what it is told."""

    _footprint = dict(
        attr=dict(
            kind=dict(values=["clientloop"]),
            number=dict(type=int),
            what=dict(values=["square", "spell", "delay", "fail", "fail_late", "wait"]),
        )
    )

    def vortex_task(self, **kwargs: Any) -> Any:
        """Run one task in the worker's process."""
        for section in self.context.sequence.inputs():
            if section.rh.container.localpath() == f"in{self.number}.txt":
                section.get()
        print(f"hello from number {self.number}")
        return getattr(self, self.what)()

    def square(self) -> dict[str, Any]:
        """Succeed."""
        return dict(rc=True, square=self.number**2, pid=os.getpid(), slot=self.scheduler_ticket)

    def spell(self) -> str:
        """Succeed with something that is no dict: Vortex wraps it."""
        return f"number {self.number}"

    def delay(self) -> dict[str, Any]:
        """Fail in the delayed manner: the exception is the return code."""
        return dict(rc=OSError("disk full", self.number))

    def fail(self) -> None:
        """Fail at once."""
        raise ArithmeticError("unlucky number", self.number)

    def fail_late(self) -> None:
        """Fail once another worker is in the middle of its task."""
        while not list(Path().glob("waiting*")):
            self.system.sleep(0.02)
        self.fail()

    def wait(self) -> None:
        """Write down its pid, then sleep until somebody stops the job."""
        partial = Path(f"partial{self.number}")
        partial.write_text(str(os.getpid()))
        try:
            partial.rename(f"waiting{self.number}")  # whole at once for who watches
            self.system.sleep(60)
        finally:
            Path(f"cleaned{self.number}").touch()


class Loop(TaylorRun):
    """Give one set of instructions at a time to a Boss that already works."""

    _footprint = dict(
        attr=dict(
            kind=dict(values=["clientloop"]),
            numbers=dict(type=footprints.FPList),
            what=dict(type=footprints.FPList),
        )
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[Any, dict[str, Any]]] = []
        self.failure: BaseException | None = None

    def execute(self, rh: Any, opts: dict[str, Any]) -> None:
        """Run every number."""
        self._default_pre_execute(rh, opts)
        common = self._default_common_instructions(rh, opts)
        for number, what in zip(self.numbers, self.what, strict=True):
            self._add_instructions(common, dict(number=[number], what=[what]))
        self._default_post_execute(rh, opts)

    def _default_rc_action(self, rh: Any, opts: dict[str, Any], report: Any, rc: Any) -> None:
        super()._default_rc_action(rh, opts, report, rc)
        self.seen.append((rc, report["report"]))

    def fail_execute(self, e: BaseException, rh: Any, kw: dict[str, Any]) -> None:
        """Note what Vortex hands over when the execution fails."""
        self.failure = e


class ProgramWorker(VortexWorkerBlindRun):
    """Run the program of the component once, with its output in a file of its number."""

    _footprint = dict(
        attr=dict(
            kind=dict(values=["clientblind", "clientexpresso"]),
            number=dict(type=int),
            delayed=dict(type=bool, optional=True, default=False),
        )
    )

    def vortex_task(self, **kwargs: Any) -> dict[str, Any]:
        """Spawn the program, bound to the cpu of this worker's slot when a taskset is asked for."""
        report = dict(rc=True, slot=self.scheduler_ticket, number=self.number)
        self.progenvdelta["CLIENT_NUMBER"] = str(self.number)
        if self.delayed:
            return dict(self.delayed_error_local_spawn(f"out{self.number}", report))
        self.local_spawn(f"out{self.number}")
        return report


class _Programs:
    """The sequence that both components below share."""

    def execute(self: Any, rh: Any, opts: dict[str, Any]) -> None:
        """Run the program once for each number, then note the reports."""
        self._default_pre_execute(rh, opts)
        common = self._default_common_instructions(rh, opts)
        common["delayed"] = self.delayed
        self._add_instructions(common, dict(number=list(self.numbers)))
        self._default_post_execute(rh, opts)

    def _default_rc_action(self: Any, rh: Any, opts: dict[str, Any], report: Any, rc: Any) -> None:
        self.seen = [*getattr(self, "seen", []), (rc, report["report"])]


_PROGRAM_ATTRIBUTES = dict(
    numbers=dict(type=footprints.FPList),
    delayed=dict(type=bool, optional=True, default=False),
)


class BlindPrograms(_Programs, ParaBlindRun):
    """Run a small program several times at once."""

    _footprint = dict(attr=dict(kind=dict(values=["clientblind"]), **_PROGRAM_ATTRIBUTES))


class ScriptPrograms(_Programs, ParaExpresso):
    """Run a small script, through its interpreter, several times at once."""

    _footprint = dict(attr=dict(kind=dict(values=["clientexpresso"]), **_PROGRAM_ATTRIBUTES))
