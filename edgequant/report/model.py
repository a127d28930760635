"""What a report holds: the published schema ``edgequant.report/1``.  Keys may be added, never renamed.

A value that was not measured is null; `why_null` beside it tells why.  Numbers are finite: JSON has no NaN.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import PurePath
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from edgequant.archive.types import LayerCounts
from edgequant.compare.summary import OutputSummary
from edgequant.compare.table import TABLE
from edgequant.findings import Finding
from edgequant.judge.latency import Latency
from edgequant.judge.verdict import OutputVerdict, Verdict, severity, worst
from edgequant.report.diagnosis import DiagnosisReport

SCHEMA = "edgequant.report/1"
LOADING = {"loading": True}
"""Validation context of read.py: a newer minor version may have added keys, which a reader skips.  When a report is
built, an unknown key is a mistake."""


def _known(model: type[BaseModel], data: Any, info: ValidationInfo) -> Any:
    if not (info.context and info.context.get("loading")) or not isinstance(data, dict):
        return data
    names = {field.alias or name for name, field in model.model_fields.items()}
    return {key: value for key, value in data.items() if key in names}


class _Model(BaseModel, defer_build=True):
    # protected_namespaces: "model_file" is a name of the contract.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _skip_unknown(cls, data: Any, info: ValidationInfo) -> Any:
        data = _known(cls, data, info)
        if isinstance(data, dict):
            # Classes of other rooms that have no such validator of their own.
            for key, model in (("findings", Finding), ("latency_ms", Latency)):
                held = data.get(key) if key in cls.model_fields else None
                if isinstance(held, list):
                    data = {**data, key: [_known(model, item, info) for item in held]}
                elif held is not None:
                    data = {**data, key: _known(model, held, info)}
        return data


class TensorInfo(_Model):
    """An input or output: shape entries are null where dynamic; shape is null where even the rank is unknown."""

    name: str
    dtype: str
    shape: list[int | None] | None = None


class ModelInfo(_Model):
    """The source model."""

    path: str
    sha256: str
    inputs: list[TensorInfo] = Field(default_factory=list)
    outputs: list[TensorInfo] = Field(default_factory=list)
    format: str | None = None
    bytes: int | None = Field(default=None, ge=0)


class ReferenceInfo(_Model):
    """What the outputs were held against.

    kind: "onnxruntime", "onnx", "litert", "mnn-float" or "file".  version: of that runtime.  why: the reason for this
    one.
    """

    kind: str
    version: str | None = None
    why: str | None = None


class CaseInfo(_Model):
    """One case.  source: "random seed 0", or the file it was read from.  steps: more than 1 for a rollout."""

    name: str
    shapes: dict[str, list[int]] = Field(default_factory=dict)
    source: str | None = None
    steps: int = Field(default=1, ge=1)


class DeviceInfo(_Model):
    """Facts of the device, as far as it told them."""

    uri: str
    arch: str | None = None
    cpu: str | None = None
    features: list[str] = Field(default_factory=list)
    mnn: str | None = None
    cores: int | None = None
    ram_mb: float | None = None
    emulated: bool = False
    is_host: bool = False
    os: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class LimitReport(_Model):
    """One limit as it was applied: value null where the metric is undefined for this output."""

    metric: str
    op: Literal[">=", "<="]
    bound: float
    value: float | None = None
    verdict: Verdict
    case: str | None = None


class Metrics(_Model):
    """Those of edgequant.compare.TensorComparison; null where one is undefined.  sqnr_db is capped at +-200.

    nan, inf: how many the output has; ref_nan, ref_inf: how many the reference has.  exact: they are equal.
    """

    cosine: float | None = None
    centered_cosine: float | None = None
    centered_sqnr_db: float | None = None
    sqnr_db: float | None = None
    max_abs: float | None = None
    rel_max: float | None = None
    mean_abs: float | None = None
    p99_abs: float | None = None
    mismatch: float | None = None
    nan: int = 0
    inf: int = 0
    ref_nan: int = 0
    ref_inf: int = 0
    exact: bool = False


class CaseMetrics(Metrics):
    """One output in one case.  problem: why it could not be compared, or not as a whole, in words."""

    problem: str | None = None


class OutputReport(Metrics):
    """One output over all cases: the worst of each metric; null where it is undefined (see why_null).

    reasons: what kept the output from PASS, in words.  by_case: name of a case -> its own metrics.  decision: what it
    decides (probabilities, scores, classes, an ordered list, a set), as far as the graph tells.
    """

    kind: Literal["float", "int"] = "float"
    cases: int = 0
    verdict: Verdict
    worst_case: str | None = None
    limits: list[LimitReport] = Field(default_factory=list)
    reasons: list[str] = Field(default_factory=list)
    why_null: dict[str, str] = Field(default_factory=dict)
    by_case: dict[str, CaseMetrics] = Field(default_factory=dict)
    decision: str | None = None


class ErrorEntry(_Model):
    """The error one stage (conversion, quantization, device) adds to one output."""

    sqnr_db: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    rel_max: float | None = None
    mismatch: float | None = None
    exact: bool = False
    problem: str | None = None


class ErrorsByStage(_Model):
    """Output name -> error, for each stage; a stage that was not measured is empty, and why_null says why.

    Parts: see `judge.types.Stages`.  predicted: dB SQNR that rounding activations should leave, where it is known.
    """

    conversion: dict[str, ErrorEntry] = Field(default_factory=dict)
    quantization: dict[str, ErrorEntry] = Field(default_factory=dict)
    device: dict[str, ErrorEntry] = Field(default_factory=dict)
    weights: dict[str, ErrorEntry] = Field(default_factory=dict)
    activations: dict[str, ErrorEntry] = Field(default_factory=dict)
    kernels: dict[str, ErrorEntry] = Field(default_factory=dict)
    predicted: dict[str, float] = Field(default_factory=dict)
    why_null: dict[str, str] = Field(default_factory=dict)


class DriftCurve(_Model):
    """An error along the steps.  octaves: [last step, SQNR in dB against the whole rollout's signal] for the steps 1,
    2, 3-4, 5-8, ...  kind: exact, steady, saturates, grows or explodes, as the slope (dB an octave, with its standard
    error; null where there are too few octaves) and the levels say."""

    octaves: list[tuple[int, float]]
    kind: str
    slope_db: float | None = None
    slope_error: float | None = None


class OutputDrift(_Model):
    """One output in a rollout.  curves: total (source against device), conversion, quantization, device.  limit: held
    along the steps; breaks_at: the first step that breaks it, null where none does; stage: whose it is."""

    curves: dict[str, DriftCurve] = Field(default_factory=dict)
    limit: str | None = None
    breaks_at: int | None = None
    stage: str | None = None


class Memory(_Model):
    """MB (10^6 bytes).  session: what MNN says it holds; rss and pss: what the system says of the process."""

    model_file: float | None = None
    session: float | None = None
    rss_before: float | None = None
    rss_load: float | None = None
    rss_peak: float | None = None
    pss_peak: float | None = None
    why_null: dict[str, str] = Field(default_factory=dict)


class Failure(_Model):
    """Why something could not be run: EdgequantError.as_dict()."""

    code: str
    message: str
    where: str | None = None
    hint: str | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)


class CalibrationShapes(_Model):
    """Sizes by input, and how many samples have them."""

    samples: int = Field(ge=1)
    inputs: dict[str, list[int]]


class CalibrationInfo(_Model):
    """What the ranges of a static model came from.

    source: a path, ``module:function``, or "random, seed N"; samples: how many were used; shapes: the commonest first;
    images: what was done to pictures, null where there are none; cases: they are the cases the model is judged on.
    """

    source: str
    samples: int = Field(ge=1)
    shapes: list[CalibrationShapes] = Field(default_factory=list)
    images: str | None = None
    cases: bool = False


class Run(_Model):
    """One variant on one device.

    counts: how much of its file is in 8 bits or fewer; null in reports of before. low_memory_engaged: whether dynamic
    quantization really took place; null where it was not asked for or cannot be known, and low_memory_why says which.
    rollout_steps: that were run, null where no rollout was asked for; drift: what they come to, by output. timing_s:
    seconds per phase. error: why it could not be run. made_as: what the file is, where another way to quantize had to
    take the place of the variant that was asked for; steps: what was tried on the way, in order. calibration: the data
    it was made from; null where it needed none. independent_cases: of the user's own, with inputs of their own;
    failing_share_95: of all inputs, that may fail although none of these did (95 %), null where there are none or one
    failed. diagnosis: where the error enters, why, and what to do; null where nobody has looked.
    """

    device: DeviceInfo
    variant: str
    made_as: str | None = None
    steps: list[dict[str, Any]] = Field(default_factory=list)
    calibration: CalibrationInfo | None = None
    verdict: Verdict
    counts: LayerCounts | None = None
    low_memory_engaged: bool | None = None
    low_memory_why: str | None = None
    independent_cases: int = Field(default=0, ge=0)
    failing_share_95: float | None = None
    outputs: dict[str, OutputReport] = Field(default_factory=dict)
    errors: ErrorsByStage = Field(default_factory=ErrorsByStage)
    rollout_steps: int | None = None
    drift: dict[str, OutputDrift] = Field(default_factory=dict)
    latency_ms: Latency | None = None
    latency_why: str | None = None
    memory_mb: Memory | None = None
    memory_why: str | None = None
    findings: list[Finding] = Field(default_factory=list)
    diagnosis: DiagnosisReport | None = None
    error: Failure | None = None
    file: str | None = None
    sha256: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    timing_s: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_better_than_its_parts(self) -> Run:
        if self.error is not None and self.verdict not in (Verdict.ERROR, Verdict.FAIL):
            raise ValueError(f"a run with an error cannot be {self.verdict}")
        if self.outputs:
            parts = worst(output.verdict for output in self.outputs.values())
            # Of a reference that belongs to another case, what it breaks proves nothing either.
            void = self.verdict is Verdict.INCONCLUSIVE and parts is Verdict.FAIL
            if severity(self.verdict) < severity(parts) and not void:
                raise ValueError(f"verdict {self.verdict} is better than its outputs' {parts}")
        return self


class Report(_Model):
    """The whole report."""

    schema_: Literal["edgequant.report/1"] = Field(default="edgequant.report/1", alias="schema")
    verdict: Verdict
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc).replace(microsecond=0))
    edgequant: str
    mnn: str | None = None
    model: ModelInfo
    reference: ReferenceInfo | None = None
    cases: list[CaseInfo] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)
    host: DeviceInfo | None = None
    runs: list[Run] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)
    timing_s: dict[str, float] = Field(default_factory=dict)

    def __repr__(self) -> str:
        runs = f"{len(self.runs)} run{'' if len(self.runs) == 1 else 's'}"
        return f"<Report {self.verdict}: {runs}, model {PurePath(self.model.path).name}>"

    @model_validator(mode="after")
    def _not_better_than_its_runs(self) -> Report:
        parts = worst(run.verdict for run in self.runs)
        if severity(self.verdict) < severity(parts):
            of = f"its runs' {parts}" if self.runs else "a report without runs can be"
            raise ValueError(f"verdict {self.verdict} is better than {of}")
        return self


def output_report(summary: OutputSummary, judged: OutputVerdict, decision: str | None = None) -> OutputReport:
    """The entry of one output, from its summary and its verdict."""
    values = {metric: summary.values.get(metric) for metric in TABLE}
    return OutputReport.model_validate(
        {
            **values,
            "nan": summary.nan,
            "inf": summary.inf,
            "ref_nan": summary.ref_nan,
            "ref_inf": summary.ref_inf,
            "exact": summary.exact,
            "kind": summary.kind,
            "cases": summary.cases,
            "verdict": judged.verdict,
            "worst_case": summary.worst_case,
            "decision": decision,
            "limits": [
                LimitReport(
                    metric=result.limit.metric,
                    op=result.limit.op,
                    bound=result.limit.value,
                    value=result.value,
                    verdict=result.verdict,
                    case=result.case,
                )
                for result in judged.results
            ],
            "reasons": list(judged.reasons),
            "why_null": {metric: _why_null(summary, metric) for metric, value in values.items() if value is None},
            "by_case": {
                case: {name: getattr(each, name) for name in Metrics.model_fields}
                | {"problem": summary.details.get(case)}
                for case, each in summary.by_case.items()
            },
        }
    )


def _why_null(summary: OutputSummary, metric: str) -> str:
    if summary.kind == "int":
        return "not defined for integers and bool"
    if metric == "mismatch":
        return "for integers and bool only"
    if summary.zero_cases and not summary.problems:
        return "the reference is all zero"
    if metric in ("centered_cosine", "centered_sqnr_db") and summary.values.get("max_abs") is not None:
        return "reference or output is constant"
    if summary.empty_cases and not summary.problems:
        return "no elements"
    return "; ".join(sorted(set(summary.details.values()))) or "no case was compared"


def error_entry(summary: OutputSummary) -> ErrorEntry:
    """The entry of one output under errors.conversion, .quantization or .device."""
    values = {metric: summary.values.get(metric) for metric in ErrorEntry.model_fields if metric in summary.values}
    problem = next((f"{what} in {case}" for case, what in summary.details.items()), None)
    return ErrorEntry.model_validate({**values, "exact": summary.exact, "problem": problem})
