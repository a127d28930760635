"""Programs that speak the protocol and say nonsense."""

from __future__ import annotations

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.errors import RunnerError
from edgequant.runner.answers import Facts, ModelInput
from edgequant.runner.client import MnnRunner
from edgequant.spec import RunOptions
from tests.runner.support import TIME, pretend
from tests.waiting import ended

ANSWERS = {
    "garbage": "os.write(1, b'MNN: some text in the middle of it\\n' * 3)",
    "damaged": "f = bytearray(b''.join(wire.encode(2, {'id': 2, 'ok': True}))); f[-1] ^= 1; os.write(1, f)",
    "another request's": "stream.write(2, {'id': 99, 'ok': True})",
    "no id": "stream.write(2, {'ok': True})",
    "no ok": "stream.write(2, {'id': 2})",
    "ok of another type": "stream.write(2, {'id': 2, 'ok': {}})",
    "error of another type": "stream.write(2, {'id': 2, 'ok': False, 'error': 'broken'})",
    "error code of another form": "stream.write(2, {'id': 2, 'ok': False, 'error': {'code': 'a b', 'message': ''}})",
    "a request": "stream.write(1, {'id': 2, 'ok': True})",
    "lying tensors": "stream.write(2, {'id': 2, 'ok': True, 'tensors': [{'name': 'y'}]})",
    "endless time": "stream.write(2, {'id': 2, 'ok': True, 'ms': 1e300})",
    "no time": "stream.write(2, {'id': 2, 'ok': True})",
    "time as text": "stream.write(2, {'id': 2, 'ok': True, 'ms': 'fast'})",
    "bad samples": "stream.write(3, {'id': 2, 'event': 'samples', 'samples': ['x']})",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_nonsense(device: LocalDevice, kind: str) -> None:
    from edgequant.runner.answers import RunAnswer, SamplesEvent

    with pretend(device, f"hello(); stream.read(); {ANSWERS[kind]}; time.sleep(600)") as session:
        pid = session.start(TIME).pid

        def work() -> None:
            header, _ = session.request(
                "run", deadline=TIME, on_event=lambda event: session.checked(SamplesEvent, event)
            )
            session.checked(RunAnswer, header)

        with pytest.raises(RunnerError) as caught:
            work()
        assert caught.value.code == "RUNNER_PROTOCOL"
        assert "devices clean local:" in str(caught.value.hint)
        assert ended(pid)


def test_facts_are_checked(device: LocalDevice) -> None:
    answer = {"id": 2, "ok": True, "facts": {"arch": "arm", "cores": -1}}
    with pretend(device, f"hello(); stream.read(); stream.write(2, {answer!r}); time.sleep(600)") as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="cores") as caught:
            MnnRunner(session, RunOptions(), uri="local:")
    assert caught.value.code == "RUNNER_PROTOCOL"
    assert Facts(arch="arm").cores is None


def test_a_size_below_nothing_is_an_open_one() -> None:
    """A model may declare it, MNN repeats it: no fault of whoever answers so."""
    found = ModelInput(name="x", dtype="float32", shape=[-3, 4], layout="NCHW")
    assert found.shape == [-1, 4]
