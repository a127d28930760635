"""What the ladder makes of a good file whose int8 max pool this x86 host computes wrong: real files of MNN's kl."""

from __future__ import annotations

import itertools
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import Artifact
from edgequant.cases.case import Case
from edgequant.cases.load import save_npz
from edgequant.jobs.host_check import HostCheck
from edgequant.judge.kernel_faults import pools_wrong
from edgequant.judge.sane import Sanity
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.mnn_version import host_mnn_version
from edgequant.models import read_model
from edgequant.models.flat import FlatFile
from edgequant.models.mnn.schema import Net, TensorDescribe
from edgequant.models.mnn.static_int8 import read_static, with_float_pools
from edgequant.progress import Progress
from edgequant.quantize.ladder import Rung
from edgequant.quantize.offline_options import OfflineOptions
from edgequant.quantize.rungs import RungMaker
from tests import generated
from tests.jobs.support import ONE_THREAD, Arrays, capture, codes, do
from tests.quantize.support import calibration_of, run_mnn

pytestmark = pytest.mark.skipif(
    not pools_wrong(platform.machine(), host_mnn_version()), reason="int8 max pools are right on this host"
)


def pooling(path: Path, pools: int) -> Path:
    """x float32 [1,3,16,16] -> conv -> max pools -> conv -> y: kl gives all of them one scale and no zero point, so
    the pools run in int8 on numbers of both signs."""
    node, weight, value = generated._node, generated._weight, generated._value
    names = ["c", *(f"p{number}" for number in range(pools))]
    return generated.save(
        path,
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            *(
                node("MaxPool", [before], [behind], kernel_shape=[2, 2], strides=[2, 2])
                for before, behind in itertools.pairwise(names)
            ),
            node("Conv", [names[-1], "v", "d"], ["y"], pads=[1, 1, 1, 1]),
        ],
        [value("x", [1, 3, 16, 16])],
        [value("y", [1, 16, 16 >> pools, 16 >> pools])],
        [weight("w", 16, 3, 3, 3), weight("b", 16), weight("v", 16, 16, 3, 3), weight("d", 16)],
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return pooling(tmp_path / "m.onnx", 1)


def pictures() -> list[Arrays]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    for number, arrays in enumerate(pictures()):
        save_npz(tmp_path / "samples" / f"{number}.npz", arrays)
    return tmp_path / "samples"


def by_kl(source: Path, folder: Path) -> tuple[Artifact, list[Arrays]]:
    """What kl makes of it, and what float MNN computes."""
    graph = read_model(source)
    (folder / "work").mkdir()
    calibration = calibration_of(folder / "calibration", graph.inputs or (), *pictures())
    options, out = OfflineOptions(method="kl"), folder / "kl.mnn"
    made = RungMaker(graph, calibration, options, out, folder / "work", folder / "logs")(Rung("mnn", "kl"))
    expected = run_mnn(folder / "work" / "float.mnn", pictures(), folder / "float")
    assert expected is not None
    return made, expected


def decibels(expected: list[Arrays], model: Path, folder: Path) -> float:
    got = run_mnn(model, pictures(), folder)
    assert got is not None
    errors = [(r["y"].astype(np.float64), g["y"] - r["y"]) for r, g in zip(expected, got, strict=True)]
    return float(min(10 * np.log10(np.sum(r**2) / np.sum(e**2)) for r, e in errors))


@pytest.mark.parametrize("pools", [1, 2])
def test_the_copy_with_float_pools_is_right_where_the_file_is_wrong(pools: int, tmp_path: Path) -> None:
    made, expected = by_kl(pooling(tmp_path / "m.onnx", pools), tmp_path)
    file = made.path
    assert len(read_static(file).max_pools) == pools
    data, left = with_float_pools(file)
    twin = tmp_path / "twin.mnn"
    twin.write_bytes(data)
    assert left == ()
    assert read_static(twin).max_pools == ()
    before = file.read_bytes()
    assert len(data) == len(before)
    assert sum(one != other for one, other in zip(data, before, strict=True)) <= 4 * pools
    assert decibels(expected, file, tmp_path / "run") < 3
    assert decibels(expected, twin, tmp_path / "run") > 25


@pytest.fixture
def host() -> Iterator[Session]:
    with open_session("local:", DeviceOptions(), ONE_THREAD, log=None, progress=Progress()) as session:
        yield session


