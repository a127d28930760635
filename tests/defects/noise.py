"""python -m tests.defects.noise [MODEL...] [--seconds S]: how often is a sound device blamed for rounding?

Takes many cases, each of other numbers, of a model on an emulated ARM CPU and on this host, and judges them in parts of
one, two, three and five cases, each a run of its own that has no case in common with another.  What is found is kept
in the user's cache for this state of the product, so that a count can be gone on with; --count prints it alone.

An alarm is any finding, more than a warning, that is not about how well the model was quantized.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache as cached
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.archive.open import Run, open_run
from edgequant.archive.types import Capture, Source
from edgequant.jobs.verify import verify
from edgequant.judge.run import judge
from edgequant.judge.stages import Comparer
from edgequant.plan.request import Request
from edgequant.spec import RunOptions, Variant
from tests import generated, sources
from tests.defects import panel, recordings
from tests.defects.bench import Cases, saved

SIZES = (1, 2, 3, 5)
BATCH = 44
"""Cases in one capture, before anything is kept: four times all sizes."""
QUALITY = ("LIMIT_EXCEEDED", "CLASS_LOST", "DECISIONS_CHANGED", "ROWS_DIFFER", "NOTHING_JUDGED")
"""What a quantized model may do without any fault of a device's."""
DEVICES = (recordings.A53, recordings.A76, recordings.MAX)
Chance = np.random.Generator


def _sound(rng: Chance) -> dict[str, np.ndarray]:
    """For enc: noise, or something that swells and ebbs as speech does."""
    frames = int(rng.integers(5, 60))
    erb, spec = rng.standard_normal((1, 1, frames, 32)), rng.standard_normal((1, 2, frames, 96))
    if rng.random() < 0.5:
        loud = np.exp(np.convolve(rng.standard_normal(frames + 4), np.ones(5) / 5, "valid"))
        erb = 0.4 * np.cumsum(erb, axis=2) * np.linspace(1, 0.2, 32) + 0.2 * erb
        spec = spec * loud[None, None, :, None] * np.linspace(1.4, 0.1, 96)
    return {"feat_erb": erb.astype(np.float32), "feat_spec": spec.astype(np.float32)}


@cached
def _encoder() -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(sources.real("enc")))


def _behind_enc(*names: str) -> Callable[[Chance], dict[str, np.ndarray]]:
    return lambda rng: dict(zip(names, _encoder().run(list(names), _sound(rng)), strict=True))


def _lines(most: int, widest: int) -> Callable[[Chance], dict[str, np.ndarray]]:
    """Lines of text, some of them upside down."""

    def case(rng: Chance) -> dict[str, np.ndarray]:
        width = int(rng.integers(40, widest))
        lines = [recordings._line(width, int(seed)) for seed in rng.integers(1 << 30, size=rng.integers(1, most + 1))]
        return {"x": np.stack([one[:, ::-1, ::-1] if rng.random() < 0.5 else one for one in lines]).astype(np.float32)}

    return case


def _steps(rng: Chance) -> dict[str, np.ndarray]:
    x, state = rng.standard_normal((1, int(rng.integers(4, 70)), 32)), 0.3 * rng.standard_normal((1, 1, 64))
    return {"x": x.astype(np.float32), "state": state.astype(np.float32)}


def _patterns(rng: Chance) -> dict[str, np.ndarray]:
    return {"x": panel.patterns(int(rng.integers(20, 300)), int(rng.integers(1 << 30)))[0]}


def _real(name: str) -> Callable[[Path], Path]:
    return lambda _folder: sources.real(name)


@dataclass(frozen=True)
class Model:
    """case: of so much chance."""

    make: Callable[[Path], Path]
    case: Callable[[Chance], dict[str, np.ndarray]]
    variants: tuple[str, ...]


MODELS = {
    "enc": Model(_real("enc"), _sound, ("dynamic:8", "weight:8", "dynamic:4,block=32,hqq", "fp16")),
    "erb_dec": Model(_real("erb_dec"), _behind_enc("emb", "e3", "e2", "e1", "e0"), ("dynamic:8", "float")),
    "df_dec": Model(_real("df_dec"), _behind_enc("emb", "c0"), ("dynamic:8", "weight:8")),
    "ppocr_cls": Model(_real("ppocr_cls"), _lines(3, 200), ("dynamic:8", "float", "fp16")),
    "ppocr_rec": Model(_real("ppocr_rec"), _lines(1, 110), ("dynamic:8", "float")),
    "gru": Model(lambda folder: generated.gru(folder / "gru.onnx"), _steps, ("dynamic:8", "weight:8")),
    "panel": Model(lambda folder: panel.make(folder / "panel.onnx"), _patterns, ("dynamic:8", "float")),
}


