"""A run's folder, read back: by a later version too, and on another machine.

Nothing in it is trusted: every file is bounded in size and validated, arrays are hashed when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from edgequant.archive.arrays import ArrayFolder
from edgequant.archive.folder import FLOAT_HOST, MAX_BYTES, REFERENCE, device_capture, host_capture, safe_name
from edgequant.archive.types import Capture, CaseCapture, Closing, Making, Plan, Source
from edgequant.errors import InputError
from edgequant.files import read_bounded
from edgequant.problems import first_problem
from edgequant.spec import Variant

if TYPE_CHECKING:
    from edgequant.archive.layers import LayerCapture

Model = TypeVar("Model", bound=BaseModel)
Migration = Callable[[dict[str, Any]], dict[str, Any]]

MIGRATIONS: Mapping[str, Migration] = {}
"""Schema of a record that an older version wrote -> what turns it into that of the next version.  It is applied until
there is none for the result.  So far there is one version of each."""


@dataclass(frozen=True)
class Run:
    """An archive.  Records are read when they are first asked for, arrays whenever they are.

    Raises (from everything) InputError (RUN_INVALID) where a file is missing that has to be there, or is not what it
    was; ToolError (CAPTURE_UNREADABLE) for arrays.
    """

    path: Path

    def __repr__(self) -> str:
        devices, variants = len(self.plan.devices), len(self.plan.variants)
        return f"<Run {self.path}: {Path(self.plan.model).name}, {variants} variant(s) on {devices} device(s)>"

    @cached_property
    def arrays(self) -> ArrayFolder:
        return ArrayFolder(self.path / "arrays")

    @cached_property
    def plan(self) -> Plan:
        return self._need("plan", Plan)

    @cached_property
    def source(self) -> Source:
        return self._need("source", Source)

    @property
    def prepared(self) -> bool:
        """Whether it got as far as having cases and their reference."""
        return (self.path / "source.json").exists() and bool(self.source.cases) and self.capture(REFERENCE) is not None

    @property
    def float_file(self) -> Path | None:
        """The float .mnn: in the folder, or the source where that is one; None where it is not there any more."""
        wanted = self.source.float_sha256 or "none"
        for path in sorted((self.path / "models").glob("*.mnn")):
            if len(tail := path.stem.rpartition("-")[2]) >= 16 and wanted.startswith(tail):
                return path
        source = Path(self.source.path)
        return source if self.source.format == "mnn" and source.is_file() else None

    @property
    def closing(self) -> Closing:
        return self._read("closing", Closing) or Closing()

    @cached_property
    def reference(self) -> Capture:
        return self._need(f"captures/{REFERENCE}", Capture)

    @cached_property
    def float_host(self) -> Capture | None:
        """Float MNN on the host; None where it is the reference itself."""
        return self.capture(FLOAT_HOST)

    def making(self, variant: Variant) -> Making | None:
        """What became of a variant; None where it was not tried."""
        return self._read(f"artifacts/{safe_name(str(variant))}", Making)

    def capture(self, name: str) -> Capture | None:
        return self._read(f"captures/{name}", Capture)

    def on_device(self, uri: str, variant: Variant) -> Capture | None:
        return self.capture(device_capture(uri, variant))

    def on_host(self, variant: Variant) -> Capture | None:
        return self.capture(host_capture(variant))

    def layers(self, uri: str, variant: Variant) -> LayerCapture | None:
        """What a diagnosis captured; None where there was none."""
        from edgequant.archive.layers import LayerCapture  # most runs are not diagnosed

        return self._read(f"layers/{device_capture(uri, variant)}", LayerCapture)

    def diagnosis(self, uri: str, variant: Variant, model: type[Model]) -> Model | None:
        """What a diagnosis has said; None where there was none.  model: `report.diagnosis.DiagnosisReport`."""
        return self._read(f"diagnoses/{device_capture(uri, variant)}", model)

    def inputs(self, case: str) -> dict[str, np.ndarray]:
        """A case's inputs by name."""
        found = next(each for each in self.source.cases if each.name == case)
        return {name: self.arrays.get(ref) for name, ref in found.inputs.items()}

    def outputs(self, capture: Capture, case: str) -> dict[str, np.ndarray] | None:
        """What came out of a case; None where it was not run or was refused."""
        found = next((each for each in capture.cases if each.case == case), None)
        return None if found is None else self.arrays_of(found)

    def arrays_of(self, case: CaseCapture) -> dict[str, np.ndarray] | None:
        if case.outputs is None:
            return None
        return {name: self.arrays.get(ref) for name, ref in case.outputs.items()}

    def _need(self, name: str, model: type[Model]) -> Model:
        found = self._read(name, model)
        if found is None and not self.closing.ended:
            raise InputError(
                "RUN_INVALID",
                f"{self.path}: interrupted before there was anything to judge: it has no {name}.json",
                hint=f"`edgequant verify --resume {self.path}` goes on with it.",
            )
        if found is None:
            raise invalid(self.path, f"it has no {name}.json")
        return found

    def _read(self, name: str, model: type[Model]) -> Model | None:
        return read_record(self.path, name, model)


