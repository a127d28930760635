"""Links that are lost and servers that freeze in the middle of the main job: what is reported, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.devices.ssh import SshDevice
from edgequant.lab.session import DeviceOptions
from edgequant.spec import RunOptions, Variant
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.jobs.fault_cases import check_partial, check_store
from tests.jobs.support import Listener, do, once_run

URI = f"ssh://{ALIAS}"
DYNAMIC = Variant.parse("dynamic:8")


@pytest.mark.slow
@pytest.mark.ssh
def test_link_lost_in_the_middle_of_a_push(
    generated_model: ModelByName, sshd: SshServer, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    sent = 0

    def count(label: str, size: int) -> None:
        nonlocal sent
        sent += size
        if "float" in label and 2_000_000 < sent < 4_000_000:
            sshd.kill_sessions()

    model = generated_model("big_mlp")
    report = do(
        model, tmp_path / "run", "float", "weight:8", devices=(URI, "local:"), access=over_ssh,
        progress=Listener(sent=count),
    )  # fmt: skip
    cut, after, here, here8 = report.runs
    assert cut.verdict == report.verdict == "ERROR"
    assert report.verdict.exit_code == 3
    assert cut.error is not None
    assert cut.error.code == "LINK_LOST"
    assert cut.error.hint
    assert not cut.outputs
    assert (after.verdict, here.verdict, here8.verdict) == ("PASS", "PASS", "PASS")  # it connected again
    check_store(tmp_path / "work")
    report = do(model, tmp_path / "again", "float", devices=(URI,), access=over_ssh)
    assert report.verdict == "PASS"
    check_store(tmp_path / "work")


@pytest.mark.ssh
def test_link_lost_in_the_middle_of_a_run(
    generated_model: ModelByName, cases: Path, sshd: SshServer, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    with once_run(3, lambda _: sshd.kill_sessions()):
        report = do(
            generated_model("conv_cnn"), run_dir, "dynamic:8", "fp16", inputs=cases, devices=(URI,), access=over_ssh
        )
    lost, after = report.runs
    assert lost.verdict == report.verdict == "ERROR"
    assert lost.error is not None
    assert lost.error.code == "LINK_LOST"
    assert lost.error.hint
    check_partial(run_dir, lost, 3)
    assert after.verdict == "PASS"
    assert all(error.exact for error in after.errors.device.values())
    check_store(tmp_path / "work")


@pytest.mark.ssh
@pytest.mark.slow
def test_server_frozen_in_the_middle_of_a_run(
    generated_model: ModelByName, cases: Path, sshd: SshServer, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    # Enough for what is not frozen on a busy machine, and over before the connection counts as lost.
    options = RunOptions(threads=1, timeout=10)
    with once_run(3, lambda _: sshd.freeze_sessions()):
        report = do(
            generated_model("conv_cnn"), run_dir, inputs=cases, devices=(URI, "local:"), access=over_ssh,
            options=options,
        )  # fmt: skip
    frozen, here = report.runs
    assert frozen.verdict == report.verdict == "ERROR"
    assert frozen.error is not None
    assert frozen.error.code == "TIMEOUT"
    assert "within 10 s" in frozen.error.message
    assert frozen.error.hint
    check_partial(run_dir, frozen, 3)
    assert here.verdict == "PASS"


@pytest.mark.nightly
@pytest.mark.ssh
@pytest.mark.slow
def test_server_frozen_in_the_middle_of_a_push(
    generated_model: ModelByName, sshd: SshServer, over_ssh: DeviceOptions, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(SshDevice, "idle_limit", 10.0)  # it holds for what is sent before that, on a busy machine too
    frozen: list[str] = []

    def freeze(label: str, size: int) -> None:
        if not frozen:
            frozen.append(label)
            sshd.freeze_sessions()

    report = do(
        generated_model("big_mlp"), tmp_path / "run", "float", devices=(URI, "local:"), access=over_ssh,
        progress=Listener(sent=freeze),
    )  # fmt: skip
    assert "float" in frozen[0]
    stalled, here = report.runs
    assert stalled.verdict == report.verdict == "ERROR"
    assert stalled.error is not None
    assert stalled.error.code == "STALLED"
    assert stalled.error.hint
    assert here.verdict == "PASS"
    sshd.end_sessions()
    check_store(tmp_path / "work")
