"""The main job on a phone as bare as they come: no Python and no C library, so everything runs from the pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.lab.session import DeviceOptions
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.beds.vm import Phone
from tests.jobs.phones import ROOT, Listening, Sent, error_of, filled, packs, verify
from tests.jobs.support import check_numbers, codes, witnessed
from tests.waiting import eventually

pytestmark = [pytest.mark.adb, pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.nightly
def test_a_real_model_on_a_bare_phone(phone: Phone, real_model: ModelByName, tmp_path: Path) -> None:
    on_a_bare_phone(phone, real_model("enc"), tmp_path)


def test_a_bare_phone(phone: Phone, generated_model: ModelByName, tmp_path: Path) -> None:
    on_a_bare_phone(phone, generated_model("gru"), tmp_path)


def on_a_bare_phone(phone: Phone, model: Path, tmp_path: Path) -> None:
    """Twice: what is there by then is not sent again, and a run writes nothing there, for its disk is full."""
    phone.reset()
    assert "python" not in phone.shell("ls /system/bin")
    first = Sent()
    report = verify(model, tmp_path / "first", phone, first)
    (run,) = report.runs
    assert report.verdict == run.verdict == "PASS"
    assert run.low_memory_engaged is True, run.low_memory_why
    assert run.device.arch == "aarch64"
    check_numbers(tmp_path / "first", run)
    witnessed(tmp_path / "first", run, sent=True)
    assert run.errors.device.keys() == run.outputs.keys()
    for name, error in run.errors.device.items():
        assert (error.sqnr_db or 0) > 40, name
    assert sum(first.packs.values()) > 10e6
    assert run.options["pushed_bytes"] > 0

    case = tmp_path / "first" / "cases" / "small.npz"
    with filled(phone, 50) as fill:
        second = Listening("running dynamic:8 on adb", lambda: fill(0))
        (run,) = verify(model, tmp_path / "second", phone, second, inputs=case).runs
        assert "fill-2" in phone.shell(f"ls {ROOT}")
    assert run.verdict == "PASS"
    assert run.options["pushed_bytes"] == 0
    assert not second.packs
    assert not sum(second.bytes.values())


@pytest.mark.nightly
def test_low_precision_breaks_on_the_phone_only(phone: Phone, real_model: ModelByName, tmp_path: Path) -> None:
    options = RunOptions(threads=1, precision="low")
    (run,) = verify(real_model("enc"), tmp_path / "run", phone, options=options).runs
    assert run.verdict == "FAIL"
    assert "DEVICE_DIFFERS" in codes(run)


@pytest.mark.nightly
def test_power_cut_while_unpacking(phone: Phone, real_model: ModelByName, tmp_path: Path) -> None:
    phone.shell(f"rm -rf {ROOT}/*/packs; sync")

    def cut() -> None:
        # Half a folder has to be there, and on the disk.
        assert eventually(lambda: any(".new." in path for path in packs(phone)))
        phone.shell("sync")
        phone.kill()

    error = error_of(verify(real_model("enc"), tmp_path / "cut", phone, Sent("unpacking the pack", cut)))
    assert error.code == "LINK_LOST", error
    phone.boot()
    (left,) = packs(phone)
    assert ".new." in left
    (run,) = verify(real_model("enc"), tmp_path / "again", phone).runs
    assert run.verdict == "PASS"
    (whole,) = packs(phone)
    assert ".new." not in whole


def test_a_place_where_nothing_may_be_executed(phone: Phone, generated_model: ModelByName, tmp_path: Path) -> None:
    access = DeviceOptions(work_dir="/sdcard/edgequant")
    error = error_of(verify(generated_model("gru"), tmp_path / "run", phone, access=access))
    assert error.code == "WORK_DIR_NOEXEC", error
    assert "/sdcard/edgequant" in error.message
    phone.shell("rm -rf /sdcard/edgequant")  # it is memory


def test_power_cut_in_the_middle_of_a_run(phone: Phone, generated_model: ModelByName, tmp_path: Path) -> None:
    cut = Sent("running dynamic:8 on adb", phone.kill, after=2)
    # Long enough that it is still timing.
    options = RunOptions(threads=1, repeat=1_000_000)
    error = error_of(verify(generated_model("gru"), tmp_path / "cut", phone, cut, latency=True, options=options))
    assert error.code == "LINK_LOST", error
    phone.boot()
    (run,) = verify(generated_model("gru"), tmp_path / "again", phone).runs
    assert run.verdict == "PASS"
