"""A phone whose power, cable, adb server or disk goes in the middle: a named error or no harm, and the next run works.

"Used only when whole" is shown by what the next run sends: every byte of what was cut short, and nothing else.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.store import Store
from edgequant.jobs.verify import InterruptedRun
from edgequant.lab.runtime import deploy
from edgequant.lab.session import DeviceOptions
from edgequant.pack import Pack
from edgequant.progress import Progress
from edgequant.spec import RunOptions
from tests.beds.adb import AdbBed
from tests.beds.models import ModelByName
from tests.beds.vm import Phone
from tests.generated import big_mlp
from tests.jobs.phones import ROOT, Listening, Sent, error_of, filled, listed, packs, passed, verify
from tests.jobs.support import Listener
from tests.waiting import LONG, eventually

pytestmark = [pytest.mark.adb, pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]

LINK_CODES = ("LINK_LOST", "STALLED", "TIMEOUT")
PACK = "edgequant-pack"


class Wire(dict[str, int]):
    """Everything that was sent to a phone since it was cleared: name of the file -> bytes."""


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    it, send = Wire(), AdbDevice.send_file

    def counted(self: AdbDevice, source: Path, *where: Any, progress: Any = None) -> None:
        def count(size: int) -> None:
            it[source.name] = it.get(source.name, 0) + size
            if progress:
                progress(size)

        send(self, source, *where, progress=count)

    monkeypatch.setattr(AdbDevice, "send_file", counted)
    return it


@pytest.fixture
def small(generated_model: ModelByName) -> Path:
    return generated_model("conv_cnn")


@pytest.fixture
def ready(phone: Phone, small: Path, tmp_path: Path) -> Phone:
    """The phone with the pack and the runner on it."""
    if not packs(phone):
        passed(verify(small, tmp_path / "ready", phone))
    return phone


def forget_pack(phone: Phone, *, archive: bool = True) -> None:
    phone.shell(f"rm -rf {ROOT}/*/packs {f'{ROOT}/*/objects' if archive else ''}; sync")


def whole(phone: Phone, pack: Pack) -> None:
    (tree,) = packs(phone)
    assert tree.endswith(pack.sha256)


# --- power ---


@pytest.mark.nightly
def test_power_cut_in_the_pack_push(phone: Phone, small: Path, pack: Pack, wire: Wire, tmp_path: Path) -> None:
    forget_pack(phone)

    def cut() -> None:
        phone.shell("sync")  # half of it has to be on the disk
        phone.kill()

    error = error_of(verify(small, tmp_path / "cut", phone, Sent(push=PACK, at=cut)))
    assert error.code == "LINK_LOST", error
    assert 0 < wire[pack.archive.name] < pack.size
    phone.boot()
    assert not packs(phone)
    assert not listed(phone, "objects/*")
    (half,) = listed(phone, "incoming/*")
    # What was left for a day is nobody's any more.
    phone.shell(f"touch -t 202001010000 {half}")
    wire.clear()
    passed(verify(small, tmp_path / "again", phone))
    assert wire[pack.archive.name] == pack.size
    whole(phone, pack)
    assert not listed(phone, "incoming/*")


@pytest.mark.nightly
def test_power_cut_in_a_model_push(ready: Phone, generated_model: ModelByName, wire: Wire, tmp_path: Path) -> None:
    """What had arrived before, the pack and the runner, is not sent again; the model is, from its start."""
    phone, model = ready, generated_model("big_mlp")
    phone.shell("sync")
    before = listed(phone, "objects/*")
    error = error_of(verify(model, tmp_path / "cut", phone, Sent(push="", at=phone.kill), variant="float"))
    assert error.code == "LINK_LOST", error
    (name,) = wire
    assert 0 < wire[name] < 20_000_000
    phone.boot()
    assert listed(phone, "objects/*") == before
    wire.clear()
    run = passed(verify(model, tmp_path / "again", phone, variant="float"))
    assert wire == {name: run.options["pushed_bytes"]}
    assert run.options["pushed_bytes"] > 19_000_000


# --- the link ---


def pull(phone: Phone, seconds: float | None) -> threading.Timer:
    """Pull the cable, for so many seconds or for good."""
    phone.link(up=False)
    timer = threading.Timer(seconds or 0, phone.link, [True])
    if seconds is not None:
        timer.start()
    return timer


@pytest.mark.nightly
def test_link_down_for_ten_seconds(phone: Phone, small: Path, pack: Pack, wire: Wire, tmp_path: Path) -> None:
    """In the push and again in the run: TCP carries on where it was, or the guard has given up and said so."""
    forget_pack(phone)
    down: list[threading.Timer] = []
    sent = Sent(
        "running dynamic:8 on adb",
        lambda: down.append(pull(phone, 10)),
        push=PACK,
        at=lambda: down.append(pull(phone, 10)),
    )
    report = verify(small, tmp_path / "down", phone, sent)
    for timer in down:
        timer.join()
    (run,) = report.runs
    if run.error is None:
        assert run.verdict == "PASS"
        assert len(down) == 2
        assert wire[pack.archive.name] == pack.size
    else:
        assert run.error.code in LINK_CODES, run.error
    passed(verify(small, tmp_path / "again", phone))
    whole(phone, pack)


@pytest.mark.nightly
def test_link_down_for_good(ready: Phone, wire: Wire, tmp_path: Path) -> None:
    phone, model = ready, big_mlp(tmp_path / "big.onnx", 1290)  # one that no other test has left there
    phone.shell(f"rm -f {ROOT}/*/incoming/*")
    report = verify(model, tmp_path / "down", phone, Sent(push="", at=lambda: pull(phone, None)), variant="float")
    error = error_of(report)
    assert error.code in LINK_CODES, error
    assert error.hint
    phone.link(up=True)
    (name,) = wire
    wire.clear()
    passed(verify(model, tmp_path / "again", phone, variant="float"))
    assert list(wire) == [name]


# --- the adb server ---


@pytest.mark.nightly
def test_adb_server_killed(
    phone: Phone, adb_bed: AdbBed, small: Path, pack: Pack, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run starts another one, as every client of adb does, and connects the phone to it."""
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(adb_bed.command()))
    forget_pack(phone)

    def killed(name: str, sent: Sent, **more: Any) -> None:
        error = error_of(verify(small, tmp_path / name, phone, sent, **more))
        assert error.code == "LINK_LOST", error
        assert error.hint

    killed("push", Sent(push=PACK, at=adb_bed.kill_server))
    assert wire.pop(pack.archive.name) < pack.size
    # Long enough that it is still timing.
    sent = Sent("running dynamic:8 on adb", adb_bed.end_started, after=3)
    killed("run", sent, latency=True, options=RunOptions(threads=1, repeat=1_000_000))
    assert wire.pop(pack.archive.name) == pack.size
    passed(verify(small, tmp_path / "again", phone))
    assert pack.archive.name not in wire
    adb_bed.end_started()
    adb_bed.start_server()
    phone.ensure()
    whole(phone, pack)


