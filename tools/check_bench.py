"""Checks bench.json of a bench's folder against its captures: NumPy alone, and none of edgequant's code.

    python tools/check_bench.py FOLDER

Every number is computed anew from the samples of the blocks that the report says it used, intervals with a Student's t
that is integrated here, and every verdict and word from those numbers.  What speaks against a block (`doubts`) is taken
from the report; that blocks are used by it is checked.  Prints what does not agree; the exit code is 1 where anything
does not.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

CLOSE = 1e-9
ORDER = ("PASS", "MARGINAL", "INCONCLUSIVE", "FAIL", "ERROR")
SESSIONS = 0.05


class Checker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wrong: list[str] = []
        self.report = self._json("bench.json")
        self.plan = self._json("bench-plan.json")

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text("utf-8"))

    def same(self, what: str, told: Any, found: Any) -> None:
        if isinstance(found, float) and isinstance(told, (int, float)):
            if not math.isclose(told, found, rel_tol=CLOSE, abs_tol=1e-12):
                self.wrong.append(f"{what}: {told}, should be {found}")
        elif told != found:
            self.wrong.append(f"{what}: {told}, should be {found}")

    def check(self) -> list[str]:
        ended = self._json("closing.json")["ended"]
        parts = [device["verdict"] for device in self.report["devices"]]
        parts += ["ERROR"] * len(self.report["failed"]) + ["INCONCLUSIVE"] * (not ended)
        self.same("verdict", self.report["verdict"], worst(parts))
        self.same("interrupted", self.report["interrupted"], not ended)
        uris = sorted([device["uri"] for device in self.report["devices"]] + list(self.report["failed"]))
        self.same("devices", uris, sorted(self.plan["devices"]))
        for file, told in zip(self.plan["files"], self.report["files"], strict=True):
            self.same(f"file {file['name']}", (told["sha256"], told["mb"]), (file["sha256"], file["size"] / 1e6))
            path = self.folder / file["path"]
            if not Path(file["path"]).is_absolute() and path.exists():
                self.same(f"hash of {path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), file["sha256"])
        records = [json.loads(path.read_text("utf-8")) for path in sorted((self.folder / "measured").glob("*.json"))]
        captures = [json.loads(path.read_text("utf-8")) for path in sorted(self.folder.glob("captures/*/*.json"))]
        for device in self.report["devices"]:
            record = next(each for each in records if each["uri"] == device["uri"])
            mine = [each for each in captures if each["device"] and each["device"]["uri"] == device["uri"]]
            self._device(device, record, mine)
        return self.wrong

    def _device(self, device: dict[str, Any], record: dict[str, Any], captures: list[dict[str, Any]]) -> None:
        where = device["uri"]
        self.same(f"{where}: settings", [s["id"] for s in device["settings"]], [s["name"] for s in record["settings"]])
        self.same(f"{where}: verdict", device["verdict"], worst([s["verdict"] for s in device["settings"]]))
        medians: dict[str, dict[int, float]] = {}
        for setting, asked in zip(device["settings"], record["settings"], strict=True):
            mine = [each for each in captures if each["variant"] == asked["name"]]
            mine.sort(key=lambda each: int(each["trial"].rpartition("-")[2]))
            medians[asked["name"]] = self._setting(f"{where}, {asked['name']}", setting, asked, mine)
        valid = {setting["id"]: setting["valid"] for setting in device["settings"]}
        self._compared(where, device, record, medians, valid)
        if device["baseline"] is not None:
            self._baseline(where, device, medians, captures, valid)

    def _setting(
        self, where: str, told: dict[str, Any], asked: dict[str, Any], captures: list[dict[str, Any]]
    ) -> dict[int, float]:
        """The medians of the blocks that count, by round."""
        self.same(f"{where}: blocks", len(told["blocks"]), len(captures))
        self.same(f"{where}: how", (told["threads"], told["memory_mode"]), (asked["threads"], asked["memory"]))
        self.same(f"{where}: valid", told["valid"], told["verdict"] == "PASS" and not told["why_invalid"])
        self.same(f"{where}: reasons", bool(told["why_invalid"]), not told["valid"])
        sound = [not block["doubts"] and block["failure"] is None for block in told["blocks"]]
        codes = {each["code"] for each in told["why_invalid"]}
        if any(block["failure"] is not None for block in told["blocks"]):
            self.same(f"{where}: what failed has numbers", told["ms"], {})
            return {}
        if sum(sound) < 3:
            self.same(f"{where}: too few blocks are told", told["valid"], False)
            sound = [True] * len(sound)
        blocks = []
        for number, (block, capture) in enumerate(zip(told["blocks"], captures, strict=True)):
            samples = np.array(capture["timings"][0]["samples_ms"] if capture["timings"] else [], float)
            self.same(f"{where}: block {number + 1}: samples", block["n"], len(samples))
            used = sound[number] and len(samples) > 0 and bool(samples.min() > 0)
            self.same(f"{where}: block {number + 1}: used", block["used"], used)
            if len(samples):
                self.same(f"{where}: block {number + 1}: p50", block["ms"]["p50"], float(np.median(samples)))
                self.same(f"{where}: block {number + 1}: max", block["ms"]["max"], float(samples.max()))
            if used:
                blocks.append((number, samples))
        if len(blocks) < 3:
            self.same(f"{where}: too few blocks that can be", told["valid"], False)
        if not blocks:
            return {}
        self._numbers(where, told, [samples for _, samples in blocks])
        half = (told["ms"]["p50"]["high"] - told["ms"]["p50"]["low"]) / 2 if len(blocks) > 1 else 0.0
        spread = half / told["ms"]["p50"]["value"] > self.report["within"]
        self.same(f"{where}: TOO_SPREAD", "TOO_SPREAD" in codes, spread)
        if "TOO_FEW_BLOCKS" not in codes:
            drift = "SESSION_DRIFTS" in codes or "SESSION_DRIFTS" in told["name"].rpartition("[")[2]
            self.same(f"{where}: SESSION_DRIFTS", drift, drifts(captures, blocks))
        tops = [read["rss_peak"] for capture in captures for read in readings(capture) if read["rss_peak"] is not None]
        self.same(f"{where}: peak", told["rss_peak_kb"], max(tops, default=None))
        return {number: float(np.median(samples)) for number, samples in blocks}

    def _numbers(self, where: str, told: dict[str, Any], blocks: list[np.ndarray]) -> None:
        ways = {"p50": np.median, "mean": np.mean, "trimmed": trimmed}
        ways |= {f"p{part}": lambda x, part=part: np.percentile(x, part) for part, n in ((90, 10), (99, 100))
                 if min(map(len, blocks)) >= n}  # fmt: skip
        self.same(f"{where}: numbers", sorted(told["ms"]), sorted(ways))
        for name, way in ways.items():
            value, low, high = interval([float(way(block)) for block in blocks], 0.95)
            for key, found in (("value", value), ("low", low), ("high", high)):
                self.same(f"{where}: {name} {key}", told["ms"][name][key], found)
        every = np.concatenate(blocks)
        self.same(f"{where}: n", told["spread"]["n"], float(len(every)))
        self.same(f"{where}: stdev", told["spread"]["stdev"], float(every.std(ddof=1)) if len(every) > 1 else 0.0)

    def _compared(self, where: str, device: Any, record: Any, medians: Any, valid: Any) -> None:
        first = record["settings"][0]["name"]
        pairs = [(each["base"] or first, each["name"]) for each in record["settings"][1:]]
        pairs = [(base, name) for base, name in pairs if medians[base] and medians[name]]
        known = {each["name"]: each for each in device["compared"]}
        for base, name in pairs:
            rounds = sorted(set(medians[base]) & set(medians[name]))
            if not rounds:
                continue
            logs = [math.log(medians[name][number] / medians[base][number]) for number in rounds]
            found = [None if x is None else math.exp(x) for x in interval(logs, 1 - 0.01 / len(pairs))]
            tell, says = self.report["tell"], "unclear"
            if found[1] is not None and found[2] is not None and valid[base] and valid[name]:
                inside = found[1] > 1 - tell and found[2] < 1 + tell
                says = "slower" if found[1] > 1 else "faster" if found[2] < 1 else "same" if inside else "unclear"
            told = known.get(name, {})
            for key, value in (("base", base), ("says", says), ("rounds", len(rounds)), ("ratio", found[0]),
                               ("low", found[1]), ("high", found[2])):  # fmt: skip
                self.same(f"{where}, {name} against {base}: {key}", told.get(key), value)

    def _baseline(self, where: str, device: Any, medians: Any, captures: Any, valid: Any) -> None:
        kept = self._json("baseline.json")
        before = next((each for each in kept["devices"] if each["uri"] == device["uri"]), {"settings": []})
        known = {each["name"]: each for each in before["settings"]}
        shared = max(sum(name in known for name in medians), 1)
        work = [ms for capture in captures for timing in capture["timings"] for ms in timing["work_ms"] if ms > 0]
        was = before.get("work_ms")
        moved = bool(was and work) and abs(math.log(min(work) / was)) > math.log(1 + SESSIONS)
        for told in device["baseline"]["settings"]:
            name = told["name"]
            at = f"{where}, {name} since the baseline"
            able = name in known and known[name]["valid"] and valid[name]
            self.same(f"{at}: why", bool(told["why"]), told["says"] == "not compared" or bool(told["why"]))
            if told["says"] == "not compared":
                continue
            self.same(f"{at}: could be compared", True, able)
            value, low, high = two_sessions(known[name]["p50_ms"], list(medians[name].values()), 1 - 0.01 / shared)
            for key, found in (("ratio", value), ("low", low), ("high", high)):
                self.same(f"{at}: {key}", told[key], found)
            far = 1 + self.report["tell"]
            says = "same" if low > 1 / far and high < far else "unclear"
            says = "slower" if low > 1 and value > far else "faster" if high < 1 and value < 1 / far else says
            if told["why"] is None or not moved:
                self.same(f"{at}: says", told["says"], says)


def drifts(captures: list[dict[str, Any]], blocks: list[tuple[int, np.ndarray]]) -> bool:
    """Whether the line through the blocks that count (known work, or medians) rises or falls clearly, by 5 % in all."""
    work = [captures[number]["timings"][0]["work_ms"] for number, _ in blocks]
    known = [min(each[1:]) for each in work if len(each) > 1 and min(each) > 0]
    for values in (known, [float(np.median(samples)) for _, samples in blocks]):
        if len(values) < max(len(blocks), 3):
            continue
        at, logs = np.arange(len(values)) - (len(values) - 1) / 2, np.log(values)
        slope = float(at @ logs / (at @ at))
        off = logs - logs.mean() - slope * at
        half = student(0.99, len(values) - 2) * math.sqrt(float(off @ off / (len(values) - 2) / (at @ at)))
        if abs(slope) > half and abs(slope) * (len(values) - 1) > math.log(1.05):
            return True
    return False


def worst(parts: list[str]) -> str:
    return max(parts, key=ORDER.index) if parts else "ERROR"


def readings(capture: dict[str, Any]) -> list[dict[str, Any]]:
    found = [capture["loaded"], *(case["memory"] for case in capture["cases"])]
    return [each for each in [*found, *(timing["memory"] for timing in capture["timings"])] if each is not None]


def trimmed(samples: np.ndarray) -> float:
    off = int(len(samples) * 0.1)
    return float(np.mean(np.sort(samples)[off : len(samples) - off]))


def interval(values: list[float], level: float) -> tuple[float, float | None, float | None]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = student(level, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def two_sessions(before: list[float], now: list[float], level: float) -> tuple[float, float, float]:
    one, two = np.log(before), np.log(now)
    parts = [float(np.var(each, ddof=1)) / len(each) for each in (one, two)]
    free = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, (one, two), strict=True))
    half, value = student(level, max(int(free), 1)) * math.sqrt(sum(parts)), float(two.mean() - one.mean())
    return math.exp(value), math.exp(value - half), math.exp(value + half)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)


@functools.cache
def student(level: float, freedom: int) -> float:
    """The two-sided quantile, by Gauss's rule over t = sqrt(n) tan(a): the density is cos(a)^(n-1) there."""

    def inside(angle: float) -> float:
        return float(np.sum(WEIGHTS * np.cos((NODES + 1) / 2 * angle) ** (freedom - 1)) * angle / 2)

    whole, low, high = inside(math.pi / 2), 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) / whole < level else (low, middle)
    return math.sqrt(freedom) * math.tan(high)


def main(folder: Path) -> int:
    wrong = Checker(folder).check()
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
