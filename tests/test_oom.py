"""Kills for want of memory, as the kernel counts them: small trees of files."""

from __future__ import annotations

from taylorism import _oom


def write(root, **files):
    """Write files below a root; ``__`` in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_all_counts_are_added_up(tmp_path):
    """That of the machine, and those of the control group and its parents, version 2."""
    write(
        tmp_path,
        proc__vmstat="pgfault 12\noom_kill 3\nnr_dirty 1\n",
        proc__self__cgroup="0::/a/b\n",
        proc__self__mountinfo="30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    )
    for group, kills in (("a", 4), ("a/b", 5)):
        directory = tmp_path / "sys/fs/cgroup" / group
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.events").write_text(f"low 0\nhigh 0\noom 9\noom_kill {kills}\noom_group_kill 7\n")
    assert _oom.kills(tmp_path) == 3 + 4 + 5


def test_the_first_version_has_a_file_of_its_own(tmp_path):
    """``memory.oom_control``."""
    write(
        tmp_path,
        proc__self__cgroup="4:memory:/job\n",
        proc__self__mountinfo="30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    )
    directory = tmp_path / "sys/fs/cgroup/memory/job"
    directory.mkdir(parents=True)
    (directory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert _oom.kills(tmp_path) == 2


def test_where_nobody_counts_there_are_none(tmp_path):
    """macOS, an old kernel, a container that hides all."""
    write(tmp_path, proc__vmstat="nothing of the kind")
    assert _oom.kills(tmp_path) == 0 == _oom.kills(tmp_path / "nowhere")


def test_here_it_is_a_number():
    """Whatever it is."""
    assert _oom.kills() >= 0
