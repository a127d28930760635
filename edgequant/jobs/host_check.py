"""The look a ladder takes at a file it has made: is it sane on this host, and is this host to blame where it is not."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgequant.archive.types import Artifact
from edgequant.cases.case import Case
from edgequant.errors import RunnerError
from edgequant.files import disk_error
from edgequant.judge.kernel_faults import pools_wrong, some
from edgequant.judge.sane import Sanity, sanity
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Place, each_case
from edgequant.mnn_version import host_mnn_version
from edgequant.models.mnn.static_int8 import read_static, with_float_pools
from edgequant.models.model import BrokenFileError
from edgequant.quantize.search.cache import cases_digest, digest
from edgequant.spec import MemoryMode

Outputs = Mapping[str, np.ndarray]

CHECKED_CASES = 3
"""Cases a rung's model must get through on this host: enough to see nonsense, the verdict comes later."""


@dataclass(frozen=True)
class HostCheck:
    """Call it with a file that a ladder has made, and a folder that its owner removes, even that of one who was killed.
    Raises RunnerError where the file crashes or does not load.

    On x86 MNN computes int8 max pools wrong.  So where this host says that a file with such pools is no good, a copy
    with these in float is looked at, which computes what ARM computes (`with_float_pools`).  If that is no good either,
    neither is the file.  If it is, the file is taken where an ARM device will judge it.  Where no such copy can be made
    nobody knows, and the file is left to an ARM device only if nothing else may be tried.

    Attributes:
        expected: the reference outputs of a case, by its name.
        arm: one of the devices that will judge the file is an ARM CPU, not this host.
        fallback: other ways may be tried.
    """

    host: Session
    cases: Sequence[Case]
    expected: Callable[[str], Outputs]
    arm: bool
    fallback: bool

    def key(self) -> str:
        """What its answers depend on besides the file, the MNN and the CPU's kind."""
        cases = [(case.inputs, self.expected(case.name)) for case in self.cases[:CHECKED_CASES]]
        names = [case.name for case in self.cases[:CHECKED_CASES]]
        arrays = cases_digest([arrays for case in cases for arrays in case])
        return digest(self.arm, self.fallback, names, arrays)

    def __call__(self, made: Artifact, work: Path) -> Sanity:
        found = self._look(made.path, made.run_as.default_memory)
        if found.ok or not pools_wrong(platform.machine(), host_mnn_version()):
            return found
        try:
            pools = read_static(made.path).max_pools
            data, left = with_float_pools(made.path)
        except BrokenFileError:
            return found
        return self._doubted(found, pools, data, work / "float-pools.mnn", known=not left) if pools else found

    def _doubted(self, found: Sanity, pools: Sequence[str], data: bytes, twin: Path, *, known: bool) -> Sanity:
        """`data`: of the copy, which goes to `twin`; `known`: all of the pools are in float there."""
        fault = f"MNN's int8 max pools are wrong on x86 ({some(pools)})"
        try:
            twin.write_bytes(data)
        except OSError as error:
            raise disk_error(twin, error) from None
        try:
            again = self._look(twin, "normal")
        except RunnerError:
            again, known = found, False
        if again.ok:
            doubt = f"this host is why: {fault}, and with these in float the file is sane ({again.why})"
            return replace(found, ok=self.arm, doubt=doubt)
        if not known:
            doubt = f"this host may be why: {fault}, and whether the file is better than that cannot be found out here"
            return replace(found, ok=self.arm and not self.fallback, doubt=doubt)
        return found

    def _look(self, path: Path, memory: MemoryMode) -> Sanity:
        """Run it here on a few cases and look at what comes out."""
        try:
            place = Place.load(self.host, ModelFile(path, memory, precision="normal"))
            found = sanity(self._each(place))
            place.unload()
        except RunnerError:
            self.host.drop_runner()  # a model that crashes must not take the next one's runner with it
            raise
        return found

    def _each(self, place: Place) -> Iterator[tuple[str, Outputs, Outputs]]:
        for case, result in each_case(place, self.cases[:CHECKED_CASES]):
            if isinstance(result, RunnerError):
                raise result
            yield case.name, self.expected(case.name), result.outputs
