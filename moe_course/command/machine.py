"""What this machine has. `moe-course doctor` asks these questions, and doctor.py judges the answers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sysconfig
import tempfile
from pathlib import Path

import moe_course
from moe_course.grading.worker.sandbox import attempts


def locked() -> dict[str, str]:
    """The versions in requirements.lock (the checkout's, or the copy in the package) by normalised name."""
    package = Path(moe_course.__file__).resolve().parent
    lock = package / "_course" / "requirements.lock"
    if not lock.is_file():
        lock = package.parent / "requirements.lock"
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def direct() -> list[str]:
    """The packages that the course requires, without extras."""
    required = importlib.metadata.requires("moe-course") or []
    return [re.split(r"[^\w.-]", line)[0].lower() for line in required if "extra ==" not in line]


def installed(name: str) -> str | None:
    """The installed version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def threads_and_cores() -> tuple[int, int]:
    """The number of PyTorch's threads, and of the cores that this process may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.get_num_threads(), cores


def gpus() -> list[tuple[str, int]]:
    """Name and bytes of memory of each CUDA device."""
    import torch

    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [(device.name, device.total_memory) for device in devices]


def sandboxes() -> list[tuple[str, str]]:
    """The path of each bwrap, and the error with which it starts, or "" if it runs."""
    return attempts()


def try_writing(folder: Path) -> str:
    """Write a file in `folder`; returns the error, or "" if there was none."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error)


def closed_home() -> tuple[Path, str] | None:
    """The first of the folders in which Jupyter keeps its files that cannot be written to, with the error; None if
    all can."""
    from jupyter_client.connect import jupyter_data_dir, jupyter_runtime_dir

    for folder in (Path(jupyter_runtime_dir()), Path(jupyter_data_dir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return folder, error.strerror or str(error)
        if refused := try_writing(folder):
            return folder, refused
    return None


def kernel_interpreter() -> str | None:
    """The program that Jupyter's kernel python3 starts, None if there is no such kernel or no Jupyter."""
    try:
        from jupyter_client.kernelspec import NoSuchKernel
        from jupyter_client.manager import KernelManager
    except ImportError:
        return None
    try:
        return KernelManager(kernel_name="python3").format_kernel_cmd()[0]
    except NoSuchKernel:
        return None


def scripts() -> str:
    """The folder of this Python's commands."""
    return sysconfig.get_path("scripts")
