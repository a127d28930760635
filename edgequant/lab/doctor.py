"""Whether a device can be used, step by step, each failure with its fix.  Changes nothing there: no file is pushed,
made, or given another mode.  Where the pack is needed, it is built on this host, as a run would."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from edgequant.deadline import Deadline
from edgequant.device_scripts.facts import mnn_kernels
from edgequant.devices import checks
from edgequant.devices.checks import Check, failed, skipped, wrong
from edgequant.devices.facts import READ_SECONDS, facts_in, read
from edgequant.devices.facts_model import DeviceFacts
from edgequant.devices.places import Place
from edgequant.devices.protocol import CommandResult, Device
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, EdgequantError
from edgequant.lab.runtime import Decision, decide, pack_not_started
from edgequant.lab.session import OPEN_SECONDS, DeviceOptions
from edgequant.mnn_version import require_supported
from edgequant.pack import Pack
from edgequant.progress import Progress
from edgequant.runner.start_errors import module_missing, no_python, python_too_old

_NAMES = (
    *("architecture", "work directory", "execution", "space", "SELinux", "runtime", "kernels"),
    *("governor", "temperature", "battery"),
)
START_SECONDS = 60.0
_MARK = "edgequant-doctor "
# -B and the first line: importing must leave no bytecode behind.  NumPy first: MNN's Python needs it.
_ASK = f"""
import sys
sys.dont_write_bytecode = True
import json
said = {{"python": "%d.%d.%d" % sys.version_info[:3]}}
for name in ("numpy", "MNN"):
    try:
        module = __import__(name)
        said[name.lower()] = str(module.version() if name == "MNN" else module.__version__)
    except ImportError as error:
        said["why_" + name.lower()] = str(error)[:500]
