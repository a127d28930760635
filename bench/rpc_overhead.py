"""What one inference costs beyond the inference, against Apache TVM's RPC on the same loopback with the same tensors.

Ours: the wall time of one `run` request as the host's code sees it (inputs out, outputs back, checked and decoded,
memory figures included) minus the `ms` which the runner itself measured for forward and reading outputs.  The runner is
this machine's Python with MNN, started over adb (the real adbd in its namespace) and over SSH (a real sshd).

The peer: `python -m tvm.exec.rpc_server` and a client of the same TVM (a wheel from PyPI), each a process of its own.
One inference is what its documentation does: copy each input to the remote device, call the remote function with all
tensors, copy each output back with `.numpy()`.  The function is `testing.nop`, native code that does nothing, so that
the whole wall time is overhead.  `kept` keeps its tensors on the remote side from one inference to the next, the
cheapest way there is; `fresh` makes them for each inference, as TVM's tutorials do (`tvm.runtime.tensor(x, device)`).

Fair because number, shapes and type of the tensors are the same, random on both sides, over the same loopback and the
same kind of way: TVM's connection goes through `adb forward` where ours goes over adb, and through `ssh -L` where ours
goes over SSH, each to a server behind the same adbd or sshd.  That is how TVM reaches a device that is only attached by
adb, or only reachable by SSH.  `direct` is TVM's plain TCP with neither, which no phone on a cable has.  Bursts of
both alternate.  Ours does what TVM leaves out: checksums on both ends, validation, a process that is watched.

The bound, at most half, is held against the better of TVM's two ways, on the same transport.

TVM is no part of edgequant: it is installed into an environment of its own in the user's cache, the first time.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.beds import adb_bed
from bench.harness import Result, Settings, median
from bench.material import Model, quantized, ssh_server
from bench.peers import Tvm, TvmClient, free_port, listening

BOUND = 0.5
BURST = 10
MODELS = ("1kB", "enc", "ppocr_cls", "1MB")


def run(settings: Settings) -> list[Result]:
    tvm = Tvm.installed()
    models = [_model(name, settings.folder) for name in MODELS]
    with adb_bed(own_user=True) as bed:
        results = _over_adb(tvm, bed, models, settings)
    with ssh_server() as server:
        return results + _over_ssh(tvm, server, models, settings)


def _model(name: str, folder: Path) -> Model:
    if name.endswith("B"):
        return relu(name, {"1kB": 1 << 10, "1MB": 1 << 20}[name], folder)
    return quantized(name, folder)


def relu(name: str, size: int, folder: Path) -> Model:
    """A model of one operator with `size` bytes in and out."""
    import onnx
    from onnx import TensorProto, helper

    from edgequant.quantize.convert import convert
    from edgequant.spec import Variant

    shape = [1, size // 4]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    source, out = folder / f"{name}.onnx", folder / f"{name}.mnn"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), source)
    convert(source, Variant(method="float"), out, log_dir=folder)
    inputs = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    return Model(name, source, out, inputs, folder / f"{name}.npz")


def _over_ssh(tvm: Tvm, server: Any, models: list[Model], settings: Settings) -> list[Result]:
    from edgequant.devices.ssh import SshDevice

    with ExitStack() as stack:
        # A server serves one connection at a time.
        port, direct = (stack.enter_context(tvm.server([])) for _ in range(2))
        through = free_port()
        forward = ["ssh", "-N", "-F", str(server.config), "-L", f"127.0.0.1:{through}:127.0.0.1:{port}", "bed"]
        stack.enter_context(_running(forward))
        listening(through, [])
        client = stack.enter_context(tvm.client([], through, direct))
        device = SshDevice(server.uri, config_path=server.config, python=sys.executable)
        return _compare("ssh", device, str(settings.folder / "device"), client, models, settings)


def _over_adb(tvm: Tvm, bed: Any, models: list[Model], settings: Settings) -> list[Result]:
    from edgequant.devices.adb import AdbDevice

    with ExitStack() as stack:
        port, direct = (stack.enter_context(tvm.server(bed.inside())) for _ in range(2))
        through = int(bed.run_adb("forward", "tcp:0", f"tcp:{port}").stdout)
        # adb's forward listens in the namespace, where loopback is as good as here.
        client = stack.enter_context(tvm.client(bed.inside(), through, direct))
        device = AdbDevice(bed.uri, python=sys.executable)
        return _compare("adb", device, str(bed.files / "device"), client, models, settings)


def _compare(
    way: str, device: Any, place: str, client: TvmClient, models: list[Model], settings: Settings
) -> list[Result]:
    from edgequant.lab.session import DeviceOptions, Session
    from edgequant.progress import Progress
    from edgequant.spec import RunOptions

    options = DeviceOptions(work_dir=place, runtime="system")
    results = []
    with Session(device, options, RunOptions(threads=1), log=None, progress=Progress()) as session:
        session.open()
        for model in models:
            runner = session.runner()
            loaded = runner.load(session.push(model.quantized)[0], "normal")
            outputs = runner.run(loaded, model.inputs).outputs

            def ours(runner: Any = runner, loaded: Any = loaded, model: Model = model) -> float:
                took = []
                for _ in range(BURST):
                    start = time.perf_counter()
                    result = runner.run(loaded, model.inputs)
                    took.append((time.perf_counter() - start) * 1e3 - float(result.ms))
                return median(took)

            client.shape(list(model.inputs.values()), list(outputs.values()))
            results.append(_one(way, model, outputs, ours, client, settings))
            runner.unload(loaded)
    return results


def _one(
    way: str,
    model: Model,
    outputs: dict[str, np.ndarray],
    ours: Callable[[], float],
    client: TvmClient,
    settings: Settings,
) -> Result:
    sides: dict[str, Callable[[], float]] = {
        "ours": ours,
        "kept": lambda: client.burst(0, "kept", BURST),
        "fresh": lambda: client.burst(0, "fresh", BURST),
        "direct kept": lambda: client.burst(1, "kept", BURST),
        "direct fresh": lambda: client.burst(1, "fresh", BURST),
    }
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for turn in range(settings.pairs(15, 2)):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in order:
            measured[name].append(sides[name]())
    best = min(("kept", "fresh"), key=lambda name: median(measured[name]))
    size = [sum(array.nbytes for array in arrays.values()) / 1e3 for arrays in (model.inputs, outputs)]
    peer = ", ".join(f"{name} {median(measured[name]):.2f}" for name in sides if name != "ours")
    return Result(
        f"rpc_overhead {way} {model.name} /tvm",
        [a / b for a, b in zip(measured["ours"], measured[best], strict=True)],
        BOUND,
        unit="x",
        notes=f"{median(measured['ours']):.2f} ms, TVM {median(measured[best]):.2f} ms",
        more=[
            f"{len(model.inputs)} in {size[0]:.0f} kB, {len(outputs)} out {size[1]:.0f} kB; "
            f"TVM {client.version}, ms: {peer}"
        ],
        detail={"ms": measured, "best": best, "tvm": client.version},
    )


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait(20)
