"""Every option there is, declared once, in groups.  Imports nothing but Typer: see groups.py.

Annotations have to be objects here and not text, so no `from __future__ import annotations`.
"""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgequant.cli.diagnosing import Explaining as Explaining
from edgequant.cli.diagnosing import Showing as Showing
from edgequant.cli.gating import Gate as Gate
from edgequant.cli.gating import GateFiles as GateFiles
from edgequant.cli.groups import Group, Key
from edgequant.cli.keeping import Files as Files
from edgequant.cli.keeping import History as History
from edgequant.cli.keeping import Kept as Kept
from edgequant.cli.keeping import RunDir as RunDir
from edgequant.cli.measuring import Csv as Csv
from edgequant.cli.measuring import Measuring as Measuring
from edgequant.cli.measuring import Rejudging as Rejudging

EXAMPLE_SPEC = Path(__file__).parents[1] / "configs" / "verify.yaml"


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


class BudgetName(str, Enum):
    size = "size"
    latency = "latency"


def _print_example(wanted: bool) -> None:
    if wanted:
        typer.echo(EXAMPLE_SPEC.read_text("utf-8"), nl=False)
        raise typer.Exit


_URI = "local:, ssh://user@host:port, adb://SERIAL or emulated:CPU"

Model = Annotated[str, typer.Argument(metavar="MODEL", help="ONNX, TFLite, TensorFlow .pb or float .mnn.")]
ModelOrNone = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="ONNX, TFLite, TensorFlow .pb or float .mnn; none with --resume.", show_default=False
    ),
]
Uri = Annotated[str, typer.Argument(metavar="URI", help=_URI)]
Activations = Annotated[
    bool, typer.Option("--activations", help="Run every activation with inputs at its limits, and show what is wrong.")
]
OneDevice = Annotated[str, typer.Option("--device", metavar="URI", help=f"Where to run it: {_URI}.")]


class Where(Group):
    """On what a model is verified, and where that is written down."""

    section = ""
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="URI",
            help=f"{_URI}; may be given several times.  [required, here or in the file of --spec]",
        ),
        Key("devices"),
    ] = None


class Spec(Group):
    """A file with all this."""

    spec: Annotated[
        str | None,
        typer.Option(
            "--spec", metavar="FILE", help="A YAML file with all this; what is typed comes on top.  See --spec-example."
        ),
    ] = None
    spec_example: Annotated[
        bool,
        typer.Option(
            "--spec-example", callback=_print_example, is_eager=True, help="Print such a file with every key, and exit."
        ),
    ] = False


class Resuming(Group):
    """Going on with a run."""

    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN_DIR",
            help="Go on with an interrupted run, as it was asked for: only what is missing.",
        ),
    ] = None


class Variants(Group):
    """What is made of the model."""

    section = ""
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="V",
            help="float, fp16, weight:N or dynamic:N (N from 2 to 8), kl, ema, admm, static:8, recipe:FILE or auto; "
            "`edgequant inspect` ranks them.  verify and bench take several.  (default: dynamic:8)",
        ),
        Key("variants"),
    ] = None


class Making(Variants):
    """The same, and how."""

    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            metavar="SOURCE",
            help="For kl, ema, admm and static: an .npz, a folder of them or of pictures, an MNN test folder, or "
            "module:function.  (default: --inputs, or random)",
        ),
    ] = None
    no_fallback: Annotated[
        bool,
        typer.Option(
            "--no-fallback", help="Where a way to quantize crashes or yields nonsense, name that and try no other."
        ),
        Key("fallback", negated=True),
    ] = False
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="[OUTPUT:]sqnr_db>=X",
            help="Of auto: what its model has to keep.  (default: the limit on sqnr_db, and 1 dB)",
        ),
        Key("goals"),
    ] = None
    budget: Annotated[
        BudgetName | None,
        typer.Option("--budget", help="Of auto: the smallest model, or the fastest.  (default: size)"),
    ] = None


class Inputs(Group):
    """What the model is run with."""

    section = ""
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="PATH", help="An .npz, a folder of them, an MNN test folder, or pictures."),
    ] = None
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="KEY=VALUE",
            help="What pictures become, (pixel - mean) * normal: format=BGR mean=123.7,116.3,103.5 "
            "normal=0.017,0.0175,0.0174 size=WIDTHxHEIGHT layout=NHWC center_crop=0.875; several in one or several "
            "times.  (default: RGB from 0 to 255, scaled to the model's size)",
        ),
        Key("images"),
    ] = None


class Cases(Inputs):
    """The same where nothing is given, too."""

    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="NAME=1,3,48,160", help="Pin an input's shape."),
        Key("shapes"),
    ] = None


