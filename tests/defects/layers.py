"""Faults planted into single layers of quantized files and of devices: does a diagnosis name stage, layer and cause?

`python -m tests.defects.layers [--models FOLDER] [--part P] [--most N]` plants all of them and prints the rates, those
of models and seeds that no rule was tuned on by themselves; and how many sound twins were blamed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.archive.layers import LayerCapture
from edgequant.jobs.diagnose_layers import key_of
from edgequant.judge.diagnosis import Diagnosis
from edgequant.lab.probes.layers import once
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile
from edgequant.models.mnn.weights import Weights, read_weights
from tests.defects import layer_devices as devices
from tests.defects import layer_mechanisms as mechanisms
from tests.defects.layer_edits import CODINGS, EDITS, coded, left_float, planted
from tests.defects.layer_rarer import planted_rarer
from tests.defects.layer_subjects import Subject, breaks, broken, generated_subject, look, model_subject, this_host

__all__ = ["EDITS", "Result", "Subject", "breaks", "generated_subject", "look", "planted", "rates", "run", "this_host"]


@dataclass(frozen=True)
class Result:
    """A planted fault, and what was named."""

    subject: str
    stage: str
    fault: str
    layers: tuple[str, ...]
    named: tuple[str, ...]
    cause: str
    right_stage: bool
    right_layer: bool
    right_cause: bool
    proof: str | None


def result(
    of: Subject, stage: str, fault: str, layers: Sequence[str], found: Diagnosis, causes: Sequence[str]
) -> Result:
    """layers: any of which is right in the first place, and all of them among those that are named; none: no layer."""
    cause = "" if found.cause is None else found.cause.code
    named = found.blame.layers
    right = not layers or (named[:1] != () and named[0] in layers)
    return Result(
        of.name, stage, fault, tuple(layers), named[:5], cause, found.stage == stage, right, cause in causes,
        found.blame.proof,
    )  # fmt: skip


# ---- on this host


def run(of: Subject, host: Session, *, layers: Sequence[str] | None = None, most: int = 3) -> Iterator[Result]:
    """Plant every kind into up to `most` layers each in which it breaks something."""
    made = [each for each in read_weights(of.made) if each.kept in ("quantized", "static")]
    rng = np.random.default_rng(len(made) + sum(map(ord, of.name)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "planted.mnn"
        for fault, causes in [(name, each[1]) for name, each in (*EDITS.items(), *CODINGS.items())]:
            done = 0
            for number in rng.permutation(len(made))[:40]:
                layer = made[number]
                if done >= most or (layers is not None and layer.name not in layers):
                    continue
                if not _plant(of, layer, fault, out) or not (failing := breaks(of, out, host)):
                    continue
                done += 1
                _, found = look(of, out, host, Path(folder), failing)
                yield result(of, "quantization", fault, (key_of(layer.key),), found, causes)
        yield from _others(of, host, made, rng, Path(folder))


def _plant(of: Subject, layer: Weights, fault: str, out: Path) -> bool:
    if fault in EDITS:
        return planted(of.made, layer, EDITS[fault][0], out)
    return coded(of.made, of.plain, layer, CODINGS[fault][0], out)


def _others(
    of: Subject, host: Session, made: Sequence[Weights], rng: np.random.Generator, folder: Path
) -> Iterator[Result]:
    """Two layers at once; inputs that calibrating has not seen; a layer that nothing quantized."""
    out, first = folder / "planted.mnn", folder / "first.mnn"
    edit, causes = EDITS["scales of a quarter of the channels times 3"]
    pairs = [rng.choice(len(made), 2, replace=False) for _ in range(6)] if len(made) > 2 else []
    for a, b in pairs:
        if not planted(of.made, made[a], edit, first) or not (one := breaks(of, first, host)):
            continue
        with tempfile.NamedTemporaryFile(suffix=".mnn") as other:
            if not planted(of.made, made[b], edit, Path(other.name)) or not breaks(of, Path(other.name), host):
                continue
        again = next(each for each in read_weights(first) if each.key == made[b].key)
        if planted(first, again, edit, out) and (failing := breaks(of, out, host)):
            _, found = look(of, out, host, folder, failing)
            both = (key_of(made[a].key), key_of(made[b].key))
            told = result(of, "quantization", "two layers at once", both, found, causes)
            yield told
            del one
            break
    if any(each.kept == "static" for each in made):
        loud = of.with_inputs(8.0, host)
        if failing := breaks(loud, of.made, host):
            _, found = look(loud, of.made, host, folder, failing)
            yield result(loud, "quantization", "inputs 8 times louder", (), found, ("INPUT_UNLIKE_CALIBRATION",))
    if not made:
        return
    large = max(made, key=lambda each: each.channels * each.per_channel * each.area)
    if large.kept == "quantized" and left_float(of.made, of.plain, large, out) and not breaks(of, out, host):
        _, found = look(of, out, host, folder, [])
        told = [each.where for each in found.findings if each.code == "LAYER_NOT_QUANTIZED"]
        key = key_of(large.key)
        code = "LAYER_NOT_QUANTIZED" if told else ""
        right = told == [key]
        yield Result(
            of.name, "none", "a layer left float", (key,), tuple(filter(None, told)), code, found.stage is None, right,
            right, None,
        )  # fmt: skip


# ---- on a device

EFFECTS: dict[str, tuple[devices.Effect, tuple[str, ...]]] = {
    "a tensor one shorter": (devices.shorter, ("SHAPE_WRONG",)),
    "numbers of an earlier inference": (devices.restless, ("STALE_MEMORY",)),
    "NaN comes out": (devices.nan, ("NAN_BORN", "NAN_SWALLOWED")),
    "shifted by one": (devices.shifted, ("DATA_MOVED",)),
    "rows in another order": (devices.reordered, ("ORDER_OF_EQUALS", "DATA_MOVED")),  # the latter of what has weights
    "saturates at a third": (devices.clipped, ("INT8_SATURATION",)),
    "stuck": (devices.stuck, ("STUCK_OUTPUT",)),
    "the last four channels 0": (devices.last_channels, ("KERNEL_DIFFERS", "INT8_KERNEL_DIFFERS")),
    "half precision": (devices.halved, ("FP16_ROUNDING",)),
}
"""What a layer's kernel on the device does to what it computes."""


