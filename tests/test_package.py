"""`import edgequant`: what it offers, and what that looks like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgequant
from edgequant.jobs.inspect import inspect
from tests.beds.models import ModelByName

QUICK = edgequant.RunOptions(threads=1)


def test_what_there_is_is_shown() -> None:
    assert dir(edgequant) == sorted(edgequant.__all__)
    assert {"verify", "quantize", "run", "inspect", "judge", "open_run"} <= set(dir(edgequant))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgequant.nothing  # noqa: B018


@pytest.mark.parametrize("name", [name for name in edgequant.__all__ if name != "__version__"])
def test_each_is_there(name: str) -> None:
    assert callable(getattr(edgequant, name))


def test_importing_it_loads_nothing() -> None:
    code = "import sys, edgequant; dir(edgequant); print({'numpy', 'typer', 'pydantic'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_verify_begins_before_it_loads_what_it_needs_later() -> None:
    later = {"edgequant.judge.run", "edgequant.jobs.prepare", "edgequant.report.model", "edgequant.quantize.ladder",
             "edgequant.quantize.recipe", "edgequant.quantize.search.auto", "edgequant.pack.build",
             "yaml", "psutil", "paramiko"}  # fmt: skip
    code = f"import sys, edgequant.cli.verify, edgequant.jobs.verify; print(sorted({later} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize(("name", "ours"), [("OPENBLAS_NUM_THREADS", "1"), ("PYDANTIC_DISABLE_PLUGINS", "__all__")])
def test_what_keeps_libraries_quiet_is_for_us_not_for_a_users_own_code(name: str, ours: str) -> None:
    code = (
        f"import os; from edgequant import variables; name = {name!r}; before = os.environ.get(name)\n"
        "variables.set_ours(); print(os.environ[name], variables.environment_as_found().get(name), before)"
    )
    environment = {key: value for key, value in os.environ.items() if key != name}
    for given, said in ({}, f"{ours} None None\n"), ({name: "3"}, "3 3 3\n"):
        found = subprocess.check_output([sys.executable, "-c", code], text=True, env={**environment, **given})
        assert found == said


def test_a_job_and_the_room_of_its_name(generated_model: ModelByName, tmp_path: Path) -> None:
    """Importing the room, as every job does, does not take the job away."""
    import edgequant.quantize.convert as convert

    assert edgequant.quantize.convert is convert  # type: ignore[attr-defined]
    request = edgequant.Request(
        generated_model("conv_cnn"),
        variants="dynamic:8",
        options=QUICK,
        run_dir=tmp_path / "run",  # type: ignore[arg-type]
    )
    done = edgequant.quantize(request, tmp_path / "q.mnn")
    assert done.written
    assert repr(done.report) == f"<Report PASS: 1 run, model {request.model.name}>"
    case = tmp_path / "case.npz"
    np.savez(case, x=np.zeros((1, 3, 32, 32), np.float32))
    found = edgequant.run(edgequant.Request(tmp_path / "q.mnn", inputs=case, options=QUICK, latency=False))
    assert list(found.outputs) == ["case"]
    with pytest.raises(edgequant.EdgequantError, match="one device, not 2"):
        edgequant.run(edgequant.Request(tmp_path / "q.mnn", devices=("local:", "ssh://board")))


def test_what_is_found_has_a_short_form(real_model: ModelByName) -> None:
    found = inspect(real_model("enc"))
    assert repr(found).startswith("<Inspection of enc.onnx: ")
    assert "worth trying dynamic:8, " in repr(found)
    assert len(repr(found)) < 200


def test_the_runner_is_taken_from_inside_the_package() -> None:
    """In a checkout the folder at the top could be imported as well; a wheel has none, and twice it would be two."""
    root = Path(edgequant.__file__).parent
    sources = [path for path in root.rglob("*.py") if "device_scripts" not in path.parts]
    assert len(sources) > 200
    wrong = re.compile(r"^\s*(from|import) device_scripts\b", re.MULTILINE)
    assert not [path.name for path in sources if wrong.search(path.read_text("utf-8"))]
