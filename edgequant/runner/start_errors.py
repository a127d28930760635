"""Why a program in Python did not start on a device."""

from __future__ import annotations

import signal

from edgequant.devices.protocol import CommandResult, Device
from edgequant.errors import DeviceError, RunnerError


def no_python(device: Device, result: CommandResult, said: str) -> DeviceError | None:
    """That Python itself could not be started, by the exit status with which shells say so; None for any other.

    said: the last line on stderr.
    """
    python = " ".join(device.python)[:300]
    evidence = {"exit_code": result.exit_code, "stderr": [said]}
    if result.exit_code == 126:
        return DeviceError(
            "PYTHON_NOT_EXECUTABLE",
            f"{python} is there, but cannot be executed ({said[:300]})",
            where=device.uri,
            hint="Make it executable for this user there (chmod +x, a file system without noexec, a Python for this "
            "CPU), or name another one with --python.",
            evidence=evidence,
        )
    if result.exit_code == 127:
        return DeviceError(
            "PYTHON_MISSING",
            f"there is no {python} on the device ({said[:300]})",
            where=device.uri,
            hint="Install Python 3.8 or newer there (Debian: apt-get install python3 python3-pip; then "
            f"{python} -m pip install MNN numpy), or name another one with --python; 64-bit ARM devices need none with "
            "--runtime pack.",
            evidence=evidence,
        )
    return None


def python_too_old(device: Device, version: str) -> DeviceError:
    return DeviceError(
        "PYTHON_TOO_OLD",
        f"{' '.join(device.python)[:300]} there is Python {version}, the runner needs 3.8 or newer",
        where=device.uri,
        hint="Install a newer Python there, or name one with --python.",
    )


def module_missing(device: Device, module: str, why: str) -> DeviceError:
    """module: "numpy" or "MNN"."""
    python = " ".join(device.python)[:300]
    return DeviceError(
        f"{module.upper()}_MISSING",
        f"{python} there cannot import {module} ({why})",
        where=device.uri,
        hint=f"Install them on the device: {python} -m pip install MNN numpy.  Where pip refuses that, "
        "make a virtual environment there, and name its Python with --python.",
    )


def not_started(device: Device, result: CommandResult, tail: list[str], noise: bytes, name: str) -> DeviceError:
    """The error for a runner that ended before it said hello.

    tail: its last lines on stderr.  noise: what it wrote instead of hello.  name: what to call it.
    """
    last = tail[-1] if tail else "it printed nothing"
    error = no_python(device, result, last) or _said(device, "\n".join(tail))
    if error is None and result.lost:
        return DeviceError("LINK_LOST", "the link was lost while starting the runner", transient=True, where=device.uri)
    if error is None:
        how = f"exit status {result.exit_code}" if result.signal is None else signal_text(result.signal)
        error = RunnerError(
            "RUNNER_NOT_STARTED",
            f"{name} ended before it said hello: {how}; its last line: {last}",
            where=device.uri,
            hint="MNN was built for another CPU: build it for this one, or install another version there."
            if result.signal == signal.SIGILL
            else "Check the Python that --python names, and its last lines in the log.",
        )
    error.evidence = {
        "exit_code": result.exit_code,
        "signal": result.signal,
        "stderr": tail,
        "stdout": repr(noise[-500:]),
    }
    return error


def _said(device: Device, said: str) -> DeviceError | None:
    """What the runner itself wrote on stderr, where it got that far."""
    if "PYTHON_TOO_OLD" in said:
        words = said.split("PYTHON_TOO_OLD", 1)[1].split()
        return python_too_old(device, words[0][:40] if words else "of an unknown version")
    if "IMPORT_FAILED" in said:
        detail = said.split("IMPORT_FAILED", 1)[1].strip()
        return module_missing(device, "numpy" if detail.startswith("numpy") else "MNN", detail)
    return None


def signal_text(number: int) -> str:
    """Such as "signal 9 (SIGKILL)"."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number} (unknown)"