class Rolling(Group):
    """Many steps, each with what the one before gave."""

    section = ""
    rollout: Annotated[
        int | None,
        typer.Option(
            "--rollout",
            metavar="N",
            min=2,
            max=10_000,
            help="Of a streaming model: N steps, its states fed back, on source, host and device side by side.  "
            "(default: none, or 100 with --feedback)",
        ),
    ] = None
    feedback: Annotated[
        list[str] | None,
        typer.Option(
            "--feedback",
            metavar="OUT=IN",
            help="The output that is fed into this input in the next step; once for each.  (default: as names and "
            "shapes tell)",
        ),
    ] = None


class Limits(Group):
    """What the outputs have to keep."""

    section = ""
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="[OUTPUT:]METRIC>=X",
            help="For example sqnr_db>=30, lsnr:cosine>=0.99 or rel_max<=0.1.  Takes the place of the default limit "
            "on that metric, of every variant, be it stricter or not.",
        ),
        Key("limits"),
    ] = None
    decides: Annotated[
        list[str] | None,
        typer.Option(
            "--decides",
            metavar="OUTPUT=KIND",
            help="What an output decides, where the graph does not tell: probabilities or scores (of logits, too), "
            "classes, ordered (a sorted list) or set.",
        ),
    ] = None


class Judging(Limits):
    """The same, and what they are held against."""

    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="PATH",
            help="Reference outputs of your own: an .npz, or a folder with CASE.npz for each case.",
        ),
    ] = None


class Job(Group):
    """What bounds and seeds a job."""

    section = "options"
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="S",
            help="Seconds one job may take.  (default: 300; 900 for a calibration function)",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the random cases.  (default: 0)")] = None


class HostRunning(Job):
    """How the model is run on this host."""

    threads: Annotated[int | None, typer.Option("--threads", help="(default: 4, or the number of cores)")] = None


class Computing(Job):
    """How MNN computes."""

    precision: Annotated[
        PrecisionName | None,
        typer.Option("--precision", help="MNN's precision mode; low is fp16 where the CPU has it.  (default: normal)"),
    ] = None
    cores: Annotated[str | None, typer.Option("--cores", metavar="4-7", help="Pin the runner to these.")] = None
    dynamic_quant_option: Annotated[
        int | None,
        typer.Option(
            "--dynamic-quant-option",
            metavar="0|1|2",
            help="Scales of activations: 0 per channel, 1 per tensor, 2 per block.",
        ),
    ] = None


class Running(HostRunning, Computing):
    """How the model is run on a device."""

    memory: Annotated[
        MemoryName | None, typer.Option("--memory", help="MNN's memory mode; a dynamic variant means low.")
    ] = None
    warmup: Annotated[int | None, typer.Option("--warmup", help="Inferences before timing.  (default: 3)")] = None
    repeat: Annotated[
        int | None, typer.Option("--repeat", help="Timed inferences, at least, but in at most 30 s.  (default: 20)")
    ] = None
    no_latency: Annotated[
        bool, typer.Option("--no-latency", help="Do not time the model."), Key("latency", negated=True)
    ] = False


class Reaching(Group):
    """How a device is reached."""

    section = "device_options"
    work_dir: Annotated[
        str | None,
        typer.Option(
            "--work-dir",
            metavar="DIR",
            help="Private directory on the device.  (default: ~/.cache/edgequant/device on this host and boards, "
            "/data/local/tmp/edgequant-USER on phones; where that cannot be used, one in $TMPDIR or /tmp)",
        ),
    ] = None
    accept_new_host_key: Annotated[
        bool,
        typer.Option("--accept-new-host-key", help="Trust an SSH host seen for the first time, and remember its key."),
    ] = False


class Runtime(Reaching):
    """The same, and what runs there."""

    python: Annotated[
        str | None, typer.Option("--python", metavar="CMD", help="Python on the device.  (default: python3)")
    ] = None
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(
            "--runtime",
            help="Whose Python and MNN run there: the device's own, or the pack's, pushed once.  (default: auto, the "
            "pack wherever it runs)",
        ),
    ] = None
    mnn: Annotated[
        str | None, typer.Option("--mnn", metavar="V", help="MNN in the pack.  (default: that of this host)")
    ] = None
    pack: Annotated[
        str | None,
        typer.Option("--pack", metavar="SHA", help="A pack of `pack list`, by the beginning of its SHA-256."),
    ] = None


class Device(Runtime):
    """The same, for as long as a measurement takes."""

    wait: Annotated[
        float | None,
        typer.Option(
            "--wait", metavar="S", help="Seconds to wait where another edgequant has the device.  (default: 600)"
        ),
    ] = None


class Ui(Group):
    """What goes where: json (one document on stdout), verbose, quiet."""

    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, with evidence.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")] = False
