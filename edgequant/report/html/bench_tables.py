"""The tables of a bench's page.  A number that is not valid says so beside it, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgequant import plain
from edgequant.report import bench_words as words
from edgequant.report.bench import BenchDeviceReport, BenchReport, BlockReport, SettingReport
from edgequant.report.html.table import NOT_MEASURED, Cell, Table, name, number, said, verdict

MOST_SETTINGS = 300
"""Of all devices together.  What is left out is said, and is in bench.json."""
MOST_BLOCKS = 1500
_TIMES = ("p50", "mean", "trimmed", "p90", "p99", "min", "max", "stdev", "CPU", "load", "first")
_TWO = ["fewer than two blocks"]


def against_it(setting: SettingReport) -> tuple[str, ...]:
    """Of a number; empty where the setting is valid.  One note for all numbers of a setting: its reasons in full are
    those of the column `valid`."""
    codes = ", ".join(each.code for each in setting.why_invalid)
    return () if setting.valid else (f"not valid: {setting.name}: {codes}",)


def results(report: BenchReport) -> list[Table]:
    """One for each device, a line for each setting."""
    room = MOST_SETTINGS
    found = []
    for place, device in enumerate(report.devices):
        heads = ["setting", "valid", "p50", "95 % interval", "+-", *_TIMES[1:], "n", "threads", "memory"]
        caption = f"One inference on {device.uri}, case {device.case} ({words.shapes(device)}), ms"
        table = Table(f"results-{place + 1}", said(caption), heads)
        for setting in device.settings[: max(room, 5)]:
            table.add(_result(setting))
        room -= len(device.settings)
        left = len(device.settings) - len(table.rows)
        table.after = said(f"{words.how(report, device)}. {words.PLUS_MINUS}.{_left(left, 'settings')}")
        found.append(table)
    return found


def _result(setting: SettingReport) -> Iterator[Cell]:
    why, times = against_it(setting), words.times(setting)
    yield name(setting.name, head=True)
    valid = Cell("yes", "verdict PASS") if setting.valid else verdict(setting.verdict)
    reasons = tuple(words.against_it(setting))
    yield valid if setting.valid else Cell(f"NO: {setting.verdict.value}", valid.kind, reasons)

    def shown(text: str, missing: str = "not measured") -> Cell:
        return number(text, why=[missing] if text == NOT_MEASURED else why)

    yield shown(times["p50"])
    yield shown(words.interval(setting), *_TWO)
    yield shown(words.half(setting) or NOT_MEASURED, *_TWO)
    few = {"p90": "fewer than 10 samples in a block", "p99": "fewer than 100 samples in a block"}
    for key in _TIMES[1:]:
        yield shown(times[key], few.get(key, "not measured"))
    n = setting.spread.get("n")
    yield Cell(NOT_MEASURED if n is None else str(int(n)), "num")
    yield Cell(NOT_MEASURED if setting.threads is None else str(setting.threads), "num")
    yield Cell(said(setting.memory_mode or NOT_MEASURED))


def compared(report: BenchReport) -> Table | None:
    heads = ["setting", "says", "against", "ratio", "99 % from", "to", "rounds"]
    if len(report.devices) > 1:
        heads.append("device")
    table = Table("comparisons", "Each against its base, in rounds beside each other: times as long", heads)
    for device in report.devices:
        for each in device.compared[:MOST_SETTINGS]:
            why = words.why_unclear(device, each)
            says = Cell(each.says, "missing" if why else "", (said(why),) if why else ())
            row = [
                name(words.title(device, each.name), head=True),
                says,
                name(words.title(device, each.base)),
                number(f"{each.ratio:.3f}"),
            ]
            row += [_bound(each.low), _bound(each.high), Cell(str(each.rounds), "num")]
            table.add([*row, name(device.uri)] if len(report.devices) > 1 else row)
    table.after = f"same: within {report.tell:.1%}, which --tell sets; unclear: the interval leaves both open."
    return table if table.rows else None


def _bound(value: float | None) -> Cell:
    return number(NOT_MEASURED if value is None else f"{value:.3f}", why=["one round"] if value is None else [])


def baseline(report: BenchReport) -> tuple[Table, list[str]] | None:
    """The settings by name, and what is not as it was."""
    if report.baseline is None:
        return None
    heads = ["setting", "says", "then, ms", "now, ms", "ratio", "99 % from", "to", "blocks", "file", "device"]
    table = Table("since-baseline", said(words.baseline_line(report)), heads)
    notes: list[str] = []
    for device in report.devices:
        if device.baseline is None:
            continue
        for each in device.baseline.settings[:MOST_SETTINGS]:
            why = [each.why] if each.why else []
            cells = [plain.milliseconds(each.before_ms), plain.milliseconds(each.ms)]
            cells += [NOT_MEASURED if value is None else f"{value:.3f}" for value in (each.ratio, each.low, each.high)]
            file = {True: "the same", False: "another", None: NOT_MEASURED}[each.same_file]
            table.add(
                [
                    name(words.title(device, each.name), head=True),
                    Cell(each.says, "missing" if why else "", tuple(why)),
                    *(number(text, why=why or _TWO if text == NOT_MEASURED else []) for text in cells),
                    Cell(f"{each.blocks_before} and {each.blocks}", "num"), Cell(file), name(device.uri),
                ]
            )  # fmt: skip
        notes += [f"{device.uri}: only the baseline measured {each}" for each in device.baseline.missing]
        notes += [f"{device.uri}: {each}" for each in device.baseline.notes]
    return (table, [said(each) for each in notes[:100]]) if table.rows else None


def memory(report: BenchReport) -> Table | None:
    """Settings below each other, so that low stands beside normal."""
    heads = ["setting", "file", "session", "session MiB"]
    for key, label in words.STAGES.items():
        heads += [f"{label}: RSS", *_parts(key)[1:]]
    heads += ["above empty", "highest", *(["device"] if len(report.devices) > 1 else [])]
    table = Table("memory", "Memory of the process, MB (10^6 bytes); MNN counts its session in MiB (2^20)", heads)
    for device in report.devices:
        for setting in device.settings[:MOST_SETTINGS]:
            found = setting.memory
            if found is None:
                continue
            row = [
                name(setting.id or setting.name, head=True),
                _mb(found.file_mb),
                _mb(found.session_mb, found.session_why),
            ]
            row.append(_mb(found.session_mib, found.session_why))
            for key in words.STAGES:
                stage = found.stages.get(key)
                row += [_mb(None if stage is None else getattr(stage, part.lower())) for part in _parts(key)]
            row += [_mb(found.above_mb), _mb(found.peak_mb)]
            table.add([*row, name(device.uri)] if len(report.devices) > 1 else row)
    table.after = (
        "Each block is a process of its own; medians of the blocks, the last two are the highest of all. peak: the "
        "kernel's high-water mark of that stage alone. above empty: over the runtime before any model."
    )
    return table if table.rows else None


def _parts(stage: str) -> list[str]:
    """The empty runtime's mark would be that of its imports, which is nobody's."""
    return ["RSS", "PSS"] if stage == "empty" else ["RSS", "PSS", "peak"]


def _mb(value: float | None, why: str | None = None) -> Cell:
    missing = [why or "the device does not tell"] if value is None else []
    return number(NOT_MEASURED if value is None else f"{value:.1f}", why=missing)


def blocks(report: BenchReport) -> list[tuple[str, Table]]:
    """A table for each setting, worst first: those that are not valid."""
    found: list[tuple[str, Table]] = []
    room = MOST_BLOCKS
    every = [(device, setting) for device in report.devices for setting in device.settings]
    for place, (device, setting) in enumerate(every):
        if not setting.blocks or room <= 0:
            continue
        table = _blocks(f"blocks-{place + 1}", device, setting, room)
        room -= len(table.rows)
        bad = sum(not each.used for each in setting.blocks)
        words_of = f"{len(setting.blocks)} blocks" + (f", {bad} not used" if bad else "")
        found.append((said(f"{setting.name} on {device.uri}: {words_of}"), table))
    return found


def _blocks(id_: str, device: BenchDeviceReport, setting: SettingReport, room: int) -> Table:
    heads = ["round", "used", "p50", "mean", "p90", "min", "max", "n", "warm-up", "CPU", "load", "first"]
    heads += ["°C", "MHz", "known work, ms"]
    table = Table(id_, said(f"Blocks of {setting.name} on {device.uri}, ms"), heads)
    for block in setting.blocks[:room]:
        table.add(_block(block))
    table.after = _left(len(setting.blocks) - len(table.rows), "blocks").strip()
    return table


def _block(block: BlockReport) -> Iterator[Cell]:
    why = tuple(f"{each.code}: {each.message}" for each in block.doubts) or ((block.failure,) if block.failure else ())
    yield Cell(str(block.round), "num", head=True)
    yield Cell("yes" if block.used else "no", "" if block.used else "missing", () if block.used and not why else why)
    for key in ("p50", "mean", "p90", "min", "max"):
        value = block.ms.get(key)
        yield number(plain.milliseconds(value), why=why or (["too few samples"] if value is None else ()))
    yield from (Cell(str(block.n), "num"), Cell(str(block.warmup), "num"))
    for value in (block.cpu_ms, block.load_ms, block.first_ms):
        yield number(plain.milliseconds(value), why=["not measured"] if value is None else ())
    yield _ends(block.celsius, "the device tells no temperature")
    yield _ends(block.mhz, "the device tells no frequency")
    yield _ends(block.work_ms, "not measured", digits=2)


def _ends(values: Sequence[float], why: str, digits: int = 0) -> Cell:
    if not values:
        return number(NOT_MEASURED, why=[why])
    return number(" \u2192 ".join(dict.fromkeys(f"{value:.{digits}f}" for value in values)))


def hashes(report: BenchReport) -> Table:
    table = Table("hashes", "SHA-256 of what was measured", ["what", "SHA-256", "MB"])
    table.add([Cell(f"source model {plain.name(report.model)}", "name", head=True),
               Cell(said(report.model_sha256 or "not known"), "hash"), Cell("", "num")])  # fmt: skip
    for file in report.files[:MOST_SETTINGS]:
        table.add([name(file.name, head=True), Cell(said(file.sha256), "hash"), number(f"{file.mb:.2f}")])
    return table


def _left(more: int, what: str) -> str:
    return f" {more} more {what} are in bench.json." if more > 0 else ""
