"""quantize and run never write over what they were given."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.errors import InputError
from edgequant.jobs import quantize as quantizing
from edgequant.jobs.overwriting import refuse_overwriting
from edgequant.jobs.quantize import quantize
from edgequant.jobs.run import run_once
from edgequant.lab.session import DeviceOptions
from edgequant.models import read_model
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.spec import Limit, RunOptions, Variant
from tests import generated
from tests.beds.models import ModelByName


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "q.mnn").write_bytes(b"model")
    (tmp_path / "a.npz").write_bytes(b"case")
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "a.npz").write_bytes(b"case")
    (tmp_path / "mnn").mkdir()
    (tmp_path / "mnn" / "input.json").write_text("{}")
    (tmp_path / "link").symlink_to("cases")
    (tmp_path / "link.mnn").symlink_to("q.mnn")
    os.link(tmp_path / "q.mnn", tmp_path / "hard.mnn")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "b.npz").symlink_to("../b.npz")
    (tmp_path / "b.npz").touch()
    (tmp_path / "free").mkdir()
    socket.socket(socket.AF_UNIX).bind(str(tmp_path / "socket"))
    return tmp_path


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("q.mnn", None),
        ("link.mnn", None),
        ("hard.mnn", None),
        ("cases/../q.mnn", None),
        ("socket", None),
        ("a.npz", "a.npz"),
        ("cases", "cases"),
        ("cases/a.npz", "cases"),
        ("cases/new.npz", "cases"),
        ("link/new.npz", "cases"),
        ("cases", "link"),
        (".", "a.npz"),
        (".", "linked"),
        ("mnn/out.npz", "mnn/input.json"),
        ("mnn", "mnn"),
    ],
)
def test_what_was_given_is_never_the_output(place: Path, output: str, inputs: str | None) -> None:
    with pytest.raises(InputError) as caught:
        refuse_overwriting(place / output, place / "q.mnn", "the model", None if inputs is None else place / inputs)
    assert caught.value.code == "OUTPUT_INVALID"


@pytest.mark.parametrize(
    ("output", "inputs"),
    [("new.npz", "cases"), ("free", "cases"), ("free", "a.npz"), (".", "cases/b.npz"), ("b.npz", "a.npz"), ("x", None)],
)
def test_other_places_may_be(place: Path, output: str, inputs: str | None) -> None:
    refuse_overwriting(place / output, place / "q.mnn", "the model", None if inputs is None else place / inputs)


@pytest.mark.parametrize("output", ["model.mnn", "case.npz"])
def test_run_refuses_before_it_runs(
    generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path, output: str
) -> None:
    model, case = tmp_path / "model.mnn", tmp_path / "case.npz"
    model.write_bytes(as_mnn(generated_model("conv_cnn")).read_bytes())
    np.savez(case, x=np.zeros((1, 3, 32, 32), np.float32))
    before = model.read_bytes(), case.read_bytes()
    with pytest.raises(InputError) as caught:
        run_once(
            model, "ssh://nobody.invalid", case, {}, RunOptions(), DeviceOptions(), Progress(), output=tmp_path / output
        )
    assert caught.value.code == "OUTPUT_INVALID"
    assert (model.read_bytes(), case.read_bytes()) == before


def external(generated_model: ModelByName, folder: Path) -> Path:
    """A model that keeps its weights in a file of their own."""
    import onnx

    path = folder / "m.onnx"
    onnx.save_model(
        onnx.load(generated_model("conv_cnn")), path, save_as_external_data=True, location="w.data", size_threshold=0
    )
    assert read_model(path).external_files == (folder / "w.data",)
    return path


@pytest.mark.parametrize("output", ["m.onnx", "w.data", "case.npz", "ref.npz", "refs/x.mnn", "socket"])
def test_quantize_refuses_before_it_works(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    model = external(generated_model, tmp_path)
    for name in ("case.npz", "ref.npz"):
        (tmp_path / name).write_bytes(b"given")
    (tmp_path / "refs").mkdir()
    socket.socket(socket.AF_UNIX).bind(str(tmp_path / "socket"))
    monkeypatch.setattr(quantizing, "verify", lambda *_, **__: pytest.fail("it has begun"))
    reference = tmp_path / ("refs" if output.startswith("refs") else "ref.npz")
    with pytest.raises(InputError) as caught:
        quantize(
            Request(model, devices=("local:",), inputs=tmp_path / "case.npz", reference=reference),
            tmp_path / output,
            Progress(),
        )
    assert caught.value.code == "OUTPUT_INVALID"


def test_a_file_that_is_there_is_replaced_only_by_one_that_passes(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    fails = Request(
        generated_model("argmax_ints"), devices=("local:",), variants=(Variant.parse("weight:2"),),
        limits=(Limit.parse("sqnr_db>=60"),),
        options=RunOptions(threads=1), run_dir=tmp_path / "run1",
    )  # fmt: skip
    out.write_bytes(b"good one")
    report, run_dir, written, kept = quantize(fails, out, Progress())
    assert report.verdict.exit_code == 1
    assert not written
    assert out.read_bytes() == b"good one"
    assert kept is not None
    assert kept.parent == run_dir / "models"
    assert read_model(kept).format == "mnn"


# ---- what is sane enough to be written: real runs, held against references of the test's own


NOISE = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
LOUD = np.random.default_rng(2).standard_normal((1, 64)).astype(np.float32)
QUIET, SILENT = LOUD * np.float32(1e-4), LOUD * np.float32(0)


@pytest.mark.parametrize(
    ("pairs", "written", "said"),
    [
        ([(LOUD, LOUD)], True, None),
        ([(LOUD, LOUD + 0.3 * NOISE)], True, None),  # 10 dB
        # What is left of a quiet case is error, and says nothing of the file.
        ([(LOUD, LOUD), (QUIET, -QUIET)], True, None),
        ([(LOUD, LOUD), (QUIET, SILENT)], True, None),
        ([(SILENT, SILENT)], True, None),
        ([(QUIET, SILENT)], True, None),
        ([(LOUD * 3, SILENT)], False, "0 in every case"),
        # Garbage in one case, which a mean over all of them would not show.
        ([(LOUD, LOUD)] * 5 + [(NOISE, LOUD)], False, "nothing to do"),
        ([(LOUD, LOUD)] * 5 + [(LOUD / 2, SILENT + LOUD)], True, None),
        ([(LOUD * 10, LOUD)], False, "cosine 1.0000"),
        ([(-LOUD, LOUD)], False, "nothing to do"),
        ([(SILENT, LOUD)], False, "everywhere"),
        ([(LOUD, np.where(LOUD > 1, np.nan, LOUD))], True, None),
        ([(LOUD, np.full_like(LOUD, np.nan))], False, "nothing to compare"),
    ],
)
def test_what_is_written(
    pairs: list[tuple[np.ndarray, np.ndarray]], written: bool, said: str | None, tmp_path: Path
) -> None:
    """The model multiplies by 1, so that what a case is fed is what the file puts out."""
    one = np.ones((1, 64), np.float32)
    model = generated.save(
        tmp_path / "m.onnx", [generated._node("Mul", ["x", "w"], ["y"])],
        [generated._value("x", [1, 64])], [generated._value("y", [1, 64])], [generated._const("w", one)],
    )  # fmt: skip
    for folder in ("cases", "references"):
        (tmp_path / folder).mkdir()
    for number, (got, reference) in enumerate(pairs):
        np.savez(tmp_path / "cases" / f"{number}.npz", x=got)
        np.savez(tmp_path / "references" / f"{number}.npz", y=reference.astype(np.float32))
    request = Request(
        model, variants=("float",), inputs=tmp_path / "cases", reference=tmp_path / "references",
        run_dir=tmp_path / "run", options=RunOptions(threads=1),
    )  # fmt: skip
    out = tmp_path / "out.mnn"
    report, run_dir, done, kept = quantize(request, out, Progress())
    assert (done, kept) == (written, None)
    assert out.is_file() == written
    on_disk = json.loads((run_dir / "report.json").read_text())
    found = [each for each in on_disk["runs"][0]["findings"] if each["code"] == "FILE_NOT_WRITTEN"]
    assert bool(found) == (not written)
    told = [each.message for each in report.runs[0].findings if each.code == "FILE_NOT_WRITTEN"]
    assert told == [each["message"] for each in found]
    if said is not None:
        assert said in found[0]["message"]
        assert report.verdict.exit_code != 0


@pytest.mark.parametrize("as_folder", [False, True])
def test_calibration_data_is_never_overwritten(generated_model: ModelByName, tmp_path: Path, as_folder: bool) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    np.savez(samples / "0.npz", x=np.ones((1, 3, 32, 32), np.float32))
    before = (samples / "0.npz").read_bytes()
    request = Request(
        generated_model("conv_cnn"),
        variants=("static:8",),
        calibration=str(samples if as_folder else samples / "0.npz"),
        run_dir=tmp_path / "run",
    )
    with pytest.raises(InputError) as caught:
        quantize(request, samples / "0.npz", Progress())
    assert caught.value.code == "OUTPUT_INVALID"
    assert (samples / "0.npz").read_bytes() == before
