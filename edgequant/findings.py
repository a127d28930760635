"""One named observation: what was seen, where, how bad it is, and what to do about it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["info", "warn", "fail", "error"]


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

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    severity: Severity
    where: str | None = None
    message: str
    evidence: dict[str, Any] = Field(default_factory=dict)
    remedy: str | None = None
