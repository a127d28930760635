"""The bench for defects that only show while something runs: this host with a Python of its own, as another device."""

from __future__ import annotations

import functools
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edgequant import device_scripts
from edgequant.cases.load import save_npz
from edgequant.errors import EdgequantError
from edgequant.jobs.explain import verify
from edgequant.lab.session import DeviceOptions
from edgequant.plan.request import Request
from edgequant.runner import bundle
from edgequant.spec import RunOptions
from tests.defects.outcome import Said
from tests.defects.tampering import TAMPERED

HERE = Path(__file__).parent
SHIPPED = ("mechanisms.py", "outputs.py", "stateful.py", "tampering.py")
MAIN = """
from device_scripts import tampering
tampering.begin({name!r}, {argument!r}, {mark!r})
"""

Cases = Mapping[str, Mapping[str, np.ndarray]]


def tampered_runner(name: str, argument: str, mark: Path) -> bytes:
    """The product's runner, with a defect in front of it."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(bundle.zipped(Path(device_scripts.__file__).parent))) as plain,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in plain.namelist():
            text = plain.read(entry).decode()
            if entry == "__main__.py":
                first, found, rest = text.partition("from device_scripts.main import main")
                assert found, "the runner begins in another way than it did"
                text = first + MAIN.format(name=name, argument=argument, mark=str(mark)) + found + rest
            target.writestr(entry, text)
        for file in SHIPPED:
            target.writestr(f"device_scripts/{file}", (HERE / file).read_bytes())
    return buffer.getvalue()


@contextmanager
def _sent(runner: bytes, folder: Path) -> Iterator[None]:
    """Every runner that is started is this one, and is kept in this folder."""
    with (
        mock.patch.object(bundle, "runner_bytes", return_value=runner),
        mock.patch("edgequant.lab.session._cache_folder", return_value=folder),
    ):
        yield


@dataclass(frozen=True)
class Procedure:
    """What is run: the product's whole job, on a device of the bench or, without one, on this host alone.

    model: makes it in a folder.  cases: its inputs; None for random ones.  uri: of the device, where there is one.
    diagnose: look into what FAILs.  more: of the request.  files: writes what the request names into a folder, and
    returns its fields.
    """

    model: Callable[[Path], Path]
    variant: str = "dynamic:8"
    cases: Callable[[], Cases] | None = None
    device: bool = True
    diagnose: bool = False
    uri: str = "local:"
    options: RunOptions = field(default_factory=lambda: RunOptions(threads=1, timeout=120))
    more: Mapping[str, Any] = field(default_factory=dict)
    files: Callable[[Path], Mapping[str, Any]] | None = None

    def run(
        self, tamper: str = "nothing", argument: str = "", around: AbstractContextManager[Any] | None = None
    ) -> Said:
        """Run it with a defect in the device's runner, or within something that makes one elsewhere.

        What the product refuses counts as said as well.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            more = dict(self.more) | dict(self.files(folder) if self.files else {})
            if self.cases is not None:
                more["inputs"] = saved(folder / "inputs", self.cases())
            mark = folder / "mark"
            if self.device:
                python = _python(folder) if self.uri == "local:" else None
                more["access"] = DeviceOptions(python=python, work_dir=str(folder / "work"))
            request = Request(
                self.model(folder), (self.uri,), (self.variant,), options=self.options, run_dir=folder / "run",
                **{"latency": self.device, "diagnose": self.diagnose} | more,
            )  # fmt: skip
            with _sent(tampered_runner(tamper, argument, mark), folder), around or nullcontext():
                try:
                    report, _ = verify(request)
                except EdgequantError as error:
                    return Said("ERROR", ((error.code, "error"),))
            assert mark.exists() == self.device, f"{tamper} never came to be"
            return Said.by(report)

    @functools.cached_property
    def healthy(self) -> Said:
        """With nothing planted; run once."""
        return self.run()


def saved(folder: Path, cases: Cases) -> Path:
    """Cases as --inputs, --calibration and --reference take them."""
    folder.mkdir()
    for case, arrays in cases.items():
        save_npz(folder / f"{case}.npz", arrays)
    return folder


def _python(folder: Path) -> str:
    """This Python under another name, which makes it another device than this host."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\n{TAMPERED}=1 exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)
