"""Five real models on ARM64, and in the gate a generated one: emulated CPUs, a phone and a board.

All of them agree with this host.

The bands are those of `edgequant.judge.limits.device_bands`, which says what was measured.
"""

from __future__ import annotations

import os
import platform
import zipfile
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.ssh import SshDevice
from edgequant.lab.session import DeviceOptions
from edgequant.pack import WantedPack, default_cache
from edgequant.pack.cache import lock
from edgequant.pack.inputs import Inputs
from edgequant.pack.lock import WHEELS, read_lock
from edgequant.progress import Progress
from edgequant.report.model import Report, Run
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.beds.vm import ALIAS, Board, Phone
from tests.jobs.support import capture, check_numbers, codes, do, witnessed
from tests.nightly import all_but

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]

FIVE = ("enc", "erb_dec", "df_dec", "ppocr_cls", "ppocr_rec")
VERDICTS = dict.fromkeys(("conv_cnn", *FIVE), "PASS") | {"ppocr_rec": "FAIL"}
"""Of dynamic:8 with random inputs; the text recognizer finds no text in them."""
SMALL = {"ppocr_rec": {"x": (1, 3, 48, 160)}}
CPUS = ("cortex-a53", "cortex-a76", "max")


def verify(name: str, model: ModelByName, run_dir: Path, *devices: str, **more: object) -> Report:
    report = do(model(name), run_dir, "dynamic:8", devices=devices, shapes=SMALL.get(name, {}), **more)  # type: ignore[arg-type]
    access = more.get("access")
    own = isinstance(access, DeviceOptions) and access.runtime == "system"
    for run in report.runs:
        assert run.error is None, run.error
        assert run.verdict == VERDICTS[name], (run.device.uri, run.findings)
        assert run.low_memory_engaged is True, run.low_memory_why
        assert run.device.arch == "aarch64"
        check_numbers(run_dir, run)
        witnessed(run_dir, run, sent=not (run.device.emulated or own))
        check_device_error(run)
    return report


def check_device_error(run: Run) -> None:
    """Inside the band: then what is wrong on the device is what was wrong here."""
    assert run.errors.device.keys() == run.outputs.keys()
    for name, error in run.errors.device.items():
        assert error.exact or (error.sqnr_db or 0) > 20, (run.device.uri, name, error)
    assert not codes(run) & {"DEVICE_BEYOND_ROUNDING", "DEVICE_DIFFERS"}


