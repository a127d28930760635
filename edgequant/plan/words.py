"""A request as the options somebody would type for it: for commands that are printed to be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgequant.plan.request import Request
from edgequant.spec import Access, RunOptions


def options_of(request: Request) -> list[str]:
    """All options but --device, --variant and --run-dir, in the order of the help; none for what is the default."""
    return [word for name, value in _options(request) for word in ([name] if value is None else [name, value])]


def _options(request: Request) -> Iterator[tuple[str, str | None]]:
    """Names with their values; None: it takes none."""
    if request.calibration is not None:
        yield "--calibration", request.calibration
    if not request.fallback:
        yield "--no-fallback", None
    yield from (("--target", str(goal)) for goal in request.goals)
    if request.budget != "size":
        yield "--budget", request.budget
    if request.inputs is not None:
        yield "--inputs", str(request.inputs)
    if request.images is not None:
        for key, value in request.images.model_dump(exclude_defaults=True).items():
            listed = ("x" if key == "size" else ",").join(map(str, value)) if _is_list(value) else str(value)
            yield "--image", f"{key}={listed}"
    for name, sizes in request.shapes.items():
        yield "--shape", f"{name}={','.join(map(str, sizes))}"
    if request.rollout is not None:
        yield "--rollout", str(request.rollout)
    yield from (("--feedback", pair) for pair in request.feedback)
    yield from (("--limit", str(limit)) for limit in request.limits)
    yield from (("--decides", f"{name}={kind}") for name, kind in request.decides.items())
    if request.reference is not None:
        yield "--reference", str(request.reference)
    for name, value in request.options.model_dump(exclude_defaults=True).items():
        if value is not None and value != getattr(RunOptions(), name):
            yield _dashed(name), ",".join(map(str, value)) if _is_list(value) else str(value)
    if not request.latency:
        yield "--no-latency", None
    if request.diagnose:
        yield "--diagnose", None
    yield from _reaching(request)


def _reaching(request: Request) -> Iterator[tuple[str, str | None]]:
    reach, plain = request.access, Access()
    told = {
        "work_dir": reach.work_dir, "accept_new_host_key": reach.accept_new_host_key, "python": reach.python,
        "runtime": reach.runtime, "mnn": reach.wanted.mnn, "pack": reach.wanted.pack, "wait": reach.wait,
    }  # fmt: skip
    for name, value in told.items():
        if value != getattr(plain, name):
            yield _dashed(name), None if value is True else str(value)


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
