"""Calibration data of a run: loaded once, when the first variant needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgequant.cases.case import Case
from edgequant.cases.generate import SIZES
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.quantize.calibration import CalibrationOptions, CalibrationSet, load_calibration
from edgequant.quantize.calibration_beside import beside
from edgequant.quantize.setup import OnHost, Setup
from edgequant.quantize.work import memory_limit
from edgequant.spec.function import looks_like_function
from edgequant.spec.images import ImageOptions


@dataclass
class CalibrationSource:
    """Where the samples of all variants come from.

    unreadable: why they cannot be used: that is wrong for every variant, not just the one that needed them.
    """

    setup: Setup
    host: OnHost
    unreadable: InputError | None = field(default=None, init=False)
    _loaded: dict[int | None, CalibrationSet] = field(default_factory=dict, init=False)
    _usable: set[int] = field(default_factory=set, init=False)

    @property
    def function(self) -> bool:
        """Whether they come from a Python function, which may yield others the next time."""
        source = self.setup.options.calibration
        return source is not None and looks_like_function(source)

    def load(self, samples: int | None) -> tuple[CalibrationSet, tuple[Finding, ...]]:
        """So many samples, None for all, and what is to be known of them.  Raises as `load_calibration`."""
        options = self.setup.options
        source = options.calibration
        if source is None and options.inputs is not None:
            source = str(options.inputs)
        if samples not in self._loaded:
            self.setup.progress.say(f"calibration data: {source or 'random'}")
            # One for each call: a function may yield other samples the second time.
            work = self.setup.folder / "calibration" / ("all" if samples is None else str(samples))
            work.mkdir(parents=True, exist_ok=True)
            how = CalibrationOptions(
                samples=samples,
                images=options.images or ImageOptions(),
                seed=options.run.seed + 1000,
                shapes=None if source is not None else _sizes_taken(self.host.cases),
                # The default is that of a job on a device, and reading a data set may take longer.
                timeout=options.run.timeout if "timeout" in options.run.model_fields_set else options.timeout,
                memory_limit=memory_limit(),
            )
            try:
                self._loaded[samples] = load_calibration(source, self.host.inputs, work=work, options=how)
            except InputError as error:
                self.unreadable = error
                raise
        found = self._loaded[samples]
        if source is None or options.inputs is None:
            return found, found.findings
        return found, (*beside(found, self.host.cases), *found.findings)

    def try_out(self, calibration: CalibrationSet) -> None:
        """Raise InputError where the float model cannot run them: that is no quantizer's fault."""
        if id(calibration) in self._usable:
            return
        try:
            self.host.refuse(calibration)
        except InputError as error:
            self.unreadable = error
            raise
        self._usable.add(id(calibration))


def _sizes_taken(cases: Sequence[Case]) -> dict[str, tuple[int, ...]] | None:
    """Sizes that the source ran with, for random samples, where those of their own were refused.

    A windowed model takes nothing that is shorter than its window.
    """
    random = [case for case in cases if case.generated]
    if not random or any(case.name == SIZES[1] for case in random):
        return None
    return random[len(random) // 2].shapes
