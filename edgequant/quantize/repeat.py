"""Whether MNN makes the same file of a source again.

Its converter reads memory it has never written where it takes an attribute for given: such a file is another one on
another day, and so is what is said of it.  So the float model is made twice, the second time with all memory filled
before it is used (MALLOC_PERTURB_, which glibc knows), while the first is being run.
"""

from __future__ import annotations

from collections.abc import Callable

from edgequant.archive.types import Artifact
from edgequant.background import Background
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.quantize.convert import convert
from edgequant.quantize.setup import Setup
from edgequant.quantize.work import source_sha256, work_dir
from edgequant.spec import Variant

HEAP = 165
_ITS_OWN = {"CONVERTER_CRASHED", "CONVERTER_FAILED", "CONVERTER_NO_OUTPUT", "CONVERTER_BAD_OUTPUT"}
"""What a conversion that went well once may not end with; time, memory and disk are this host's."""


class Repeat:
    """A float conversion once more, begun with it and looked at later."""

    def __init__(self, setup: Setup, made: Artifact, same: Callable[[], None]) -> None:
        """same: done, by whoever asks for `findings`, where it came out as `made`."""
        self._setup, self._made, self._same = setup, made, same
        self._work = Background(self._again)

    def _again(self) -> str | EdgequantError | OSError:
        """The hash of what came out, or why nothing did."""
        setup = self._setup
        try:
            with work_dir(setup.models) as work:
                tools = setup.tools()
                tools["log_dir"], tools["float_model"] = work, None
                return convert(setup.source, Variant(method="float"), work / "again.mnn", heap=HEAP, **tools).sha256
        except (EdgequantError, OSError) as error:
            return error

    def wait(self) -> None:
        """Until nothing of it is left."""
        self._work.wait()

    def findings(self) -> tuple[Finding, ...]:
        """What is to be said, once it is there."""
        found = self._work.result()
        if found == self._made.sha256:
            self._same()
            return ()
        if not isinstance(found, str) and getattr(found, "code", None) not in _ITS_OWN:
            return ()  # it could not be tried
        if source_sha256(self._setup.source) != self._setup.source.sha256:
            return ()  # it is not the same source any more
        how = "another file" if isinstance(found, str) else f"none at all ({found})"
        return (
            Finding(
                code="CONVERSION_NOT_REPRODUCIBLE",
                severity="error",
                message="MNN's converter reads memory it never wrote: with other contents of that, the same source "
                f"gives {how}, so what is said of this one is chance",
                evidence={"sha256": self._made.sha256, "again": found if isinstance(found, str) else str(found)},
                remedy="Export the model with all attributes of its operators written out, and report it to MNN.",
            ),
        )
