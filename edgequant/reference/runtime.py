"""Independent runtimes, each in a child process: what the source model computes without MNN."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.background import Background
from edgequant.cases.case import Case
from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import InputError, RunnerError, ToolError
from edgequant.reference.reference import CaseRefused, Outputs, Reference
from edgequant.runner.answers import LoadAnswer, RunAnswer
from edgequant.runner.rolling import Asked, RollResult, roll
from edgequant.runner.session import RunnerSession

# Not with -m, which would import from the current directory first: that may be a folder somebody else filled.
# Threads of NumPy's OpenBLAS, which most of them do not use, would only spin.
_WORKER = """
import os, sys
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path[:] = [entry for entry in sys.path if entry]
from edgequant.reference.worker import main
sys.exit(main(sys.argv[1]))
"""
_OWN = "--reference FILE.npz gives reference outputs of your own."


@dataclass(frozen=True)
class Runtime:
    """title: for people.  module: it is imported as.  extra: of edgequant, that brings it."""

    title: str
    module: str
    extra: str


RUNTIMES = {
    "onnxruntime": Runtime("ONNX Runtime", "onnxruntime", "onnx"),
    "onnx": Runtime("ONNX's reference evaluator", "onnx", "onnx"),
    "litert": Runtime("LiteRT", "ai_edge_litert", "tflite"),
    "litert-inner": Runtime("LiteRT", "ai_edge_litert", "tflite"),
}
"""By the kind that is reported."""
_KINDS = {"onnx": "onnxruntime", "tflite": "litert"}
"""By the format of the source."""


class RuntimeReference(Reference):
    """A runtime of `RUNTIMES` on the source model, in a child process, which starts while the caller does something
    else."""

    def __init__(self, kind: str, model: Path, log: Path, timeout: float) -> None:
        self.name = kind
        self.runtime = RUNTIMES[kind]
        self._model = model
        self._timeout = timeout
        self._device = LocalDevice()
        argv = [*self._device.python, "-c", _WORKER, kind]
        self._session = RunnerSession(self._device, argv, log=log, name=self.runtime.title)
        self._starting = Background(self._start)

    def _start(self) -> None:
        self.version = self._session.start(Deadline(60)).mnn
        asked = {"path": str(self._model.resolve())}
        header, _ = self._session.request("load", asked, deadline=Deadline(self._timeout))
        self._outputs = self._session.checked(LoadAnswer, header).outputs

    def ready(self) -> RuntimeReference:
        """Itself, once it has loaded the model; `version` is known then.

        Raises InputError MODEL_INVALID where it cannot load it, ToolError where it died; it is closed then.
        """
        try:
            self._starting.result()
        except RunnerError as error:
            self.close()
            if error.code in ("MODEL_LOAD_FAILED", "KERNEL_MISSING"):
                raise InputError(
                    "MODEL_INVALID",
                    f"{self._model.name}: {self.runtime.title} cannot load it: {error.message.split(': ', 1)[-1]}",
                    hint=f"Check the model with the tools of its format; {_OWN}",
                    evidence={"said": error.code},
                ) from None
            raise _as_tool_error(error, self._model) from None
        except BaseException:
            self.close()
            raise
        return self

    def load(self, model: Path, inner: Sequence[str] = ()) -> None:
        """Another model in the same process.  Raises RunnerError where it cannot load it."""
        self._model = model
        asked = {"path": str(model.resolve()), "inner": list(inner)}
        header, _ = self._session.request("load", asked, deadline=Deadline(self._timeout))
        self._session.checked(LoadAnswer, header)

    def cut(self, part: Mapping[str, object], fixed: Mapping[str, np.ndarray]) -> None:
        """Write a part of a model as one of its own, where the runtime's process can do that: see `LiteParts.cut`.
        Raises RunnerError."""
        self._session.request("cut", dict(part), fixed, deadline=Deadline(self._timeout))

    def run(self, case: Case) -> Outputs:
        with _told():
            header, outputs = self._session.request("run", {"handle": 1}, case.inputs, deadline=Deadline(self._timeout))
        self._session.checked(RunAnswer, header)
        return outputs

    def roll(self, asked: Asked) -> RollResult:
        with _told():
            return roll(self._session, 1, asked, seconds=self._timeout, outputs=self._outputs)

    def close(self) -> None:
        if not self._starting.done:
            self._device.stop()
            self._starting.wait()
        self._session.close()
        self._device.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What it refuses is CaseRefused, all else a ToolError."""
    try:
        yield
    except RunnerError as error:
        if error.code in ("INFERENCE_FAILED", "OUTPUT_UNSUPPORTED", "FEEDBACK_SHAPE", "ROLLOUT_SHAPE"):
            raise CaseRefused(error.message.split(": ", 1)[-1]) from None
        raise _as_tool_error(error, None) from None


def _as_tool_error(error: RunnerError, model: Path | None) -> ToolError:
    return ToolError(
        "REFERENCE_DIED" if error.code.startswith("RUNNER_") else error.code,
        error.message,
        where=model.name if model else None,
        hint=f"Its log is in the run directory.  {_OWN}",
        evidence=error.evidence,
    )


@dataclass(frozen=True)
class Independent:
    """What a source is held against.  reference: None where there is no runtime for it; why: in words, either way."""

    reference: RuntimeReference | None
    why: str


def available(kind: str) -> bool:
    """Whether a runtime of `RUNTIMES` is installed, without importing it."""
    return importlib.util.find_spec(RUNTIMES[kind].module) is not None


def begin(source_format: str, model: Path, log: Path, timeout: float) -> RuntimeReference | None:
    """The runtime a source of this format (onnx, tflite, tf, mnn) is run with, starting; None: there is none."""
    kind = _KINDS.get(source_format)
    return None if kind is None or not available(kind) else RuntimeReference(kind, model, log, timeout)


def independent(
    source_format: str, model: Path, log: Path, timeout: float, begun: RuntimeReference | None = None
) -> Independent:
    """What a source is held against, ready.  begun: what `begin` gave.  Raises as `RuntimeReference.ready` does."""
    reference = begun or begin(source_format, model, log, timeout)
    if reference is None:
        if (kind := _KINDS.get(source_format)) is None:
            return Independent(None, f"no independent runtime for {source_format} sources here")
        runtime = RUNTIMES[kind]
        return Independent(None, f"{runtime.title} is not installed (extra '{runtime.extra}')")
    try:
        return Independent(reference.ready(), "the source model itself")
    except InputError as error:
        if reference.name == "litert":  # the file is sound, or it would not have been read: a strange operator
            return Independent(None, error.message)
        if not available("onnx"):
            raise
        return _evaluator(model, log, timeout, error)


def _evaluator(model: Path, log: Path, timeout: float, refused: InputError) -> Independent:
    """ONNX's own evaluator, for a model that ONNX's own checker accepts and ONNX Runtime does not."""
    try:
        found = RuntimeReference("onnx", model, log, timeout).ready()
    except InputError as error:
        if error.evidence["said"] == "KERNEL_MISSING":
            return Independent(None, f"{refused.message}; and {error.message}")
        raise refused from None
    return Independent(found, f"the source model itself; {refused.message}")