def read_record(folder: Path, name: str, model: type[Model]) -> Model | None:
    """A record of a run's folder; None where it is not there.  Raises InputError (RUN_INVALID)."""
    path = folder / f"{name}.json"
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise invalid(path, "not a file")
    try:
        data = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise invalid(path, error.strerror or str(error)) from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise invalid(path, f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise invalid(path, "not a JSON object")
    return _validated(path, migrated(document), model)


def migrated(document: dict[str, Any]) -> dict[str, Any]:
    """The document as the present version writes it."""
    seen: set[str] = set()
    while isinstance(schema := document.get("schema"), str) and schema in MIGRATIONS and schema not in seen:
        seen.add(schema)
        document = MIGRATIONS[schema](document)
    return document


def _validated(path: Path, document: dict[str, Any], model: type[Model]) -> Model:
    field = model.model_fields.get("schema_")
    if field is not None and document.get("schema") != field.default:
        raise invalid(path, f"it has schema '{str(document.get('schema'))[:60]}', this version reads '{field.default}'")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid(path, first_problem(error)) from None


def open_run(path: str | Path) -> Run:
    """Open the folder of a run, given itself or as a file in it, such as its report.json.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID).
    """
    folder = Path(path)
    if folder.is_file() and (folder.parent / "plan.json").exists():
        folder = folder.parent
    if not folder.is_dir():
        what = "a file that lies in no folder of a run" if folder.exists() else "no such folder"
        raise InputError("RUN_NOT_FOUND", f"{folder}: {what}", hint="Give the folder that --run-dir named.")
    run = Run(folder)
    if not (folder / "plan.json").exists():
        if (folder / "accept.json").exists():
            raise InputError(
                "RUN_INVALID",
                f"{folder}: the folder of an acceptance, which holds several runs",
                hint="Name one of them, such as " + _first_trial(folder) + "; `edgequant accept --resume` goes on with "
                "the whole.",
            )
        raise InputError(
            "RUN_INVALID",
            f"{folder}: not the folder of a run, or of a version that kept none of what judging needs: "
            "it has no plan.json",
            hint="Give the folder that --run-dir named, or verify the model anew; `edgequant report` shows a "
            "report.json of any version.",
        )
    _ = run.plan  # now, so that what is wrong with it is told by whoever opens it
    return run


def _first_trial(folder: Path) -> str:
    found = next(iter(sorted(folder.glob("trials/*/attempt-*/plan.json"))), None)
    return str(folder / "trials/PART/attempt-1" if found is None else found.parent)


def invalid(where: Path, why: str) -> InputError:
    """RUN_INVALID."""
    return InputError("RUN_INVALID", f"{where}: {why}", hint="The folder is damaged, or of another version.")
