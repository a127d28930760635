"""Every error edgequant raises on purpose.

An error says what happened, where (device, model), why, and what to do next.  People read one line
(`str(error)`) and the hint; machines read `code`, which never changes once published, and which decides the process
exit code (`edgequant.blame`): bad input and models that cannot be made are 2, what kept a run from being judged is 3.
"""

from __future__ import annotations

from typing import Any

from edgequant import blame
from edgequant.text import EVIDENCE, NAME, bounded, shortened

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_ERROR = 3
EXIT_INCONCLUSIVE = 4
EXIT_INTERRUPTED = 130


class EdgequantError(Exception):
    """Base of all errors edgequant raises on purpose.

    Args:
        code: stable upper-case identifier for machines, for example ``HOST_KEY_UNKNOWN``.
        message: one line for people, without a trailing full stop.
        hint: what to do next, one or two sentences; None when the message says it all.
        where: the device URI, model path or layer it happened on.
        evidence: JSON-compatible details (log tail, exit status, fingerprints, ...).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        where: str | None = None,
        evidence: dict[str, Any] | None = None,
    ) -> None:
        # Names out of a model, a file or a device may have megabytes.
        message = shortened(message)
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = None if hint is None else shortened(hint)
        self.where = None if where is None else shortened(where, EVIDENCE)
        self.evidence: dict[str, Any] = bounded(evidence or {})

    @property
    def exit_code(self) -> int:
        """By whose fault it is; the class decides where the code is not in the table (`edgequant.blame`)."""
        return blame.exit_code(self.code, EXIT_ERROR)

    def __str__(self) -> str:
        # Where it happened is half of the message, unless the message names it already.
        if self.where and self.where not in self.message:
            return f"{shortened(self.where, NAME).removesuffix(':')}: {self.message}"
        return self.message

    def as_dict(self) -> dict[str, Any]:
        """The error as one JSON object: code, message, where, hint, evidence."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
            "evidence": self.evidence,
        }


class InputError(EdgequantError):
    """What the user gave cannot be used: file, option, array, limit, URI.  Exit code 2, also where this host cannot run
    a model: what is a device's failure elsewhere is the model's own then."""

    @property
    def exit_code(self) -> int:
        return EXIT_USAGE


def as_input(error: EdgequantError, hint: str) -> InputError:
    """The same as a failure of what was given."""
    return InputError(error.code, error.message, hint=hint, where=error.where, evidence=error.evidence)


class DeviceError(EdgequantError):
    """The device cannot be used for this run; says nothing about the model.  Exit code 3.

    ``transient`` is true where trying again without changing anything may work (link lost, device busy), false
    where somebody has to act first (wrong key, no space, no MNN).
    """

    def __init__(self, code: str, message: str, *, transient: bool = False, **kwargs: Any) -> None:
        super().__init__(code, message, **kwargs)
        self.transient = transient


class DeadlineExceeded(DeviceError):
    """Something on the device, or on the way to it, did not finish in its time."""

    def __init__(self, message: str, *, code: str = "TIMEOUT", **kwargs: Any) -> None:
        kwargs.setdefault("transient", True)
        super().__init__(code, message, **kwargs)


class RunnerError(DeviceError):
    """The runner on the device died, answered nonsense, or refused a job."""


class ToolError(EdgequantError):
    """A child process around native code (converter, quantizer, reference) crashed, hung or produced nothing usable."""
