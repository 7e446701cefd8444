"""The machine and the versions that figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path


def describe() -> dict[str, str]:
    """Give what is known of the machine and of everything that takes part."""
    found = {
        "processor": f"{processor()}, {os.cpu_count()} CPUs",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "disk": filesystem(Path(os.environ.get("TMPDIR", "/tmp"))),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {built()}",
    }
    for package in ("quorate", "msgspec", "rocksdict", "lmdb", "uvloop", "pysyncobj"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["etcd"] = first_line("etcd", "--version")
    found["Go"] = first_line("go", "version")
    found["C"] = first_line("gcc", "--version")
    return found


def built() -> str:
    """Say by what the interpreter was built, and when: one version may be a fifth faster in another build."""
    return f"built {' '.join(platform.python_build()[1].split()[:3])} with {platform.python_compiler()}"


def processor() -> str:
    """Give the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def filesystem(path: Path) -> str:
    """Give the kind of the file system that holds a path, and its device."""
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if path.resolve().is_relative_to(mount[1])]
    device, _, kind = max(inside, key=lambda mount: len(mount[1]))
    return f"{kind} on {device}"


def first_line(*command: str) -> str:
    """Give the first line that a program prints."""
    if shutil.which(command[0]) is None:
        return "not installed"
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
