"""What the host adds to one inference, over SSH on loopback and over a local pipe.

Timed: the wall time of one `run` request as the host's code sees it (inputs out, outputs back, checked and decoded)
minus the `ms` the runner itself measured for forward and reading outputs.  What is left is edgequant: framing,
checksums, transport, and reading memory figures on the device.

Fair because both runners are alive side by side on this machine with the same model and inputs, and requests
alternate.  There is no peer to hold it against, so there is no bound: the local pipe shows what SSH itself costs.
Loopback has no latency; a real network adds its round trip once per request.
"""

from __future__ import annotations

import time
from typing import Any

from bench.harness import Pairs, Result, Settings, median
from bench.material import Model, quantized, ssh_server

MODELS = ("ppocr_cls", "enc")


def run(settings: Settings) -> list[Result]:
    with ssh_server() as server:
        return [line for name in MODELS for line in _one(quantized(name, settings.folder), settings, server)]


def _one(model: Model, settings: Settings, server: Any) -> list[Result]:
    import sys

    from edgequant.devices.ssh import SshDevice
    from edgequant.lab.session import DeviceOptions, Session, open_session
    from edgequant.progress import Progress
    from edgequant.spec import RunOptions

    run_options = RunOptions(threads=1)
    place = DeviceOptions(work_dir=str(settings.folder / "device"))
    device = SshDevice(server.uri, config_path=server.config, python=sys.executable)
    remote = Session(device, place, run_options, log=None, progress=Progress())
    pairs = Pairs()
    with remote, open_session("local:", place, run_options, log=None) as local:
        remote.open()
        sides = []
        for session in (remote, local):
            runner = session.runner()
            loaded = runner.load(session.push(model.quantized)[0], "low")

            def once(runner: Any = runner, loaded: Any = loaded) -> float:
                start = time.perf_counter()
                result = runner.run(loaded, model.inputs)
                return (time.perf_counter() - start) * 1e3 - float(result.ms)

            for _ in range(5):
                once()
            sides.append(once)
        pairs.take(sides[0], sides[1], settings.pairs(300, 20))
    sent = sum(array.nbytes for array in model.inputs.values()) / 1e3
    return [
        Result(
            f"ssh_overhead {model.name}",
            pairs.ours,
            unit=" ms",
            notes=f"{sent:.0f} kB of inputs",
            detail=pairs.detail(),
        ),
        Result(
            f"ssh_overhead {model.name} /local", pairs.ratios, unit="x", notes=f"local: {median(pairs.peer):.3f} ms"
        ),
    ]