sys.stdout.write("\\n{_MARK}" + json.dumps(said) + "\\n")
"""

_Version = Annotated[str, Field(max_length=100)]


class _Versions(BaseModel):
    python: _Version
    numpy: _Version | None = None
    mnn: _Version | None = None
    why_numpy: str = Field(default="", max_length=1000)
    why_mnn: str = Field(default="", max_length=1000)


@dataclass
class _Runtime:
    """What was found out of the Python there: the checks, and the program that was started or denied."""

    checks: list[Check]
    started: bool = False
    denied: str | None = None
    needed: int = 0


@dataclass
class _Patient:
    uri: str
    device: Device
    options: DeviceOptions
    progress: Progress
    arch: str | None = None
    place: Place | None = None


def examine(uri: str, options: DeviceOptions, progress: Progress | None = None) -> list[Check]:
    """Every check, in order.

    Raises InputError for a bad URI or work directory.
    """
    from edgequant.devices.registry import make_device

    progress = progress or Progress()
    device = make_device(
        uri,
        accept_new_host_key=options.accept_new_host_key,
        python=options.python,
        wanted=options.wanted,
        listener=progress,
    )
    candidates = Store(device, options.work_dir).candidates
    with device:
        try:
            device.open(Deadline(OPEN_SECONDS))
        except EdgequantError as error:
            return [failed("connection", error), *skipped("not reached", *_NAMES)]
        found = [Check("connection", "ok", "connected")]
        try:
            return found + _examined(_Patient(uri, device, options, progress), candidates)
        except DeviceError as error:
            # A link that is lost on the way; what was found before would be half of the truth.
            return [failed("connection", error), *skipped("not reached", *_NAMES)]


def _examined(patient: _Patient, candidates: Sequence[str]) -> list[Check]:
    device, options = patient.device, patient.options
    readings = read(device, Deadline(READ_SECONDS), candidates)
    facts = facts_in(device, readings)
    patient.arch, patient.place = facts.arch, readings.place
    refused: DeviceError | None = None
    try:
        decision = decide(device, options.runtime, options.python, options.wanted)
    except DeviceError as error:
        if error.code != "PACK_NOT_WANTED":
            raise
        decision, refused = Decision(pack=False), error
    pack = decision.pack
    found = [
        checks.architecture(facts, pack),
        checks.work_directory(patient.uri, readings.place, readings.places),
    ]
    if pack and found[0].status == "fail":
        found += skipped("the pack does not run on this architecture", "execution", "space", "runtime", "kernels")
        found.append(checks.selinux(facts, None))
    elif refused is not None:
        found += _way(patient, facts, pack, _Runtime(_no_kernels(failed("runtime", refused))))
    else:
        way = _way(patient, facts, pack, _pack(patient) if pack else _system(patient))
        lost = [check for check in way if check.status == "fail"]
        if lost and all(decision.does_without(check.code or "") for check in lost):
            found.append(Check("pack", "warn", f"not used: {lost[0].message}", lost[0].fix))
            way = _way(patient, facts, False, _system(patient))
        found += way
    return [*found, checks.governor(facts), checks.temperature(facts), checks.battery(facts)]


def _way(patient: _Patient, facts: DeviceFacts, pack: bool, runtime: _Runtime) -> list[Check]:
    """Everything that depends on whose Python runs: the pack's, or the device's own."""
    if patient.place is None:
        found = skipped("there is no work directory", "execution", "space")
    else:
        usual = next((place for place in patient.device.work_dirs if place.startswith("/")), None)
        found = [
            checks.execution(patient.place, pack, runtime.started and pack, usual),
            checks.space(patient.uri, patient.place, runtime.needed),
        ]
    return [*found, checks.selinux(facts, runtime.denied), *runtime.checks]


def _pack(patient: _Patient) -> _Runtime:
    """The pack: started where it is unpacked already, else how much there is to push."""
    try:
        pack = patient.options.wanted.get(patient.progress)
        pack.require_whole(patient.uri)
    except EdgequantError as error:
        return _Runtime([failed("runtime", error), *skipped("there is no pack that runs there", "kernels")])
    if patient.place is None or pack.sha256 not in patient.place.packs:
        # The archive stays, and while it is unpacked there is a tar file too.
        needed = pack.size + 2 * pack.unpacked_size
        message = f"the pack (Python {pack.python}, MNN {pack.mnn}) will be pushed once, {pack.size / 1e6:.0f} MB"
        why = "MNN tells when it is started, and nothing is pushed to find that out"
        return _Runtime([Check("runtime", "ok", message), *skipped(why, "kernels")], needed=needed)
    return _started_pack(patient, patient.place, pack)


def _started_pack(patient: _Patient, place: Place, pack: Pack) -> _Runtime:
    command = pack.command(f"{place.root}/packs/{pack.sha256}")
    result = _run(patient.device, ["env", "-i", *command, "-c", _ASK])
    if isinstance(result, CommandResult) and _refused(result):
        program = command[0]
        listed = patient.device.run(["ls", "-ld", program], Deadline(START_SECONDS), max_output=1 << 16)
        executable = b"x" in listed.stdout[:10]
        allowed = listed.ok and executable and not place.noexec
        check = failed("runtime", pack_not_started(patient.uri, program, _last(result)))
        return _Runtime(_no_kernels(check), denied=program if allowed else None)
    found = _judged(patient, f"{pack.start[0].rpartition('/')[2]} of the pack", result, "the pack is unpacked there: ")
    found.started = isinstance(result, CommandResult) and result.ok
    return found


def _refused(result: CommandResult) -> bool:
    """Whether the system would not start it: 126 is "found, but cannot be executed"; the pack's loader says 127 where
    it may be started itself but not map its libraries for execution."""
    said = result.stderr.decode("utf-8", "replace")
    return result.exit_code == 126 or (
        result.exit_code == 127 and ("ermission denied" in said or "failed to map" in said)
    )


def _system(patient: _Patient) -> _Runtime:
    python = patient.device.python
    # The pack's own starter takes no other options.
    quiet = () if patient.device.brings_runtime else ("-B",)
    result = _run(patient.device, [*python, *quiet, "-c", _ASK])
    missing = no_python(patient.device, result, _last(result)) if isinstance(result, CommandResult) else None
    if missing is not None:
        return _Runtime(_no_kernels(failed("runtime", missing)))
    return _judged(patient, " ".join(python)[:300], result)


def _run(device: Device, argv: Sequence[str]) -> CommandResult | EdgequantError:
    try:
        return device.run(argv, Deadline(START_SECONDS), max_output=1 << 20)
    except DeviceError as error:
        if error.code == "COMMAND_NOT_STARTED":
            return CommandResult(error.evidence["exit_code"], b"", error.message.encode())
        if error.code in ("TIMEOUT", "OUTPUT_TOO_LARGE"):
            return error
        raise


def _no_kernels(check: Check) -> list[Check]:
    return [check, *skipped("MNN was not started", "kernels")]


def _judged(patient: _Patient, python: str, result: CommandResult | EdgequantError, prefix: str = "") -> _Runtime:
    """Python, NumPy and MNN as they told of themselves."""
    device = patient.device
    if isinstance(result, EdgequantError):
        return _Runtime(_no_kernels(failed("runtime", result)))
    versions = _versions(result)
    if versions is None:
        how = _how(result)
        fix = "MNN was built for another CPU: build it for this one, or install another version there."
        if "SIGILL" not in how:
            fix = "Start that Python there by hand, and import MNN and numpy."
        said = f"importing MNN and NumPy ended {python}: {how}; {_last(result)}"
        return _Runtime(_no_kernels(wrong("runtime", "RUNTIME_BROKEN", said, fix)))
    numbers = tuple(int(part) for part in versions.python.split(".")[:2] if part.isdigit())
    error: EdgequantError | None = None
    if numbers < (3, 8):
        error = python_too_old(device, versions.python)
    elif versions.mnn is None:
        error = module_missing(device, "MNN", versions.why_mnn or "no reason given")
    elif versions.numpy is None:
        error = module_missing(device, "numpy", versions.why_numpy or "no reason given")
    else:
        try:
            require_supported(versions.mnn, patient.uri)
        except EdgequantError as found:
            found.hint = found.hint or f"Install it again there: {python} -m pip install -U MNN"
            error = found
    if error is not None:
        return _Runtime(_no_kernels(failed("runtime", error)))
    banner = result.stdout.decode("utf-8", "replace")
    said = f"{prefix}Python {versions.python}, NumPy {versions.numpy}, MNN {versions.mnn}"
    kernels = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in mnn_kernels(banner).items())
    shown = f"MNN on {patient.arch or 'an unknown CPU'}: {kernels or 'it names none'}"
    return _Runtime([Check("runtime", "ok", said), Check("kernels", "ok", shown)])


def _versions(result: CommandResult) -> _Versions | None:
    """What the Python there printed; None where it did not get that far, or died after it."""
    line = result.stdout.decode("utf-8", "replace").rpartition("\n" + _MARK)[2].partition("\n")[0]
    if not result.ok:
        return None
    try:
        return _Versions.model_validate_json(line)
    except ValidationError:
        return None


def _how(result: CommandResult) -> str:
    number = result.signal
    if number is None and result.exit_code is not None and 128 < result.exit_code < 160:
        number = result.exit_code - 128  # as shells have it
    if number is None:
        return f"exit status {result.exit_code}"
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _last(result: CommandResult) -> str:
    lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else f"exit status {result.exit_code}"
