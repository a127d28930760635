"""What this host computes while a device computes the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgequant.archive.open import open_run
from edgequant.jobs.verify import InterruptedRun, resume
from edgequant.lab import session as session_module
from edgequant.lab.session import DeviceOptions, open_session
from edgequant.progress import Progress
from edgequant.spec import Variant
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS
from tests.jobs.support import ONE_THREAD, check_file, do
from tests.waiting import eventually

pytestmark = pytest.mark.ssh
URI = f"ssh://{ALIAS}"
DYNAMIC = Variant.parse("dynamic:8")


class Said(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Pulled(Said):
    """ctrl-C while the model is pushed: by then the host is at work."""

    @contextmanager
    def transfer(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        assert eventually(lambda: any("on this host (the quantization error)" in line for line in self.lines))
        raise KeyboardInterrupt
        yield


def test_it_is_there_before_the_device_is_judged(
    generated_model: ModelByName, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    said = Said()
    report = do(generated_model("gru"), tmp_path / "run", devices=(URI,), access=over_ssh, progress=said)
    assert report.verdict.value == "PASS"
    places = [line for line in said.lines if line.startswith("running dynamic:8")]
    assert places == [
        f"running dynamic:8 on {URI} (10 cases)", "running dynamic:8 on this host (the quantization error)"
    ]  # fmt: skip
    host = open_run(tmp_path / "run").on_host(DYNAMIC)
    assert host is not None
    assert host.normal
    assert host.moved


def test_on_shared_cores_it_waits_until_the_device_was_timed(
    generated_model: ModelByName, over_ssh: DeviceOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgequant.jobs import beside
    from edgequant.lab.probes import latency

    order: list[str] = []
    timed, taken = latency.LatencyProbe.take, beside.HostBeside._take

    def time(self: latency.LatencyProbe, taking: object) -> None:
        timed(self, taking)  # type: ignore[arg-type]
        order.append("timed")

    def take(self: beside.HostBeside) -> object:
        order.append("host")
        return taken(self)

    monkeypatch.setattr(latency.LatencyProbe, "take", time)
    monkeypatch.setattr(beside.HostBeside, "_take", take)
    do(generated_model("gru"), tmp_path / "run", devices=(URI,), access=over_ssh, latency=True)
    assert order == ["timed", "host"]


def test_stopped_meanwhile_nothing_goes_on_and_it_is_taken_up_again(
    generated_model: ModelByName, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    before = threading.active_count()
    with pytest.raises(InterruptedRun):
        do(generated_model("gru"), tmp_path / "run", devices=(URI,), access=over_ssh, progress=Pulled())
    assert eventually(lambda: threading.active_count() <= before)
    assert open_run(tmp_path / "run").on_host(DYNAMIC) is None
    report, folder = resume(tmp_path / "run")
    assert report.verdict.value == "PASS"
    check_file(folder.report, report)


@pytest.mark.parametrize("uri", ["local:", URI])
def test_another_name_of_this_machine_shares_its_cores(uri: str, over_ssh: DeviceOptions) -> None:
    with open_session(uri, over_ssh, ONE_THREAD, log=None, progress=Said()) as session:
        session.runner()
        assert session.shares_cores
        assert session.facts is not None
        away = session.facts.model_copy(update={"uptime_s": session.facts.uptime_s - 60.0})
        assert session_module._apart(away) > session_module._SAME_BOOT_SECONDS
        assert session_module._apart(session.facts.model_copy(update={"uptime_s": None})) is None
