"""From the folder of a run to what the history keeps: the one place that knows how each kind of document is written.

Nothing in a folder is trusted: documents are bounded in size and checked, names are cut, numbers are finite.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any

from edgequant.errors import EdgequantError, InputError
from edgequant.files import read_bounded, sha256_of
from edgequant.history.entry import DOCUMENTS, Entry, Kind, Trial, Value
from edgequant.judge.verdict import Verdict
from edgequant.report.model import Report
from edgequant.report.numbers import STAGES, numbers
from edgequant.report.read import MAX_BYTES, loads
from edgequant.text import NAME, shortened

_MOST_TRIALS, _MOST_VALUES, _MOST_FINDINGS = 1000, 20_000, 1000
_FIRST = 1970
_VERDICTS = frozenset(each.value for each in Verdict)


def read_folder(path: Path) -> Entry:
    """What a run's folder, or its document, has to be remembered for.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, REPORT_INVALID).
    """
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise InputError("RUN_NOT_FOUND", f"{folder}: no such folder")
    name = path.name if path.is_file() else next((name for name in DOCUMENTS if (folder / name).is_file()), None)
    if name not in DOCUMENTS:
        raise InputError(
            "RUN_INVALID", f"{path}: has none of {', '.join(DOCUMENTS)}", hint="It did not get to its end."
        )
    document = folder / name
    try:
        data = read_bounded(document, MAX_BYTES)
        plans = [folder / each for each in ("plan.json", "bench-plan.json") if (folder / each).is_file()]
        plan = sha256_of(plans[0]) if plans else ""
    except OSError as error:
        raise InputError("RUN_INVALID", f"{document}: {error.strerror or error}") from None
    digest, where = hashlib.sha256(data).hexdigest(), _text(str(folder.resolve()), 4096)
    report = loads(data, where=document) if name == "report.json" else None
    try:
        if report is not None:
            return _dated(_of_report(report, digest, where, plan, _job(folder)))
        found = json.loads(data)
        if not isinstance(found, dict):
            raise TypeError("not a JSON object")
        made = _of_bench if name == "bench.json" else _of_acceptance
        return _dated(made(found, digest, where, plan, document))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, OverflowError) as error:
        raise InputError("RUN_INVALID", f"{document}: {shortened(str(error), 200)}") from None


def run_folders(path: Path, deep: int = 4) -> Iterator[Path]:
    """Folders of runs in this one, itself included; links are not followed.  What cannot be read is left out."""
    if any((path / name).is_file() for name in DOCUMENTS):
        yield path
        if not (path / "acceptance.json").is_file():  # that has runs of its own below it
            return
    try:
        below = sorted(each for each in path.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return
    for each in below if deep else ():
        yield from run_folders(each, deep - 1)


def _job(folder: Path) -> Kind:
    try:
        found = json.loads(read_bounded(folder / "plan.json", 64 << 20))
    except FileNotFoundError:
        return "verify"  # a report.json by itself: what both commands write, and of older versions verify alone
    except (OSError, ValueError, RecursionError):
        return "unknown"
    job = found.get("job", "verify") if isinstance(found, dict) else None
    return job if job in ("verify", "quantize") else "unknown"


def _of_report(report: Report, digest: str, folder: str, plan: str, kind: Kind) -> Entry:
    trials = [
        Trial(
            variant=_text(run.variant),
            device=_text(run.device.uri),
            verdict=run.verdict.value,
            cpu=_text(run.device.cpu),
            os=_text(run.device.os),
            emulated=run.device.emulated,
            sha256=_text(run.sha256, 64),
            values=tuple(
                Value(_text(each.output), each.metric, each.value, _text(each.why))
                for each, _ in zip(numbers(run), range(_MOST_VALUES), strict=False)
            ),
            findings=tuple((str(each.severity), _text(each.code, 60)) for each in run.findings[:_MOST_FINDINGS]),
        )
        for run in report.runs[:_MOST_TRIALS]
    ]
    return Entry(
        id=digest,
        kind=kind,
        created=report.created,
        edgequant=_text(report.edgequant, 60),
        mnn=_text(report.mnn, 60),
        model=_text(PurePath(report.model.path).name),
        model_sha256=_text(report.model.sha256, 64),
        verdict=report.verdict.value,
        folder=folder,
        plan=plan,
        trials=tuple(trials),
        findings=tuple((str(each.severity), _text(each.code, 60)) for each in report.findings[:_MOST_FINDINGS]),
    )


_BENCH = {"load_ms": "latency_load_ms", "first_ms": "latency_first_ms", "cpu_ms": "latency_cpu_ms"}


def _of_bench(found: dict[str, Any], digest: str, folder: str, plan: str, path: Path) -> Entry:
    """`edgequant.bench/1`: a device holds settings, a setting estimates {value, low, high}."""
    _need(found, "edgequant.bench/")
    trials = []
    for device in _list(found.get("devices")):
        facts = _dict(device.get("facts"))
        for setting in _list(device.get("settings")):
            reasons = [f"{each.get('code')}: {each.get('message')}" for each in _list(setting.get("why_invalid"))]
            why = "" if setting.get("valid") is True else _text("; ".join(reasons)) or "not valid"
            trials.append(
                Trial(
                    variant=_text(setting.get("name")),
                    device=_text(device.get("uri")),
                    verdict=_verdict(setting.get("verdict")),
                    cpu=_text(facts.get("cpu")),
                    os=_text(facts.get("os")),
                    values=tuple(_bench_values(setting, why)),
                    findings=_findings(device.get("findings")),
                )
            )
    mnn = next((_dict(each.get("facts")).get("mnn") for each in _list(found.get("devices"))), None)
    return Entry(
        id=digest, kind="bench", created=_when(found, path), edgequant=_text(found.get("edgequant"), 60),
        mnn=_text(mnn, 60), model=_text(PurePath(str(found.get("model"))).name),
        model_sha256=_text(found.get("model_sha256"), 64), verdict=_verdict(found.get("verdict")), folder=folder,
        plan=plan, trials=tuple(trials[:_MOST_TRIALS]),
    )  # fmt: skip


def _bench_values(setting: dict[str, Any], why: str) -> Iterator[Value]:
    spread, estimates = _dict(setting.get("spread")), _dict(setting.get("ms"))
    for name in ("min", "max", "stdev"):
        if (value := _number(spread.get(name))) is not None:
            yield Value("", f"latency_{name}_ms", value, why)
    for name in ("mean", "p50", "p90", "p99"):
        if (value := _number(_dict(estimates.get(name)).get("value"))) is not None:
            yield Value("", f"latency_{name}_ms", value, why)
    for key, metric in _BENCH.items():
        if (value := _number(_dict(setting.get(key)).get("value"))) is not None:
            yield Value("", metric, value, why)
    if (peak := _number(setting.get("rss_peak_kb"))) is not None:
        yield Value("", "memory_rss_peak_mb", peak * 1024 / 1e6)
    memory = _dict(setting.get("memory"))
    for key, metric in (("file_mb", "memory_model_file_mb"), ("session_mb", "memory_session_mb")):
        if (value := _number(memory.get(key))) is not None:
            yield Value("", metric, value)


def _of_acceptance(found: dict[str, Any], digest: str, folder: str, plan: str, path: Path) -> Entry:
    """`edgequant.acceptance/1`: its trials, each with its state, its rules with theirs in place of findings, and
    the numbers of its last attempt."""
    _need(found, "edgequant.acceptance/")
    trials = [
        Trial(
            variant=_text(each.get("variant")),
            device=_text(each.get("device")),
            verdict=_verdict(each.get("state")),
            values=tuple(_rule_values(each)),
            findings=tuple(
                (_text(rule.get("state"), 10), _text(rule.get("rule"), 60))
                for rule in _list(each.get("rules"))[:_MOST_FINDINGS]
            ),
        )
        for each in _list(found.get("trials"))[:_MOST_TRIALS]
    ]
    models = {_text(PurePath(str(each["model"])).name) for each in _list(found.get("trials")) if each.get("model")}
    return Entry(
        id=digest, kind="accept", created=_when(found, path), edgequant=_text(found.get("edgequant"), 60),
        mnn=_text(found.get("mnn"), 60), model=", ".join(sorted(models))[:NAME],
        model_sha256="", verdict=_verdict(found.get("state")), folder=folder, plan=plan, trials=tuple(trials),
        findings=_findings(found.get("findings")),
    )  # fmt: skip


_FAMILIES = {"latency_ms": "latency_{}_ms", "memory_mb": "memory_{}_mb", **{each: each + "_{}" for each in STAGES}}


def _rule_values(trial: dict[str, Any]) -> Iterator[Value]:
    """By the names that numbers of verify and bench have here."""
    attempts = _list(trial.get("attempts"))
    facts = _dict(attempts[-1].get("facts")) if attempts else {}
    for place, fact in list(facts.items())[:_MOST_VALUES]:
        output, _, metric = ("", "", place) if place.startswith(("finding:", "task:")) else place.rpartition(":")
        family, _, name = metric.partition(".")
        if family in _FAMILIES and name:
            metric = _FAMILIES[family].format(name)
        if (value := _number(_dict(fact).get("value"))) is not None:
            yield Value(_text(output), _text(metric), value)


def _need(found: dict[str, Any], schema: str) -> None:
    if not str(found.get("schema")).startswith(schema):
        raise ValueError(f"it has schema '{str(found.get('schema'))[:60]}', not {schema}...")


def _verdict(value: Any) -> str:
    """A state of another command's own, such as FLAKY, is kept as it is told."""
    text = str(value)
    if text in _VERDICTS or (text.isascii() and text.isupper() and len(text) <= 20):
        return text
    raise ValueError(f"'{text[:20]}' is no verdict")


def _findings(value: Any) -> tuple[tuple[str, str], ...]:
    return tuple(
        (_text(each.get("severity"), 10), _text(each.get("code"), 60)) for each in _list(value)[:_MOST_FINDINGS]
    )


def _when(found: dict[str, Any], path: Path) -> datetime:
    """When it was made; of a document that does not tell, when its file was written."""
    text = found.get("created")
    if isinstance(text, str):
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).replace(microsecond=0)


def _dated(entry: Entry) -> Entry:
    """Raise ValueError, OverflowError where it was made at a time of which no year has four digits: runs are sorted by
    them."""
    if not entry.created.astimezone(timezone.utc).year >= _FIRST:
        raise ValueError(f"it says that it was made in the year {entry.created.year}")
    return entry


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object, most: int = NAME) -> str:
    """Text with an end that SQLite can keep: a lone surrogate cannot be encoded."""
    if value is None:
        return ""
    return shortened(str(value).encode("utf-8", "backslashreplace").decode("utf-8"), most)


def problem(error: EdgequantError) -> str:
    """In one line."""
    return f"{error.code}: {error}"