@pytest.mark.parametrize("name", all_but("conv_cnn", of=("conv_cnn", *FIVE)))
def test_emulated(name: str, real_model: ModelByName, generated_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    model = real_model if name in FIVE else generated_model
    report = verify(name, model, run_dir, *(f"emulated:{cpu}" for cpu in CPUS))
    assert [run.device.facts["mnn_kernels"]["i8sdot"] for run in report.runs] == [False, True, True]
    assert [run.device.facts["mnn_kernels"]["i8mm"] for run in report.runs] == [False, False, True]
    assert all(run.latency_ms is None and run.device.emulated for run in report.runs)
    # Other kernels, the same integers: what differs is the order of the floating point sums around them.
    first = capture(run_dir, report.runs[0])
    for run in report.runs[1:]:
        for case, outputs in capture(run_dir, run).items():
            for output, array in outputs.items():
                error = np.linalg.norm(array.astype(np.float64) - first[case][output])
                assert error <= 0.1 * np.linalg.norm(first[case][output]), (run.device.uri, case, output)


@pytest.mark.nightly
@pytest.mark.adb
@pytest.mark.parametrize("name", FIVE)
def test_on_the_phone(name: str, phone: Phone, real_model: ModelByName, tmp_path: Path) -> None:
    (run,) = verify(name, real_model, tmp_path / "run", phone.uri).runs
    assert run.device.facts["runtime"] == "pack"
    kernels = run.device.facts["mnn_kernels"]
    assert {name for name, on in kernels.items() if on} == {"i8sdot", "fp16"}, kernels


@pytest.fixture
def board_uri(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """For a user whose ~/.ssh/config names the board, and whose caches stay where they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(platformdirs.user_cache_dir())))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "config").write_text(board.config.read_text())
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path / "home"))
    return f"ssh://{ALIAS}"


@pytest.fixture
def board_python(board: Board, board_uri: str, tmp_path: Path) -> str:
    """A Python there with MNN and NumPy, as docs/devices.md has it: a virtual environment of the board's own."""
    python = f"/home/{board.user}/mnn/bin/python"
    with SshDevice(board_uri, config_path=board.config) as device:
        device.open(Deadline(60))
        if device.run([python, "-c", "import MNN, numpy"], Deadline(120)).ok:
            return python
        # No network there and no pip: the wheels are unpacked as pip would.
        wheels = tmp_path / "wheels.zip"
        pins = read_lock()
        with lock(default_cache()):
            inputs = Inputs(default_cache() / "inputs", (), Progress())
            files = inputs.get([pins.wheel(name) for name in WHEELS], pins.suite)
        with zipfile.ZipFile(wheels, "w") as together:
            for file in files:
                with zipfile.ZipFile(file) as wheel:
                    for member in wheel.namelist():
                        if not member.endswith("/"):
                            together.writestr(member, wheel.read(member))
        home = f"/home/{board.user}"
        device.send_file(wheels, f"{home}/wheels.zip", Deadline(120))
        made = f"python3 -m venv --without-pip {home}/mnn && cd {home}/mnn/lib/python3*/site-packages && "
        made += f"python3 -m zipfile -e {home}/wheels.zip . && rm {home}/wheels.zip"
        done = device.run(["sh", "-c", made], Deadline(240))
        assert done.ok, done.stderr
    return python


@pytest.mark.nightly
@pytest.mark.ssh
@pytest.mark.parametrize("name", FIVE)
def test_on_the_board(name: str, board_uri: str, board_python: str, real_model: ModelByName, tmp_path: Path) -> None:
    """With the pack, which auto takes, and with what is installed there: the same MNN gives the same bits."""
    (packed,) = verify(name, real_model, tmp_path / "pack", board_uri).runs
    system = DeviceOptions(runtime="system", python=board_python)
    (own,) = verify(name, real_model, tmp_path / "system", board_uri, access=system).runs
    assert (packed.device.facts["runtime"], own.device.facts["runtime"]) == ("pack", "system")
    assert packed.device.mnn == own.device.mnn
    first, second = capture(tmp_path / "pack", packed), capture(tmp_path / "system", own)
    for case, outputs in first.items():
        for output, array in outputs.items():
            assert np.array_equal(array, second[case][output]), (case, output)


@pytest.mark.nightly
def test_low_precision(real_model: ModelByName, tmp_path: Path) -> None:
    """fp16 breaks a GRU on ARM alone; where the CPU has no fp16 the report says that nothing was shown."""
    options = RunOptions(threads=1, precision="low")
    devices = ("local:", "emulated:cortex-a53", "emulated:cortex-a76")
    report = do(real_model("enc"), tmp_path / "run", "dynamic:8", devices=devices, options=options)
    host, without, with_fp16 = report.runs
    # On x86 nothing is shown of fp16.
    assert host.verdict == ("MARGINAL" if platform.machine() == "x86_64" else "PASS")
    assert ("PRECISION_LOW_INEFFECTIVE" in codes(host)) is (platform.machine() == "x86_64")
    assert without.verdict == "PASS"
    (finding,) = [finding for finding in without.findings if finding.code == "PRECISION_LOW_INEFFECTIVE"]
    assert finding.severity == "warn"
    assert with_fp16.verdict == "FAIL"
    assert "PRECISION_LOW_INEFFECTIVE" not in codes(with_fp16)
    assert {"DEVICE_DIFFERS", "DEVICE_BEYOND_ROUNDING"} <= codes(with_fp16)
    assert (
        (with_fp16.errors.device["lsnr"].sqnr_db or 0) < 0 < 20 < (with_fp16.errors.quantization["lsnr"].sqnr_db or 0)
    )


@pytest.mark.nightly
def test_beyond_rounding_is_fail_though_every_limit_is_kept(real_model: ModelByName, tmp_path: Path) -> None:
    limits = ("sqnr_db>=-200", "cosine>=-1", "rel_max<=1e9")
    options = RunOptions(threads=1, precision="low")
    for more, verdict in (
        ((), "FAIL"),
        (("device_sqnr_db>=-100",), "INCONCLUSIVE"),
        (("lsnr:device_sqnr_db>=-100",), "FAIL"),
    ):
        run_dir = tmp_path / f"run{len(more)}{''.join(more)[:4]}"
        (run,) = do(
            real_model("enc"), run_dir, "dynamic:8", devices=("emulated:cortex-a76",), options=options,
            limits=(*limits, *more),
        ).runs  # fmt: skip
        assert {output.verdict.value for output in run.outputs.values()} <= {"PASS", "MARGINAL"}
        assert run.verdict == verdict, more
        found = [finding for finding in run.findings if finding.code == "DEVICE_BEYOND_ROUNDING"]
        assert bool(found) == (verdict == "FAIL")
        if more:
            assert all("lsnr" not in finding.evidence["device_sqnr_db"] for finding in found)


@pytest.mark.nightly
def test_a_matrix_with_another_mnn(real_model: ModelByName, tmp_path: Path) -> None:
    """The version a product ships with, on every emulated CPU at once."""
    access = DeviceOptions(wanted=WantedPack(mnn="3.5.0"))
    devices = ("emulated:cortex-a53", "emulated:max")
    report = do(real_model("ppocr_cls"), tmp_path / "run", "dynamic:8", devices=devices, access=access)
    for run in report.runs:
        assert run.error is None, run.error
        assert run.device.mnn == "3.5.0"
        assert "MNN_VERSION_DIFFERS" in codes(run)
