"""What every record of an archive is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from edgequant.errors import DeviceError, EdgequantError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(max_length=4000)]


class Record(BaseModel):
    """Base of all of these.  A later version may have written more than this one knows."""

    # defer_build: a command reads or writes few of some hundred records, and building all takes a third of a second.
    model_config = ConfigDict(
        extra="ignore", frozen=True, ser_json_inf_nan="strings", allow_inf_nan=False, defer_build=True
    )


class ArrayRef(Record):
    """An array: SHA-256 of its .npy file, NumPy's name of its dtype, shape."""

    sha256: Sha256
    dtype: str = Field(max_length=20)
    shape: tuple[int, ...]


class Failure(Record):
    """Why something could not be done: an EdgequantError as data."""

    code: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    message: str
    where: str | None = None
    hint: str | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: EdgequantError) -> Failure:
        return cls.model_validate(error.as_dict())

    def error(self) -> DeviceError:
        """The same, to be raised."""
        return DeviceError(self.code, self.message, where=self.where, hint=self.hint, evidence=self.evidence)
