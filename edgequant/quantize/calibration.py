"""Calibration data: where it comes from, and whether it fits the model.

MNN's quantizer checks nothing: a missing file, a wrong shape or a NaN gives a model all the same.  So every sample is
looked at before it is used, and what cannot be used is refused with the sample and the input named.

A set is never in memory as a whole: samples are read one by one, every time they are asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.cases.folder import MAX_LISTED, there
from edgequant.cases.generate import generate, pin
from edgequant.cases.images import ImageReader
from edgequant.cases.load import MAX_CASES, find_cases
from edgequant.cases.pictures import PictureFile, find_pictures, picture_findings
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.progress import counted
from edgequant.quantize.calibration_errors import (
    ACCEPTED,
    as_calibration,
    one_sample,
    same_samples,
    too_few_samples,
)
from edgequant.quantize.user_function import spool
from edgequant.spec.function import looks_like_function
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

MAX_SAMPLES = MAX_CASES
FUNCTION_SAMPLES = 256
"""Taken from a Python function where nobody says how many: it may be endless."""
RANDOM_SAMPLES = 8
EXACT_INTEGERS = 1 << 24
"""MNN's quantizer reads every number as float32, which holds whole numbers up to this one."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class CalibrationOptions:
    """How calibration data is read.

    Attributes:
        samples: how many are used, the first ones in order; None for all (of a Python function, FUNCTION_SAMPLES).
        images: preprocessing of pictures.
        seed: of random data.
        shapes: of random data; None for the middle size of `generate`, which not every model takes.
        timeout: seconds a Python function has.
        memory_limit: bytes a Python function may allocate.
    """

    samples: int | None = None
    images: ImageOptions = field(default_factory=ImageOptions)
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] | None = None
    timeout: float = 900.0
    memory_limit: int | None = None


@dataclass(frozen=True)
class SampleFacts:
    """One sample as it was when it was checked.

    Attributes:
        name: as in `Case`.
        shapes: by input, in the model's order.
        largest: largest absolute value of each input; 0 for an input without elements.
        sha256: of all its bytes.
        ranges: smallest and largest value of each input, as `largest`.
    """

    name: str
    shapes: Shapes
    largest: tuple[float, ...]
    sha256: str = ""
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class CalibrationSet:
    """Samples that fit the model.  Iterating reads them anew, one at a time.

    Attributes:
        source: for people: a path, a function, or "random, seed 0".
        inputs: the model's.
        facts: one entry per sample, in order.
        findings: what the user should know: CALIBRATION_FEW, CALIBRATION_CONSTANT, CALIBRATION_RANDOM,
            CALIBRATION_TRUNCATED, CALIBRATION_INEXACT; of pictures CALIBRATION_IMAGES, CALIBRATION_LEFT_OUT and
            CALIBRATION_ORIENTATION.
        images: what was done to pictures, in words; None where there are none.
    """

    source: str
    inputs: tuple[TensorSpec, ...]
    facts: tuple[SampleFacts, ...]
    findings: tuple[Finding, ...]
    readers: tuple[Callable[[], Case], ...] = field(repr=False)
    images: str | None = None

    def __len__(self) -> int:
        return len(self.readers)

    def __iter__(self) -> Iterator[Case]:
        return (self.read(index) for index in range(len(self.readers)))

    def read(self, index: int) -> Case:
        """One sample.  Raises InputError CALIBRATION_CHANGED where it is not what was checked any more."""
        case, facts = _checked(self.readers[index], self.inputs), self.facts[index]
        if sample_facts(case, self.inputs) != facts:
            raise InputError(
                "CALIBRATION_CHANGED",
                f"{self.source}: sample '{facts.name}' changed while it was used",
                hint="Leave calibration files alone while a model is quantized.",
            )
        return case

    @property
    def shapes(self) -> Counter[Shapes]:
        """How many samples there are of each set of shapes."""
        return Counter(facts.shapes for facts in self.facts)

    def only(self, indexes: Sequence[int]) -> CalibrationSet:
        """The samples with these numbers, in this order."""
        return replace(
            self,
            facts=tuple(self.facts[index] for index in indexes),
            readers=tuple(self.readers[index] for index in indexes),
        )


