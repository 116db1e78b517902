"""`metafilm doctor`: what this installation runs on, and what is missing."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import episodes
from episodes.datasets.miniimagenet import find_split
from episodes.datasets.omniglot import find_omniglot
from metafilm.engine import native

NEEDED, OPTIONAL = ("metafilm", "torch", "torchvision"), ("learn2learn", "timm", "wandb")


def doctor(root: Path | None) -> int:
    """Print the findings, a line each. Only names of files are looked at; kernels not yet built are built."""
    findings = list(_findings(root))
    width = max(len(title) for title, _ in findings) + 2
    for title, found in findings:
        print(f"{title + ':':{width}}{found}")
    return 0


def _findings(root: Path | None) -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in NEEDED:
        yield name, _version(name) or "not installed"
    for name in OPTIONAL:
        yield name, _version(name) or "not installed (optional)"
    model, flags = _processor()
    yield "processor", f"{model}, {os.cpu_count()} cores"
    yield "threads", f"{torch.get_num_threads()} of PyTorch (OMP_NUM_THREADS sets them)"
    yield "bfloat16", _bfloat16(flags)
    yield "gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none that PyTorch can use"
    yield from _kernels()
    folder = episodes.data_root(root)
    yield "data root", f"{folder}{'' if folder.is_dir() else ' (not there yet)'}"
    for name in episodes.DATASETS:
        yield f"  {name}", _data_set(name, folder)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> tuple[str, set[str]]:
    """Name, and the instruction sets that Linux lists."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = found.get("model name") or platform.processor() or platform.machine()
    return model, set((found.get("flags") or found.get("Features") or "").split())


def _bfloat16(flags: set[str]) -> str:
    if not flags:
        return "unknown: this system does not list its processor's instructions"
    if "amx_bf16" in flags:
        return "in hardware, with AMX: --precision bfloat16 is two to three times as fast"
    if flags & {"avx512_bf16", "bf16"}:
        return "in hardware, without AMX"
    return "not in hardware: --precision bfloat16 is slower than float32 here"


def _kernels() -> Iterator[tuple[str, str]]:
    found = native.status()
    yield "kernels", "on" if found.on else f"off: {found.why}"
    yield "  compiler", found.compiler or "none was asked for"
    if found.file is not None:
        yield "  library", f"{found.file}{'' if found.on else ' (not loaded)'}"


def _data_set(name: str, root: Path) -> str:
    """Whether it is there, by a look at the folders."""
    if name in ("omniglot", "omniglot-criteria"):
        where = find_omniglot(root)
        return f"in {where}" if where else "not there; metafilm data prepare omniglot fetches it"
    if name == "miniimagenet":
        there = [split for split in episodes.DATASETS[name].splits if find_split(root, split)]
        return f"{', '.join(there)}" if there else "not there; metafilm data prepare miniimagenet says how"
    return "generated, nothing to fetch"
