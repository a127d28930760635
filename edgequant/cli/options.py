"""Options that several commands share, each declared once.  Imports nothing but Typer: see app.py."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from edgequant.lab.session import DeviceOptions
    from edgequant.spec import RunOptions

VARIANT_HELP = (
    "float, fp16, weight:N or dynamic:N (N from 2 to 8), kl, ema, admm, static:8, recipe:FILE or auto; "
    "see docs/quantization.md."
)
_RUNNING = "How it is run"
_CASES = "What it is run with"
_DEVICE = "How the device is reached"
_SHOWN = "What is shown"


class MemoryName(str, Enum):
    low = "low"
    normal = "normal"
    high = "high"


class PrecisionName(str, Enum):
    normal = "normal"
    low = "low"
    high = "high"


class RuntimeName(str, Enum):
    auto = "auto"
    pack = "pack"
    system = "system"


class Ui(NamedTuple):
    """What goes where: json (one document on stdout), verbose, quiet."""

    json: bool
    verbose: bool
    quiet: bool


Model = Annotated[str, typer.Argument(metavar="MODEL", help="ONNX, TFLite, TensorFlow .pb or float .mnn.")]
Uri = Annotated[str, typer.Argument(metavar="URI", help="local:, ssh://user@host:port, adb://SERIAL or emulated:CPU")]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="URI",
        help="local:, ssh://user@host:port, adb://SERIAL or emulated:CPU; may be given several times.",
    ),
]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="V", help=f"{VARIANT_HELP}  Several times for several.  (default: dynamic:8)"),
]
OneVariant = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="V", help=f"{VARIANT_HELP}  One only.  (default: dynamic:8)"),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="PATH",
        help="An .npz, a folder of them, an MNN test folder, or pictures.",
        rich_help_panel=_CASES,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="SOURCE",
        help="For kl, ema, admm and static: an .npz, a folder of them or of pictures, an MNN test folder, or "
        "module:function.  (default: --inputs, or random)",
        rich_help_panel=_CASES,
    ),
]


Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="KEY=VALUE",
        help="What pictures become, (pixel - mean) * normal: format=BGR mean=123.7,116.3,103.5 "
        "normal=0.017,0.0175,0.0174 size=WIDTHxHEIGHT layout=NHWC center_crop=0.875; several in one or several times.  "
        "(default: RGB from 0 to 255, scaled to the model's size)",
        rich_help_panel=_CASES,
    ),
]


class BudgetName(str, Enum):
    size = "size"
    latency = "latency"


Goals = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="[OUTPUT:]sqnr_db>=X",
        help="Of auto: what its model has to keep.  (default: the limit on sqnr_db, and 1 dB)",
        rich_help_panel=_CASES,
    ),
]
Budget = Annotated[
    BudgetName,
    typer.Option("--budget", help="Of auto: the smallest model, or the fastest.", rich_help_panel=_CASES),
]
NoFallback = Annotated[
    bool,
    typer.Option(
        "--no-fallback",
        help="Where a way to quantize crashes or yields nonsense, name that and try no other.",
        rich_help_panel=_RUNNING,
    ),
]
ReferencePath = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="PATH",
        help="Reference outputs of your own: an .npz, or a folder with CASE.npz for each case.",
        rich_help_panel=_CASES,
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,3,48,160", help="Pin an input's shape.", rich_help_panel=_CASES),
]
SpecPath = Annotated[
    str | None,
    typer.Option(
        "--spec", metavar="FILE", help="A YAML file with all this; see configs/verify.yaml.", rich_help_panel=_CASES
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="[OUTPUT:]METRIC>=X",
        help="For example sqnr_db>=30, lsnr:cosine>=0.99 or rel_max<=0.1.",
        rich_help_panel=_CASES,
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed of the random cases.  (default: 0)", rich_help_panel=_CASES)
]
Memory = Annotated[
    MemoryName | None,
    typer.Option("--memory", help="MNN's memory mode; a dynamic variant means low.", rich_help_panel=_RUNNING),
]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        "--precision",
        help="MNN's precision mode; low is fp16 where the CPU has it.  (default: normal)",
        rich_help_panel=_RUNNING,
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="(default: 4, or the number of cores)", rich_help_panel=_RUNNING)
]
Cores = Annotated[
    str | None, typer.Option("--cores", metavar="4-7", help="Pin the runner to these.", rich_help_panel=_RUNNING)
]
DynamicQuantOption = Annotated[
    int | None,
    typer.Option(
        "--dynamic-quant-option",
        metavar="0|1|2",
        help="Scales of activations: 0 per channel, 1 per tensor, 2 per block.",
        rich_help_panel=_RUNNING,
    ),
]
Warmup = Annotated[
    int | None, typer.Option("--warmup", help="Inferences before timing.  (default: 3)", rich_help_panel=_RUNNING)
]
Repeat = Annotated[
    int | None, typer.Option("--repeat", help="Timed inferences, at least.  (default: 20)", rich_help_panel=_RUNNING)
]
NoLatency = Annotated[bool, typer.Option("--no-latency", help="Do not time the model.", rich_help_panel=_RUNNING)]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        help="Seconds one job may take.  (default: 300; 900 for a calibration function)",
        rich_help_panel=_RUNNING,
    ),
]
WorkDir = Annotated[
    str | None,
    typer.Option(
        "--work-dir",
        metavar="DIR",
        help="Private directory on the device.  (default: ~/.cache/edgequant/device on this host and boards, "
        "/data/local/tmp/edgequant-USER on phones; where that cannot be used, one in $TMPDIR or /tmp)",
        rich_help_panel=_DEVICE,
    ),
]
Python = Annotated[
    str | None,
    typer.Option("--python", metavar="CMD", help="Python on the device.  (default: python3)", rich_help_panel=_DEVICE),
]
RuntimeOption = Annotated[
    RuntimeName | None,
    typer.Option(
        "--runtime",
        help="Whose Python and MNN run there: the device's own, or the pack's, pushed once.  (default: auto, the pack "
        "wherever it runs)",
        rich_help_panel=_DEVICE,
    ),
]
Mnn = Annotated[
    str | None,
    typer.Option("--mnn", metavar="V", help="MNN in the pack.  (default: that of this host)", rich_help_panel=_DEVICE),
]
PackName = Annotated[
    str | None,
    typer.Option(
        "--pack", metavar="SHA", help="A pack of `pack list`, by the beginning of its SHA-256.", rich_help_panel=_DEVICE
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="S",
        help="Seconds to wait where another edgequant has the device.  (default: 600)",
        rich_help_panel=_DEVICE,
    ),
]
AcceptNewHostKey = Annotated[
    bool,
    typer.Option(
        "--accept-new-host-key",
        help="Trust an SSH host seen for the first time, and remember its key.",
        rich_help_panel=_DEVICE,
    ),
]
RunDir = Annotated[
    str | None,
    typer.Option("--run-dir", metavar="DIR", help="New folder for everything of this run.", rich_help_panel=_SHOWN),
]
Csv = Annotated[
    str | None,
    typer.Option("--csv", metavar="FILE", help="A table with a line per output, too.", rich_help_panel=_SHOWN),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.", rich_help_panel=_SHOWN)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, with evidence.", rich_help_panel=_SHOWN)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel=_SHOWN)]


def run_options(
    *,
    memory: MemoryName | None = None,
    precision: PrecisionName | None = None,
    cores: str | None = None,
    **given: Any,
) -> RunOptions:
    """RunOptions of what was given; None is left to its default.  Raises InputError (OPTION_INVALID)."""
    from pydantic import ValidationError

    from edgequant.errors import InputError
    from edgequant.spec import RunOptions, first_problem, parse_cores

    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if memory is not None:
        fields["memory"] = memory.value
    if precision is not None:
        fields["precision"] = precision.value
    if cores is not None:
        fields["cores"] = parse_cores(cores)
    try:
        return RunOptions(**fields)
    except ValidationError as error:
        raise InputError("OPTION_INVALID", f"--{first_problem(error).replace('_', '-', 2)}") from None


def target_options(
    work_dir: str | None,
    python: str | None,
    accept_new_host_key: bool,
    runtime: RuntimeName | None = None,
    *,
    mnn: str | None = None,
    pack: str | None = None,
    wait: float | None = None,
) -> DeviceOptions:
    """DeviceOptions of what was given.  Raises InputError (OPTION_INVALID, PACK_UNKNOWN)."""
    from edgequant.errors import InputError
    from edgequant.lab.session import DeviceOptions
    from edgequant.pack import WantedPack, find_pack

    if work_dir is not None and (not work_dir.startswith(("/", "~/")) or "\0" in work_dir):
        raise InputError(
            "OPTION_INVALID", f"--work-dir {work_dir!r}: must be an absolute path on the device, or one in ~/"
        )
    if runtime is RuntimeName.pack and python is not None:
        raise InputError("OPTION_INVALID", "--python and --runtime pack contradict each other")
    wanted = WantedPack(mnn, pack)
    if wanted and (python is not None or runtime is RuntimeName.system):
        which, what = "--mnn" if mnn else "--pack", "--python" if python is not None else "--runtime system"
        raise InputError("OPTION_INVALID", f"{which} and {what} contradict each other")
    if pack is not None:
        find_pack(pack)  # before any device is bothered
    if wait is not None and not 0 <= wait <= 86400:
        raise InputError("OPTION_INVALID", f"--wait {wait:g}: must be 0 to 86400 seconds")
    return DeviceOptions(
        work_dir=work_dir,
        python=python,
        accept_new_host_key=accept_new_host_key,
        runtime="auto" if runtime is None else runtime.value,
        wanted=wanted,
        wait=DeviceOptions.wait if wait is None else wait,
    )
