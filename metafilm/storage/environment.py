"""What a run was made with: versions, commit, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Names and values of this process and this machine, as text."""
    found = {"python": f"{platform.python_version()} on {platform.platform()}"}
    for name in ("metafilm", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = torch.__version__ if name == "torch" else "from its sources"
    if (made := commit()) is not None:
        found["commit"] = made
    found["hardware"] = f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def commit() -> str | None:
    """The commit of the sources, marked where files differ from it; None where they are no checkout."""
    if not (SOURCES / ".git").exists():
        return None
    git = ["git", "-C", str(SOURCES)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=10
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode or not head.stdout.strip():
        return None
    return head.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def processor() -> str:
    """The processor's name, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