def check(host: Session, made: Artifact, expected: list[Arrays], *, arm: bool, fallback: bool) -> Sanity:
    cases = [Case(str(number), arrays, "test") for number, arrays in enumerate(pictures())]
    known = {str(number): outputs for number, outputs in enumerate(expected)}
    work = made.path.parent / "work"
    work.mkdir(exist_ok=True)
    return HostCheck(host, cases, known.__getitem__, arm, fallback)(made, work)


@pytest.mark.parametrize("arm", [False, True])
@pytest.mark.parametrize("fallback", [False, True])
def test_which_files_are_taken_against_this_hosts_word(
    host: Session, source: Path, tmp_path: Path, arm: bool, fallback: bool
) -> None:
    made, expected = by_kl(source, tmp_path)
    file = made.path
    good = check(host, made, expected, arm=arm, fallback=fallback)
    assert good.ok == arm
    assert "this host is why" in (good.doubt or "")
    assert "cosine" in good.why
    # Garbage whatever the pools do is garbage.
    flipped = [{"y": -outputs["y"]} for outputs in expected]
    bad = check(host, made, flipped, arm=arm, fallback=fallback)
    assert (bad.ok, bad.doubt) == (False, None)
    # Without a scale in front there is no such copy, and nobody knows.
    file.write_bytes(without_scale(file, "c"))
    assert with_float_pools(file)[1] == read_static(file).max_pools != ()
    unknown = check(host, made, flipped, arm=arm, fallback=fallback)
    assert unknown.ok == (arm and not fallback)
    assert "this host may be why" in (unknown.doubt or "")
    assert not list(tmp_path.glob("*float-pools*"))  # beside the model; the work folder goes as a whole


def without_scale(file: Path, tensor: str) -> bytes:
    """The file, in which the scale of a tensor belongs to y instead."""
    data = bytearray(file.read_bytes())
    net = FlatFile(bytes(data)).root()
    names = net.strings(Net.tensor_name)
    for described in net.tables(Net.extra_tensor_describe):
        if described.number(TensorDescribe.index) == names.index(tensor):
            place = described.place(TensorDescribe.index)
            assert place is not None
            struct.pack_into("<i", data, place, names.index("y"))
    return bytes(data)


def test_on_this_host_alone_it_falls_back_and_says_who_is_to_blame(source: Path, samples: Path, tmp_path: Path) -> None:
    (run,) = do(source, tmp_path / "run", "kl", inputs=samples, calibration=str(samples)).runs
    assert run.made_as not in (None, "kl")
    assert run.steps[0]["outcome"] == "insane"
    assert "this host is why" in run.steps[0]["doubt"]
    (fell,) = [finding for finding in run.findings if finding.code == "QUANTIZE_FELL_BACK"]
    assert "max pools are wrong on x86" in fell.message
    assert "emulated:cortex-a76" in (fell.remedy or "")
    (alone,) = do(source, tmp_path / "alone", "kl", inputs=samples, calibration=str(samples), fallback=False).runs
    assert alone.error is not None
    assert alone.error.code == "QUANTIZED_MODEL_INSANE"
    assert "max pools are wrong on x86" in alone.error.message
    assert "emulated:cortex-a76" in (alone.error.hint or "")


@pytest.mark.arm64
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fallback", [True, False])
def test_an_arm_device_judges_the_file_that_was_asked_for(
    source: Path, samples: Path, tmp_path: Path, fallback: bool
) -> None:
    (run,) = do(
        source, tmp_path / "run", "kl", devices=("emulated:cortex-a76",), inputs=samples, calibration=str(samples),
        fallback=fallback,
    ).runs  # fmt: skip
    assert run.made_as == "kl"
    assert {"HOST_NO_JUDGE", "HOST_MISCOMPUTES"} <= codes(run)
    assert run.verdict == "INCONCLUSIVE"
    assert {output.verdict.value for output in run.outputs.values()} == {"PASS"}
    # And it computes what the copy does that was looked at on this host.
    file = tmp_path / "run" / "models" / (run.file or "")
    twin = tmp_path / "twin.mnn"
    twin.write_bytes(with_float_pools(file)[0])
    here, there = run_mnn(twin, pictures(), tmp_path / "twin"), capture(tmp_path / "run", run)
    assert here is not None
    for number, outputs in enumerate(here):
        np.testing.assert_allclose(there[str(number)]["y"], outputs["y"], atol=1e-4)