class Part(Run):
    """A run with some of its cases only.  Records of the whole are read once."""

    def __init__(self, whole: Run, names: Sequence[str], read: Callable[[str], Capture | None]) -> None:
        object.__setattr__(self, "path", whole.path)
        self.__dict__.update(whole=whole, names=frozenset(names), read=read)

    @cached_property
    def source(self) -> Source:
        found: Source = self.__dict__["whole"].source
        return found.model_copy(
            update={"cases": tuple(each for each in found.cases if each.name in self.__dict__["names"])}
        )

    def capture(self, name: str) -> Capture | None:
        found = self.__dict__["read"](name)
        if found is None:
            return None
        names = self.__dict__["names"]
        kept = {
            part: tuple(each for each in getattr(found, part) if each.case in names)
            for part in ("cases", "repeated", "normal", "moved")
        }
        return found.model_copy(update=kept)


def taken(name: str, uri: str, variant: str, threads: int, seed: int, folder: Path) -> Run:
    """A batch of cases, captured by the product itself."""
    model, rng = MODELS[name], np.random.default_rng([seed, *name.encode()])
    cases: Cases = {f"c{number:03}": model.case(rng) for number in range(BATCH)}
    request = Request(
        model.make(folder), (uri,), (Variant.parse(variant),), inputs=saved(folder / "inputs", cases), latency=False,
        options=RunOptions(threads=threads, timeout=300), run_dir=folder / "run",
    )  # fmt: skip
    verify(request)
    return open_run(folder / "run")


def parts(run: Run) -> Iterator[Part]:
    names = [case.name for case in run.source.cases]
    read = cached(run.capture)
    sizes = itertools.cycle(SIZES)
    while names:
        size = next(sizes)
        yield Part(run, names[:size], read)
        names = names[size:]


def alarms(part: Run) -> list[str]:
    found = judge(part, comparer=Comparer(part.arrays))
    said = [*found.findings, *(each for trial in found.trials for each in trial.findings)]
    codes = [each.code for each in said if each.severity in ("fail", "error") and each.code not in QUALITY]
    return codes + [trial.failure.code for trial in found.trials if trial.failure is not None]


@cached
def _kept() -> Path:
    """The count of this state of the product."""
    digest = hashlib.sha256()
    for path in sorted((recordings.ROOT / "edgequant").rglob("*.py")):
        digest.update(path.read_bytes())
    folder = recordings.cache().parent / "noise"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest.hexdigest()[:16]}.jsonl"


def bound(count: int, found: int) -> float:
    """The rate that is not exceeded with 95 % confidence (Clopper & Pearson 1934, one side)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        term, total = (1 - rate) ** count, 0.0
        for k in range(found + 1):
            total += term
            term *= (count - k) / (k + 1) * rate / max(1 - rate, 1e-300)
        low, high = (rate, high) if total > 0.05 else (low, rate)
    return high


def told(records: Sequence[dict[str, Any]]) -> list[str]:
    rows = [f"{'model':12} {'variant':24} runs  alarms"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in records:
        groups.setdefault((each["model"], each["variant"]), []).append(each)
    for (model, variant), some in sorted(groups.items()):
        rows.append(f"{model:12} {variant:24} {len(some):4}  {sum(bool(each['alarms']) for each in some):6}")
    wrong = [each for each in records if each["alarms"]]
    rows += [json.dumps(each) for each in wrong]
    sizes = Counter(each["cases"] for each in records)
    share = ", ".join(f"{number} of {size}" for size, number in sorted(sizes.items()))
    rows.append(f"{len(wrong)} of {len(records)} runs ({share} cases): with 95 % confidence the rate is below "
                f"{1000 * bound(len(records), len(wrong)):.1f} in 1,000")  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.defects.noise", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no batch after so long")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch that was not taken yet")
    parser.add_argument("--count", action="store_true", help="print what was found so far")
    asked = parser.parse_args(arguments)
    end, kept = time.monotonic() + asked.seconds, _kept()
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(each["model"], each["variant"], each["seed"]) for each in known}
    chosen = [(name, variant) for name in asked.models or MODELS for variant in MODELS[name].variants]
    for seed, (name, variant) in itertools.product(range(asked.seed, asked.seed + 10_000), chosen):
        if asked.count or time.monotonic() > end:
            break
        if (name, variant, seed) in done:
            continue
        uri, threads = DEVICES[seed % len(DEVICES)], (1, 2, 4)[(seed + seed // 3) % 3]
        with tempfile.TemporaryDirectory() as scratch, kept.open("a") as stream:
            for part in parts(taken(name, uri, variant, threads, seed, Path(scratch))):
                found = {"model": name, "variant": variant, "seed": seed, "device": uri, "threads": threads,
                         "cases": len(part.source.cases), "alarms": alarms(part)}  # fmt: skip
                known.append(found)
                stream.write(json.dumps(found) + "\n")
    print(*told(known), sep="\n")
    return int(any(each["alarms"] for each in known))


if __name__ == "__main__":
    sys.exit(main())
