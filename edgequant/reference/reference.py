"""Float references: what the outputs should be.  One small class per place they can come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.cases.load import read_npz
from edgequant.errors import InputError, RunnerError
from edgequant.runner.client import Loaded, MnnRunner
from edgequant.runner.rolling import Asked, RollResult

Outputs = dict[str, np.ndarray]


class CaseRefused(Exception):
    """The reference cannot run this case; `reason` is what it said.  It is alive and can run others."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reference(ABC):
    """Computes the float outputs of a case.  `name` and `version` go into the report."""

    name: str
    version: str | None = None

    @abstractmethod
    def run(self, case: Case) -> Outputs:
        """Outputs by name.  Raises CaseRefused where this case cannot be run, EdgequantError where nothing can."""

    def roll(self, asked: Asked) -> RollResult:  # noqa: ARG002  (most can)
        """Many steps with outputs fed back.  Raises as `run`."""
        raise CaseRefused(f"reference outputs of a {self.name} belong to cases, and a rollout is none")

    def close(self) -> None:  # noqa: B027  (most references hold nothing)
        """Let go of what it holds.  Never raises."""


class MnnFloatReference(Reference):
    """Float MNN on this host: where nothing else can run the source.  It cannot see errors of the conversion itself."""

    name = "mnn-float"

    def __init__(self, runner: MnnRunner, model: Loaded) -> None:
        self._runner = runner
        self._model = model
        self.version = runner.hello.mnn

    def run(self, case: Case) -> Outputs:
        try:
            return self._runner.run(self._model, case.inputs).outputs
        except RunnerError as error:
            if error.code == "INFERENCE_FAILED":
                raise CaseRefused(error.message.split(": ", 1)[-1]) from None
            raise

    def roll(self, asked: Asked) -> RollResult:
        try:
            return self._runner.roll(self._model, asked)
        except RunnerError as error:
            if error.code in ("INFERENCE_FAILED", "FEEDBACK_MISSING", "FEEDBACK_SHAPE", "ROLLOUT_SHAPE"):
                raise CaseRefused(error.message.split(": ", 1)[-1]) from None
            raise


class FileReference(Reference):
    """Outputs the user computed: one .npz for a single case, or a folder with CASE.npz for each.

    Raises InputError: REFERENCE_NOT_FOUND, REFERENCE_CASES, and what reading an .npz raises.
    """

    name = "file"

    def __init__(self, path: Path, cases: Sequence[Case]) -> None:
        if not path.exists():
            raise InputError("REFERENCE_NOT_FOUND", f"{path}: no such file or folder")
        self._files = {}
        if path.is_dir():
            for case in cases:
                file = path / f"{case.name}.npz"
                if not file.is_file():
                    raise InputError(
                        "REFERENCE_CASES",
                        f"{path}: there is no {case.name}.npz for case '{case.name}'",
                        hint="A folder of references has one file per case, with the case's name.",
                    )
                self._files[case.name] = file
        elif len(cases) != 1:
            raise InputError(
                "REFERENCE_CASES",
                f"{path} is one reference for {len(cases)} cases",
                hint="Give the inputs it belongs to with --inputs CASE.npz, or a folder with CASE.npz for each case.",
            )
        else:
            self._files[cases[0].name] = path
        self.version = None

    def run(self, case: Case) -> Outputs:
        outputs = read_npz(self._files[case.name])
        if not outputs:
            raise InputError("REFERENCE_CASES", f"{self._files[case.name]}: holds no outputs")
        return outputs
