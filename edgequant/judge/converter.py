"""What the converter did other than it was asked."""

from __future__ import annotations

from edgequant.archive.types import Artifact
from edgequant.findings import Finding
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict


def made_otherwise(artifact: Artifact) -> Observed:
    """What the converter did other than it was asked.  Weights that stayed float prove nothing about quantized ones."""
    method = artifact.run_as.method
    if method == "weight" and not artifact.quantized_layers:
        finding = Finding(
            code="NOTHING_QUANTIZED",
            severity="error",
            message="no layer has weights of a kind or size that MNN quantizes: the file is a float model",
            evidence={"float_layers": artifact.float_layers, "log": artifact.log},
            remedy="There is nothing to gain from quantizing this model: use fp16 or float.",
        )
        return Observed((finding,), Verdict.INCONCLUSIVE)
    if method == "dynamic" and not artifact.quantized_layers:
        return NOTHING  # the finding about low memory says so
    return Observed(
        tuple(
            Finding(code="CONVERTER_WARNING", severity="warn", message=text, evidence={"log": artifact.log})
            for text in artifact.warnings
        )
    )