def load_calibration(
    source: str | Path | None,
    inputs: Sequence[TensorSpec],
    *,
    work: Path,
    options: CalibrationOptions | None = None,
) -> CalibrationSet:
    """The samples at `source`, every one of them checked against the model's `inputs`.

    Args:
        source: an .npz file; a folder of .npz files, of MNN test folders or of pictures; an MNN test folder
            (input.json and NAME.txt); ``module:function`` or ``file.py:function``; None for random data.
        work: an existing directory that outlives the set: what a Python function gives is kept there.

    Raises:
        InputError: CALIBRATION_EMPTY, CALIBRATION_NOT_FOUND, CALIBRATION_FORMAT, CALIBRATION_FILE, CALIBRATION_NAMES,
            CALIBRATION_SHAPE, CALIBRATION_DTYPE, CALIBRATION_NAN, CALIBRATION_TOO_LARGE, CALIBRATION_SAMPLES,
            CALIBRATION_FUNCTION, CALIBRATION_CHANGED, and of pictures PILLOW_MISSING, IMAGE_INPUT, IMAGE_SIZE,
            IMAGE_SIZE_UNKNOWN.
        ToolError: see `spool`.
    """
    options = options or CalibrationOptions()
    if options.samples is not None and not 1 <= options.samples <= MAX_SAMPLES:
        raise InputError(
            "CALIBRATION_SAMPLES",
            f"samples={options.samples}: there can be 1 to {MAX_SAMPLES}",
            hint="8 to 100 samples of real data are what MNN's methods are made for.",
        )
    specs = tuple(inputs)
    findings: list[Finding] = []
    pictures: _PictureReaders | None = None
    if source is None:
        name, readers = _random(specs, options, findings)
    elif isinstance(source, str) and looks_like_function(source):
        name, readers = source, _from_function(source, specs, options, work, findings)
    else:
        name = str(source)
        found = _from_files(Path(source), specs, options)
        pictures = found if isinstance(found, _PictureReaders) else None
        readers = list(found)
    if not readers:
        raise InputError("CALIBRATION_EMPTY", f"{name}: no sample in it", hint=f"Give at least 8. {ACCEPTED}")
    if options.samples is not None and len(readers) < options.samples:
        findings.append(too_few_samples(name, len(readers), options.samples))
    readers = readers[: options.samples]
    facts, ranges = [], _Ranges(specs)
    for reader in counted("reading calibration data: samples", readers):
        case = _checked(reader, specs)
        facts.append(sample_facts(case, specs))
        ranges.add(case)
    if len(readers) == 1:
        findings.append(one_sample(name))
    elif len({each.sha256 for each in facts}) == 1:
        findings.append(same_samples(name, len(readers)))
    findings += ranges.findings(len(readers))
    if pictures is not None:
        used = pictures.files[: len(readers)]
        findings += picture_findings(used, pictures.reader, prefix="CALIBRATION", left_out=pictures.left_out)
    words = None if pictures is None else pictures.reader.words()
    return CalibrationSet(name, specs, tuple(facts), tuple(findings), tuple(readers), words)


def check_early(source: str | None, inputs: Sequence[TensorSpec], options: CalibrationOptions) -> None:
    """Find mistakes that show before anything is read: no such path, or pictures that do not fit the model.

    Raises InputError, see `load_calibration`.
    """
    if source is not None and not looks_like_function(source):
        _from_files(Path(source), tuple(inputs), replace(options, samples=1))


# ---- sources


def _random(
    inputs: tuple[TensorSpec, ...], options: CalibrationOptions, findings: list[Finding]
) -> tuple[str, list[Callable[[], Case]]]:
    findings.append(
        Finding(
            code="CALIBRATION_RANDOM",
            severity="warn",
            message="it is calibrated on random numbers: the ranges of its activations are not those of real data",
            remedy=f"Give real data with --calibration. {ACCEPTED}",
        )
    )

    if options.shapes is not None:
        inputs = pin(inputs, options.shapes)

    def make(number: int) -> Case:
        # The second case is the middle size of a dynamic model.
        return replace(generate(inputs, options.seed + number)[1], name=f"random-{number}")

    count = options.samples or RANDOM_SAMPLES
    return f"random, seed {options.seed}", [lambda number=number: make(number) for number in range(count)]  # type: ignore[misc]


def _from_function(
    source: str, inputs: tuple[TensorSpec, ...], options: CalibrationOptions, work: Path, findings: list[Finding]
) -> list[Callable[[], Case]]:
    folder = work / "calibration"
    folder.mkdir(exist_ok=True)
    limit = options.samples or FUNCTION_SAMPLES
    spooled = spool(
        source,
        folder,
        limit=limit,
        log=work / "calibration.log",
        timeout=options.timeout,
        memory_limit=options.memory_limit,
    )
    if spooled.more and options.samples is None:
        findings.append(
            Finding(
                code="CALIBRATION_TRUNCATED",
                severity="info",
                message=f"{source} yields more than {limit} samples; the first {limit} are used",
                remedy="Say how many: samples=N.",
            )
        )
    return [_file_reader(file, inputs, source) for file in spooled.files]