# --- the disk ---


@pytest.mark.nightly
def test_full_disk(phone: Phone, small: Path, pack: Pack, wire: Wire, tmp_path: Path) -> None:
    forget_pack(phone)
    phone.shell(f"rm -f {ROOT}/*/incoming/*")

    def refused(name: str, progress: Sent | None = None) -> None:
        error = error_of(verify(small, tmp_path / name, phone, progress))
        assert error.code == "NO_SPACE", error
        assert "space" in (error.hint or "")
        # Nothing stays that keeps it full.
        assert not listed(phone, "incoming/*")
        assert not packs(phone)

    tree_mb, pack_mb = pack.unpacked_size >> 20, pack.size >> 20
    with filled(phone, 2) as fill:
        refused("full before the push")
        fill(pack_mb + 40)
        refused("room for the archive, but not for what is in it")
        assert not wire
        fill(pack_mb + tree_mb + 40)
        refused("full in the push", Sent(push=PACK, at=lambda: fill(0)))
        assert 0 < wire[pack.archive.name] < pack.size
        assert not listed(phone, "objects/*")
        fill(pack_mb + tree_mb + 40)
        refused("full while unpacking", Listening("unpacking the pack", lambda: fill(20)))
        wire.clear()
        # Freed, it goes on where it was: the archive had arrived.
        fill(tree_mb + 40)
        passed(verify(small, tmp_path / "freed", phone))
        assert pack.archive.name not in wire


