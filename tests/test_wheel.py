"""What `pip install` puts on a machine: one package, with all that help and code name, and no other beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.beds.models import ModelByName
from tests.waiting import LONG

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow]


def done(*words: str | Path, cwd: Path) -> str:
    """Run it, with nothing of this checkout on the path; what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=8 * LONG)
    assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel, and with what it needs from this one."""
    folder = tmp_path_factory.mktemp("environment")
    done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    done(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=folder)
    site = Path(done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "others.pth").write_text(sysconfig.get_path("platlib") + "\n")
    return python.parent


def test_it_is_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"edgequant"}
    assert len(names) == len(set(names))
    sources = {f"edgequant/device_scripts/{path.name}" for path in (ROOT / "device_scripts").glob("*.py")}
    sources |= {f"edgequant/configs/{name}.yaml" for name in ("gate", "verify")}
    assert sources | {"edgequant/jobs/show_case.txt"} <= set(names)


def test_it_works_where_it_is_installed(installed: Path, generated_model: ModelByName, tmp_path: Path) -> None:
    where = done(
        installed / "python", "-c",
        "import edgequant.device_scripts as d, importlib.util as u; print(d.__file__, u.find_spec('device_scripts'))",
        cwd=tmp_path,
    )  # fmt: skip
    assert where.startswith(str(installed.parent))
    assert where.split()[1] == "None"
    command = str(installed / "edgequant")
    assert "verify" in done(command, "--help", cwd=tmp_path)
    spec = tmp_path / "release.yaml"
    spec.write_text(done(command, "verify", "--spec-example", cwd=tmp_path))
    assert spec.read_text() == (ROOT / "configs" / "verify.yaml").read_text()
    # The pushed runner is made of the installed files, and starts.
    done(command, "verify", str(generated_model("conv_cnn")), "--device", "local:", "--no-latency", cwd=tmp_path)
