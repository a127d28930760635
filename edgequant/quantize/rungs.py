"""Makes the model of a rung of the ladder: which conversion it starts from, and which quantizer follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError, ToolError
from edgequant.models import ModelGraph, read_model
from edgequant.models.mnn.patch import outputs_of, restore_outputs
from edgequant.quantize.calibration import CalibrationSet, Shapes
from edgequant.quantize.convert import convert
from edgequant.quantize.ladder import Rung
from edgequant.quantize.offline import quantize_offline
from edgequant.quantize.offline_options import OfflineOptions
from edgequant.spec import Variant

FLOAT = Variant(method="float")
FALLBACK = Variant(method="dynamic", bits=8)


@dataclass
class RungMaker:
    """Call it with a rung to have its model made at `out`.

    Args:
        source: the source model.
        calibration: samples for it.
        options: of the method asked for; other methods take the same.
        out: the file to write.
        work: a private directory for the float models; they are kept there from rung to rung.
        log_dir: directory for logs.
        timeout: seconds for each call of MNN's tools.
        memory_limit: bytes each may allocate.
        float_model: the source as float MNN, where it was made already.
        static: makes edgequant's own static int8 model at a path; None: there is no such rung.

    What it returns is asked for, and run, as its rung says.  Calling it raises what `convert`, `quantize_offline` and
    `static` raise, and ToolError SHAPES_NOT_FIXABLE.
    """

    source: ModelGraph
    calibration: CalibrationSet
    options: OfflineOptions
    out: Path
    work: Path
    log_dir: Path
    timeout: float = 1800.0
    memory_limit: int | None = None
    static: Callable[[Path], Artifact] | None = None
    float_model: Artifact | None = None
    _floats: dict[tuple[bool, bool], Path] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, rung: Rung) -> Artifact:
        try:
            return self._make(rung).model_copy(update={"source_sha256": self.source.sha256})
        except EdgequantError as error:
            # The float models in between are gone by the time anybody reads this.
            if error.where is not None and Path(error.where).absolute().is_relative_to(self.work.absolute()):
                error.where = str(self.source.path)
            raise

    def _make(self, rung: Rung) -> Artifact:
        if rung.way == "static":
            assert self.static is not None
            return self.static(self.out)
        if rung.way == "dynamic":
            return self._convert(self.source, FALLBACK, self.out)
        assert rung.method is not None
        return quantize_offline(
            self._float(rung.origin_rnn, rung.fixed),
            self.calibration,
            self.options.model_copy(update={"method": rung.method}),
            self.out,
            log_dir=self.log_dir,
            timeout=self.timeout,
            memory_limit=self.memory_limit,
        ).file

    def _float(self, origin_rnn: bool, fixed: bool) -> Path:
        """The float model a rung starts from, made once."""
        key = (origin_rnn, fixed)
        if key not in self._floats:
            out = self.work / f"float{'-rnn' if origin_rnn else ''}{'-fixed' if fixed else ''}.mnn"
            if fixed:
                self._fix(self._float(origin_rnn, False), out)
            else:
                flags = ("--useOriginRNNImpl",) if origin_rnn else ()
                self._convert(self.source, FLOAT, out, flags)
            self._floats[key] = out
        return self._floats[key]

    def _fix(self, model: Path, out: Path) -> None:
        shapes = self.calibration.facts[0].shapes
        config = self.work / f"{out.stem}-shapes.txt"
        config.write_text(shape_config(shapes), encoding="utf-8")
        flags = ("--saveStaticModel", "--inputConfigFile", str(config.absolute()))
        self._convert(model, FLOAT, out, flags)
        # A static model does not say which tensors are its outputs, and MNN would take others.
        restore_outputs(out, outputs_of(read_model(model)))

    def _convert(self, source: Path | ModelGraph, variant: Variant, out: Path, flags: tuple[str, ...] = ()) -> Artifact:
        return convert(
            source,
            variant,
            out,
            log_dir=self.log_dir,
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            extra_flags=flags,
            float_model=self.float_model,
        )


def shape_config(shapes: Shapes) -> str:
    """Shapes as the converter's inputConfigFile wants them.  Raises ToolError SHAPES_NOT_FIXABLE."""
    for name, shape in shapes:
        # The format knows no quotes: commas part names, and # starts a comment.
        if any(letter in name for letter in ",#=\n\r") or name != name.strip() or not shape:
            raise ToolError(
                "SHAPES_NOT_FIXABLE",
                f"MNN's converter cannot be told the shape of input '{name}'",
                hint="Rename the input, or export the model with fixed shapes.",
            )
    names = ",".join(name for name, _ in shapes)
    sizes = ",".join("x".join(str(size) for size in shape) for _, shape in shapes)
    return f"input_size = {len(shapes)}\ninput_names = {names}\ninput_dims = {sizes}\n"