@pytest.mark.parametrize(
    ("work_dir", "code"),
    [
        ("/system/edgequant", "PERMISSION_DENIED"),
        pytest.param("/proc/edgequant", "WORK_DIR_UNUSABLE", marks=pytest.mark.nightly),
        ("/system/build.prop/edgequant", "WORK_DIR_UNUSABLE"),
    ],
)
def test_directories_that_cannot_be(
    phone: Phone, small: Path, wire: Wire, tmp_path: Path, work_dir: str, code: str
) -> None:
    error = error_of(verify(small, tmp_path / "run", phone, access=DeviceOptions(work_dir=work_dir)))
    assert error.code == code, error
    assert work_dir in error.message
    assert "--work-dir" in (error.hint or "")
    assert not wire


# --- the user ---


@pytest.mark.nightly
def test_ctrl_c(phone: Phone, small: Path, pack: Pack, wire: Wire, tmp_path: Path) -> None:
    forget_pack(phone)
    phone.shell(f"rm -f {ROOT}/*/incoming/*")

    def press() -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        verify(small, tmp_path / "push", phone, Sent(push=PACK, at=press))
    assert 0 < wire[pack.archive.name] < pack.size
    assert not listed(phone, "objects/*")
    assert not listed(phone, "incoming/*")

    command = [str(Path(sys.executable).with_name("edgequant")), "verify", str(small), "--device", phone.uri]
    command += ["--threads", "1", "--no-latency", "--run-dir", str(tmp_path / "unpack")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as edgequant:
        assert edgequant.stderr is not None
        try:
            assert any("unpacking the pack" in line for line in edgequant.stderr)
            assert eventually(lambda: any(".new." in path for path in packs(phone)))
            edgequant.send_signal(signal.SIGINT)
            said = edgequant.stderr.read()
            assert edgequant.wait(4 * LONG) == 130
        finally:
            edgequant.kill()
    assert "interrupted" in said
    assert all(".new." in path for path in packs(phone))
    wire.clear()
    passed(verify(small, tmp_path / "again", phone))
    assert pack.archive.name not in wire
    whole(phone, pack)


# --- two hosts, and a tree that lost something ---


@pytest.mark.nightly
def test_two_deploy_at_once_and_a_damaged_tree(ready: Phone, pack: Pack, wire: Wire) -> None:
    phone = ready
    (tree,) = packs(phone)
    phone.shell(f"rm -rf {tree}")
    started = threading.Barrier(2)
    found: list[object] = []

    def work(progress: Progress, start: Callable[[], object]) -> None:
        try:
            with AdbDevice(phone.uri) as device:
                device.open(Deadline(60))
                store = Store(device)
                store.prepare(Deadline(60))
                start()
                python = deploy(device, store, progress).python
                found.append(device.run([*python, "-c", "import MNN; print('whole')"], Deadline(60)).stdout[-6:])
        except Exception as error:  # noqa: BLE001  (asserted below)
            found.append(error)

    threads = [threading.Thread(target=work, args=(Progress(), started.wait)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"whole\n"] * 2
    whole(phone, pack)

    largest = max(pack.files, key=lambda name: pack.files[name])
    phone.shell(f"rm -f {tree}/boot.py; head -c 1000 {tree}/{largest} > {ROOT}/part; mv {ROOT}/part {tree}/{largest}")
    found.clear()
    listener = Listener()
    work(listener, lambda: None)
    assert found == [b"whole\n"]
    assert any("damaged (boot.py)" in line for line in listener.lines)
    assert not wire
    whole(phone, pack)