def run_devices(of: Subject, host: Session, far: Session, *, seed: int = 0) -> Iterator[Result]:
    made = [each for each in read_weights(of.made) if each.kept in ("quantized", "static") and not each.subgraph]
    rng = np.random.default_rng(seed + sum(map(ord, of.name)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound, _ = look(of, of.made, host, folder, [], stage=None)
        tapped = {tap.tensor: tap for tap in sound.taps if tap.here is not None and (tap.here.rms or 0) > 0}
        inner = [
            each for each in sound.layers
            if not each.subgraph and each.outputs and each.outputs[0] in tapped
            and tapped[each.outputs[0]].here.n >= 64  # type: ignore[union-attr]
        ]  # fmt: skip
        for fault, (effect, causes) in EFFECTS.items():
            if not inner:
                break
            layer = inner[int(rng.integers(len(inner)))]
            chain = devices.behind(sound, layer.outputs[0])
            tensors = chain if fault in ("numbers of an earlier inference",) else chain[:1]
            device = devices.Device(far, effect=effect, tensors=tensors, half=fault == "half precision")
            precision = "low" if fault == "half precision" else "normal"
            if fault == "half precision":  # its effect has to reach an output, where a rerun is judged by
                device.tensors = [*tensors, *(name for name in chain if name in of.floor)]
            _, found = look(of, of.made, host, folder, [], device=device, stage="device", precision=precision)  # type: ignore[arg-type]
            yield result(of, "device", fault, (layer.key,), found, causes)
        yield from _files(of, host, far, made, rng, folder)


def _files(
    of: Subject, host: Session, far: Session, made: Sequence[Weights], rng: np.random.Generator, folder: Path
) -> Iterator[Result]:
    """Kernels that compute with other weights."""
    out = folder / "device.mnn"
    rows = (
        ("scale of one channel times 1.3", {}, ("KERNEL_DIFFERS",)),
        ("scales of a quarter of the channels times 3", {}, ("KERNEL_DIFFERS",)),
        ("scales of a quarter of the channels times 3", {"low_only": True}, ("INT8_KERNEL_DIFFERS",)),
        ("scales of a quarter of the channels times 3", {"mnn": "3.1.0"}, ("OTHER_MNN",)),
        ("output clipped", {}, ("INT8_SATURATION", "KERNEL_DIFFERS")),
    )
    for fault, more, causes in rows:
        if more.get("low_only") and of.memory != "low":
            continue
        for number in rng.permutation(len(made))[:20]:
            if not planted(of.made, made[number], EDITS[fault][0], out) or not breaks(of, out, host):
                continue
            device = devices.Device(far, file=out, **more)
            _, found = look(of, of.made, host, folder, [], device=device, stage="device")
            name = f"{fault}, {'memory low alone' if more.get('low_only') else 'another MNN' if more else 'its kernel'}"
            yield result(of, "device", name, (key_of(made[number].key),), found, causes)
            break
    if of.memory == "low":
        normal = once(host, ModelFile(of.made, "normal"), of.cases)
        low = once(host, ModelFile(of.made, "low"), of.cases)
        assert isinstance(normal, dict)
        assert isinstance(low, dict)
        if broken(low, normal, dict.fromkeys(of.floor, 60.0)):
            device = devices.Device(far, memory="normal")
            _, found = look(of, of.made, host, folder, [], device=device, stage="device")
            yield result(of, "device", "memory low is ignored", (), found, ("LOW_MEMORY_NOT_ENGAGED",))


# ---- all of it

TUNED = (("conv_cnn", "dynamic:8"), ("small_cnn", "dynamic:4"), ("gru", "dynamic:8"))
HELD = (("lstm", "dynamic:8"), ("streaming", "dynamic:8"), ("small_cnn", "dynamic:8"), ("gru", "weight:8"))
REAL_TUNED = (("enc", "dynamic:8"), ("enc", "static:8"), ("ppocr_cls", "static:8"))
REAL_HELD = (
    ("erb_dec", "static:8"), ("df_dec", "dynamic:8"), ("ppocr_cls", "dynamic:8"), ("ppocr_rec", "dynamic:8"),
)  # fmt: skip


_KINDS = ("small_cnn", "conv_cnn", "gru", "lstm", "streaming", "big_mlp", "gru_reset_first")
_VARIANTS = ("dynamic:8", "dynamic:4", "weight:8", "dynamic:4,block=32")
GRID = (
    *itertools.product(_KINDS, _VARIANTS), ("small_cnn", "static:8"), ("conv_cnn", "static:8"), ("big_mlp", "static:8"),
)  # fmt: skip
"""Of generated models; and of real ones below: each by itself and on a sound device."""
WAYS = ("by itself", "on a sound device")


def sound_grid(folder: Path, host: Session, models: Path | None, only: str) -> Iterator[Subject]:
    """Every model in every variant once, with cases that no rule was tuned on."""
    real = [(each, variant) for each in sorted(models.glob("*.onnx")) for variant in _VARIANTS] if models else []
    for kind, variant in GRID:
        if only in f"{kind} {variant}":
            yield generated_subject(kind, variant, folder, host, seed=31)
    for path, variant in real:
        if only in f"{path.stem} {variant}":
            yield model_subject(path, variant, folder, host, seed=31)


def sound_twins(of: Subject, host: Session, far: Session, folder: Path) -> Iterator[tuple[Diagnosis, LayerCapture]]:
    """As it is; and on a device that computes what this host does, whatever stage is asked about."""
    capture, found = look(of, of.made, host, folder, breaks(of, of.made, host))
    yield found, capture
    capture, found = look(of, of.made, host, folder, [], device=devices.Device(far), stage="device")
    yield found, capture


def blamed(found: Diagnosis) -> bool:
    return found.cause is not None or found.blame.layers != () or any(
        each.code == "LAYER_NOT_QUANTIZED" for each in found.findings
    )  # fmt: skip


def rates(results: Sequence[Result]) -> str:
    total = max(len(results), 1)
    parts = [f"{len(results)} planted"]
    for what in ("stage", "layer", "cause"):
        right = sum(getattr(each, f"right_{what}") for each in results)
        parts.append(f"right {what} {right} ({100 * right / total:.0f} %)")
    return f"{parts[0]}: {', '.join(parts[1:])}, proven {sum(each.proof == 'proven' for each in results)}"


def table(results: Sequence[Result]) -> Iterator[str]:
    """By what was planted."""
    kinds: dict[str, list[Result]] = defaultdict(list)
    for each in results:
        kinds[f"{each.stage}: {each.fault}"].append(each)
    for kind, found in sorted(kinds.items()):
        yield (
            f"  {kind}: {len(found)}, layer {sum(each.right_layer for each in found)}, "
            f"cause {sum(each.right_cause for each in found)}"
            + (f"  {dict(Counter(each.cause for each in found if not each.right_cause))}" if found else "")
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", type=Path, help="folder with enc.onnx, erb_dec.onnx, ...; else generated ones alone"
    )
    parser.add_argument("--work", type=Path, help="where files that are made are kept; else nowhere")
    parser.add_argument("--part", choices=("tuned", "held", "mechanisms", "rarer", "sound", "all"), default="all")
    parser.add_argument("--only", help="a part of a subject's name")
    parser.add_argument("--most", type=int, default=1, help="layers for each kind and subject")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the cases of the sound twins")
    parser.add_argument("--device", default="local:", help="of the sound twins: it has to be sound, too")
    parser.add_argument("--sound", action="store_true", help="the sound twins alone")
    given = parser.parse_args()
    results: dict[str, list[Result]] = {"tuned": [], "held": [], "mechanisms": []}
    wrong: list[str] = []
    sound = 0
    with tempfile.TemporaryDirectory() as name, this_host() as host, this_host(uri=given.device) as far:
        folder = Path(name)
        made = given.work or folder
        for part, kinds, real in (("tuned", TUNED, REAL_TUNED), ("held", HELD, REAL_HELD)):
            for kind, variant in (*kinds, *(real if given.models else ())):
                if given.part not in (part, "all") or (given.only and given.only not in f"{kind} {variant}"):
                    continue
                start = time.monotonic()
                base = 1 if part == "tuned" else 11
                for seed in range(base, base + given.seeds):
                    if (kind, variant) in real:
                        of = model_subject(given.models / f"{kind}.onnx", variant, made, host, seed=seed)
                    else:
                        of = generated_subject(kind, variant, made, host, seed=seed)
                    if seed == base:
                        first = of
                    for found, _ in sound_twins(of, host, far, folder):
                        sound += 1
                        if blamed(found):
                            wrong.append(f"{of.name}: {found.blame}, {found.cause}, {found.findings}")
                            print(f"  SOUND {wrong[-1]}", flush=True)
                before = len(results[part])
                planting = () if given.sound else (run(first, host, most=given.most), run_devices(first, host, far))
                for each in (each for some in planting for each in some):
                    results[part].append(each)
                    if not (each.right_layer and each.right_cause and each.right_stage):
                        print(f"  {each}", flush=True)
                told = rates(results[part][before:])
                print(f"{part}: {first.name}: {told}, {time.monotonic() - start:.0f} s", flush=True)
        if given.part in ("sound", "all"):
            for of in sound_grid(made, host, given.models, given.only or ""):
                for way, (found, _) in zip(WAYS, sound_twins(of, host, far, folder), strict=True):
                    sound += 1
                    told = f"{of.name}, {way}"
                    print(
                        f"  sound: {told}: {'BLAMED' if blamed(found) else 'nobody blamed'}, {given.device}", flush=True
                    )
                    wrong += [f"{told}: {found.blame}, {found.cause}, {found.findings}"] if blamed(found) else []
        if given.part in ("mechanisms", "rarer", "all"):
            several = [mechanisms.planted_all] if given.part != "rarer" else []
            several += [planted_rarer] if given.part != "mechanisms" else []
            for one in (one for some in several for one in some(host, far, folder, given.most)):
                results["mechanisms"].append(each := result(
                    one.of, one.stage, one.fault, one.layers, one.found, one.causes
                ))  # fmt: skip
                sound += 1
                wrong += [f"twin of {each}"] if blamed(one.twin) else []
                print(f"  {each}", flush=True)
    if given.part in ("mechanisms", "all"):
        for state in mechanisms.states():
            told = (state.stage == state.told, True, state.code in state.causes)
            results["mechanisms"].append(Result(
                "rollout", state.stage, f"state {state.name}", (), (), state.code or "", *told, None
            ))  # fmt: skip
            print(f"  {results['mechanisms'][-1]}", flush=True)
    for part, found in results.items():
        for line in table(found):
            print(line)
        print(f"{part}: {rates(found)}")
    everything = [each for found in results.values() for each in found]
    print(f"all: {rates(everything)}, {len({each.cause for each in everything if each.right_cause})} causes")
    print(f"sound ones blamed: {len(wrong)} of {sound}")
    return int(any(not each.right_stage for each in everything) or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
