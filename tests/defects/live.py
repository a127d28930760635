"""Defects of a device that only show while something runs: its session, times, memory, claims."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from edgequant.spec import RunOptions
from tests import generated, sources
from tests.defects.bench import Procedure
from tests.defects.defect import Defect
from tests.defects.outcome import OTHERS_FAULT, Fits
from tests.defects.recordings import RECORDINGS


def _conv_cnn(folder: Path) -> Path:
    return generated.conv_cnn(folder / "conv_cnn.onnx")


def _cls(_folder: Path) -> Path:
    return sources.real("ppocr_cls")


def _one_of(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words))


_RANDOM_TOO = re.compile(f"{OTHERS_FAULT.pattern}|NOT_DETERMINISTIC")
TIME = Fits(_one_of("TIM", "CLOCK", "LATENC"), timing=True)
SPEED = Fits(_one_of("TIM", "LATENC", "LOOP", "CACHE", "DEVICE", "REPEAT"), timing=True)
KEPT = Fits(SPEED.wanted, timing=True, honest=True)
MEMORY = Fits(_one_of("MEMORY", "RSS", "PSS", "LEAK", "PEAK"), _one_of("LOW_MEMORY"))
LOW = Fits(_one_of("LOW_MEMORY"), None)
ARCH = Fits(_one_of("ARCH", "CPU", "KERNEL", "CLAIM", "FACT", "DEVICE"))
CORES = Fits(_one_of("CORE", "THREAD", "CLAIM", "FACT"))
VERSION = Fits(_one_of("VERSION", "LIBRARY", "MNN"))
SESSION = Fits(unwanted=_RANDOM_TOO)

CNN = Procedure(_conv_cnn)
CLS = Procedure(_cls, "float", RECORDINGS["ppocr_cls"].cases)
PANEL = Procedure(RECORDINGS["panel"].model, cases=RECORDINGS["panel"].cases, more={"latency": False})
TWO = Procedure(_cls, "float", RECORDINGS["ppocr_cls"].cases, options=RunOptions(threads=2, timeout=120))
BOUND = Procedure(_conv_cnn, options=RunOptions(threads=1, timeout=120, cores=(0,)))
ABSENT = Procedure(_conv_cnn, options=RunOptions(threads=1, timeout=120, cores=(7,)))

Row = tuple[str, str, Procedure, str, str, Fits]

ROWS: dict[str, tuple[Row, ...]] = {
    "session": (
        ("live_stale", "one output is that of the inference before", PANEL, "outputs", "stale_one_output", SESSION),
        ("live_after_resize", "4 % too loud after a change of size", PANEL, "outputs", "wrong_after_resize", SESSION),
        ("live_after_3", "5 % too loud from the fourth inference on", PANEL, "outputs", "wrong_after_3", SESSION),
        ("live_late", "4 % too loud from the thirtieth inference on", CLS, "after_many", "30", SESSION),
    ),
    "timing": (
        ("cached_by_content", "what was computed once is not computed again", CLS, "cached", "", KEPT),
        ("loop_of_one", "the timed loop computes once", CLS, "loop_of_one", "", SPEED),
        ("loop_of_zeros", "the timed loop computes something else", CNN, "loop_of_zeros", "", SPEED),
        ("clock_slow", "its clock runs at half the speed", CLS, "clock_slow", "", TIME),
        ("clock_coarse", "its clock ticks every 40 ms", CNN, "clock_coarse", "", TIME),
        ("clock_jumps", "its clock is set forward again and again", CLS, "clock_jumps", "", TIME),
        ("clock_back", "its clock is set back again and again", CLS, "clock_back", "", TIME),
        ("throttled", "held back to a third of its speed after a while", CLS, "throttled", "", TIME),
    ),
    "memory": (
        ("memory_zero", "it takes no memory at all", CLS, "memory_zero", "", MEMORY),
        ("memory_peak_below", "the highest mark is below the present", CLS, "memory_peak_below", "", MEMORY),
        ("memory_pss_above", "a share larger than the whole", CLS, "memory_pss_above", "", MEMORY),
        ("memory_frozen", "read once, before the model was loaded", CLS, "memory_frozen", "", MEMORY),
        ("memory_leak", "each inference keeps a megabyte", CLS, "memory_leak", "", MEMORY),
    ),
    "low memory": (
        ("low_ignored", "memory low is taken for normal", CNN, "low_ignored", "", LOW),
        ("low_ignored_session", "the same, and session memory says otherwise", CNN, "low_ignored", "session", LOW),
        ("low_ignored_last_bit", "the same, and one last bit is another", CNN, "low_ignored", "last bit", LOW),
    ),
    "claims": (
        ("claims_arm", "it says aarch64, a shell there says something else", CNN, "claims_arm", "", ARCH),
        ("claims_kernels", "it names kernels of another CPU", CNN, "claims_kernels", "", ARCH),
        ("claims_older_mnn", "it names another MNN than it has", CNN, "claims_version", "3.4.1", VERSION),
        ("claims_newer_mnn", "it names an MNN there is not", CNN, "claims_version", "3.99.0", VERSION),
        ("claims_64_cores", "it speaks of cores that are not there", CNN, "claims_cores", "", CORES),
        ("bound_to_no_core", "it says it is bound to a core that is not there", ABSENT, "claims_cores", "", CORES),
        ("one_thread_of_two", "it computes in one thread, two were asked for", TWO, "one_thread", "", CORES),
    ),
}
"""Kind -> name, what it does, procedure, tamper and its argument, what fits."""

TWINS = {"bound_to_no_core": BOUND}


def defects() -> list[Defect]:
    return [
        Defect(
            name, kind, what, "live", "bench", procedure in (CLS, TWO), partial(procedure.run, tamper, argument),
            partial(getattr, TWINS.get(name, procedure), "healthy"), fits,
        )
        for kind, rows in ROWS.items()
        for name, what, procedure, tamper, argument, fits in rows
    ]  # fmt: skip
