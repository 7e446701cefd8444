"""The wheel, installed into an empty environment, runs the README: nothing that it needs is missing from it.

The environment gets the wheel and what the wheel declares to need, by pip and without a network: the needed
packages are taken from the environment of the tests. So a dependency that is used and not declared is seen here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NEEDED = ("hatchling", "ensurepip")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"building and installing a wheel needs {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = directory.glob("*.whl")
    return built


def link_needed(wheel: Path, site: Path) -> None:
    """Let an environment have what the wheel needs, as it is installed in ours."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    needed = [
        line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    ours = Path(sysconfig.get_path("platlib"))
    for requirement in needed:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # its marker rules it out here; if not, pip says so
        for top in sorted({file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}):
            (site / top).symlink_to(ours / top)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the interpreter of an environment that holds the wheel, and what it needs."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    interpreter = str(home / "bin" / "python")
    (site,) = home.glob("lib/python*/site-packages")
    link_needed(wheel, site)
    command = [interpreter, "-m", "pip", "install", "--quiet", "--no-index", str(wheel)]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return interpreter


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "quorate/py.typed" in names
    assert [name for name in names if not re.match(r"quorate(-[\d.]+\w*\.dist-info)?/", name)] == []


def test_the_readme_runs_from_the_wheel(python: str, run: Callable[..., str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (program,) = [block for block in blocks if "asyncio.run(" in block]
    where = "import quorate; assert 'site-packages' in quorate.__file__, quorate.__file__\n"
    assert run(where + program, python) == "bar\nbar\n"


def test_the_command_is_installed(python: str) -> None:
    done = subprocess.run([Path(python).parent / "quorate", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("quorate ")
