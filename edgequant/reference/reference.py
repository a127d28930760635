"""Float references: what the outputs should be.  One small class per place they can come from."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgequant.background import Background
from edgequant.cases.case import Case
from edgequant.cases.load import read_npz
from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import InputError, RunnerError, ToolError
from edgequant.runner.answers import LoadAnswer, RunAnswer
from edgequant.runner.client import Loaded, MnnRunner
from edgequant.runner.session import RunnerSession

Outputs = dict[str, np.ndarray]

# Not with -m, which would import from the current directory first: that may be a folder somebody else filled.
# Threads of NumPy's OpenBLAS, which ONNX Runtime does not use, would only spin.
_WORKER = """
import os, sys
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path[:] = [entry for entry in sys.path if entry]
from edgequant.reference.ort_worker import main
sys.exit(main())
"""


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

    def close(self) -> None:  # noqa: B027  (most references hold nothing)
        """Let go of what it holds.  Never raises."""


def onnxruntime_available() -> bool:
    """Whether ONNX Runtime (extra `onnx`) is installed, without importing it."""
    return importlib.util.find_spec("onnxruntime") is not None


class OrtReference(Reference):
    """ONNX Runtime on the source model, in a child process, which starts while the caller does something else."""

    name = "onnxruntime"

    def __init__(self, model: Path, log: Path, timeout: float) -> None:
        self._model = model
        self._timeout = timeout
        self._device = LocalDevice()
        argv = [*self._device.python, "-c", _WORKER]
        self._session = RunnerSession(self._device, argv, log=log, name="ONNX Runtime")
        self._starting = Background(self._start)

    def _start(self) -> None:
        self.version = self._session.start(Deadline(60)).mnn
        asked = {"path": str(self._model.resolve())}
        header, _ = self._session.request("load", asked, deadline=Deadline(self._timeout))
        self._session.checked(LoadAnswer, header)

    def ready(self) -> OrtReference:
        """Itself, once it has loaded the model; `version` is known then.

        Raises InputError MODEL_INVALID where it cannot load it, ToolError where it died; it is closed then.
        """
        try:
            self._starting.result()
        except RunnerError as error:
            self.close()
            if error.code == "MODEL_LOAD_FAILED":
                raise InputError(
                    "MODEL_INVALID",
                    f"{self._model.name}: ONNX Runtime cannot load it: {error.message.split(': ', 1)[-1]}",
                    hint="Check the model with onnx.checker; --reference FILE.npz gives reference outputs of your own.",
                ) from None
            raise _as_tool_error(error, self._model) from None
        except BaseException:
            self.close()
            raise
        return self

    def run(self, case: Case) -> Outputs:
        try:
            header, outputs = self._session.request("run", {"handle": 1}, case.inputs, deadline=Deadline(self._timeout))
        except RunnerError as error:
            if error.code in ("INFERENCE_FAILED", "OUTPUT_UNSUPPORTED"):
                raise CaseRefused(error.message.split(": ", 1)[-1]) from None
            raise _as_tool_error(error, None) from None
        self._session.checked(RunAnswer, header)
        return outputs

    def close(self) -> None:
        if not self._starting.done:
            self._device.stop()
            self._starting.wait()
        self._session.close()
        self._device.close()


def _as_tool_error(error: RunnerError, model: Path | None) -> ToolError:
    return ToolError(
        "REFERENCE_DIED" if error.code.startswith("RUNNER_") else error.code,
        error.message,
        where=model.name if model else None,
        hint="Its log is in the run directory.  --reference FILE.npz gives reference outputs of your own.",
        evidence=error.evidence,
    )


class MnnFloatReference(Reference):
    """Float MNN on this host: for sources ONNX Runtime cannot read.  It cannot see errors of the conversion itself."""

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
