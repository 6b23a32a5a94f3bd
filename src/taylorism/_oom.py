"""Leaf, listener: whether the kernel has killed for want of memory.

The kernel counts its kills: for the machine in ``/proc/vmstat`` (Linux 4.13), for a control group in
``memory.events`` (version 2) or ``memory.oom_control`` (version 1). Whom it killed it does not say here; but a
worker that died by SIGKILL while a count rose was hardly killed by somebody else.
"""

from __future__ import annotations

import re

from taylorism._cpus import at, cgroup_directories, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["kills"]

_COUNT = re.compile(r"^oom_kill\s+(\d+)$", re.MULTILINE)


def kills(root: str | Path = "/") -> int:
    """Return how often the kernel has killed so far, added up over all that counts; 0 where nothing does."""
    groups = cgroup_directories("memory", root)
    files = [group / name for group in groups for name in ("memory.events", "memory.oom_control")]
    texts = map(read_text, [at(root, "proc/vmstat"), *files])
    return sum(int(count) for text in texts for count in _COUNT.findall(text))