def _file_reader(path: Path, inputs: tuple[TensorSpec, ...], source: str) -> Callable[[], Case]:
    def read() -> Case:
        try:
            return find_cases(path)[0].load(inputs)
        except InputError as error:
            # The user knows the number of a sample, not the file it was kept in.
            error.message = error.message.replace(str(path), f"{source}, sample {int(path.stem)}")
            raise

    return read


@dataclass(frozen=True)
class _PictureReaders:
    """Samples that are pictures; iterating gives what reads them."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]
    reader: ImageReader
    inputs: tuple[TensorSpec, ...]

    def __iter__(self) -> Iterator[Callable[[], Case]]:
        return (lambda file=file: self._read(file) for file in self.files)  # type: ignore[misc]

    def _read(self, file: Path) -> Case:
        return replace(PictureFile(file, self.reader.options).load(self.inputs), name=file.name)


def _from_files(
    path: Path, inputs: tuple[TensorSpec, ...], options: CalibrationOptions
) -> list[Callable[[], Case]] | _PictureReaders:
    most = MAX_SAMPLES if options.samples is None else MAX_LISTED
    try:
        there(path)
        pictures = find_pictures(path)
        if pictures is not None:
            if len(pictures.files) > most:
                raise InputError("INPUTS_TOO_MANY", f"{path}: more than {most} pictures")
            return _PictureReaders(pictures.files, pictures.left_out, ImageReader(inputs, options.images), inputs)
        files = find_cases(path, most=most)
    except InputError as error:
        raise as_calibration(error, inputs) from None
    return [lambda file=file: file.load(inputs) for file in files]  # type: ignore[misc]


# ---- checks


def _checked(reader: Callable[[], Case], inputs: tuple[TensorSpec, ...]) -> Case:
    try:
        case = reader()
    except InputError as error:
        raise as_calibration(error, inputs) from None
    for name, array in case.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int(np.isinf(array).sum())
            raise InputError(
                "CALIBRATION_NAN",
                f"{case.source}: input '{name}' holds {count} Inf",
                hint="A range that ends at infinity cannot be quantized. Leave the sample out, or find what made it.",
            )
    return case


def sample_facts(case: Case, inputs: tuple[TensorSpec, ...]) -> SampleFacts:
    arrays = [case.inputs[spec.name] for spec in inputs]
    ranges = tuple((float(array.min()), float(array.max())) if array.size else (0.0, 0.0) for array in arrays)
    largest = tuple(max(abs(low), abs(high)) for low, high in ranges)
    shapes = tuple((spec.name, tuple(array.shape)) for spec, array in zip(inputs, arrays, strict=True))
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return SampleFacts(case.name, shapes, largest, digest.hexdigest(), ranges)


class _Ranges:
    """Smallest and largest value of every input over all samples."""

    def __init__(self, inputs: tuple[TensorSpec, ...]) -> None:
        self._inputs = inputs
        self._low = {spec.name: math.inf for spec in inputs}
        self._high = {spec.name: -math.inf for spec in inputs}
        self._elements = {spec.name: 0 for spec in inputs}

    def add(self, case: Case) -> None:
        for name, array in case.inputs.items():
            if not array.size:
                continue
            self._low[name] = min(self._low[name], float(array.min()))
            self._high[name] = max(self._high[name], float(array.max()))
            self._elements[name] = max(self._elements[name], array.size)

    def findings(self, samples: int) -> list[Finding]:
        found = []
        for spec in self._inputs:
            low, high = self._low[spec.name], self._high[spec.name]
            if low > high:
                continue  # empty in all of them, as a past is at first
            whole = np.dtype(spec.dtype).kind in "iub"
            # A single whole number, such as a sampling rate or a mode, is constant by nature.
            if low == high and not (whole and self._elements[spec.name] == 1):
                found.append(
                    Finding(
                        code="CALIBRATION_CONSTANT",
                        severity="warn",
                        where=spec.name,
                        message=f"input '{spec.name}' is {low:g} everywhere in all {samples} samples: what it does to "
                        "the model's ranges is not seen",
                        evidence={"value": low},
                        remedy="Check how the samples were made; a recurrent state should also be given as it is "
                        "after some steps.",
                    )
                )
            if whole and max(abs(low), abs(high)) > EXACT_INTEGERS:
                found.append(
                    Finding(
                        code="CALIBRATION_INEXACT",
                        severity="warn",
                        where=spec.name,
                        message=f"input '{spec.name}' holds whole numbers over {EXACT_INTEGERS}, which MNN's quantizer "
                        "rounds",
                        evidence={"low": low, "high": high},
                        remedy="Use samples with smaller numbers.",
                    )
                )
        return found
