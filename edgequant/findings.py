"""One named observation: what was seen, where, how bad it is, and what to do about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgequant.text import EVIDENCE, bounded, shortened

Severity = Literal["info", "warn", "fail", "error"]


_Said = Annotated[str, AfterValidator(shortened)]


class Finding(BaseModel):
    """A finding of a run or of a look at a model.

    Attributes:
        code: stable upper-case identifier, for example ``LOW_MEMORY_NOT_ENGAGED``.
        severity: info (worth knowing), warn (a risk), fail (the model is not good enough), error (it could not be
            judged).
        where: output, layer, input or device it is about.
        message: one line for people.
        evidence: JSON-compatible numbers and names behind it.
        remedy: what to do about it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    code: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    severity: Severity
    where: Annotated[str, AfterValidator(lambda text: shortened(text, EVIDENCE))] | None = None
    message: _Said
    evidence: Annotated[dict[str, Any], AfterValidator(bounded)] = Field(default_factory=dict)
    remedy: _Said | None = None
