"""python -m bench: every bench, one line each.  See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import CannotRun, Result, Settings, machine, say

BENCHES = (
    "runner",
    "ssh_overhead",
    "rpc_overhead",
    "push",
    "second_push",
    "adb_push",
    "startup",
    "verify",
    "first_verify",
    "auto_quant",
)


def main() -> int:
    """Exit code 0 unless a bench could not run: a slow machine is not an error."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="edgequant's speed as ratios against peers")
    parser.add_argument("--only", action="append", choices=BENCHES, help="this bench; may be given again")
    parser.add_argument("--quick", action="store_true", help="few pairs: shows that it works, says little")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured there")
    given = parser.parse_args()
    here = machine()
    say(", ".join(f"{key} {value}" for key, value in here.items()))
    document = {
        "schema": "edgequant.bench/1",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "quick": given.quick,
        "machine": here,
        "results": [],
        "failed": {},
    }
    for name in given.only or BENCHES:
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory(prefix="edgequant-bench-") as folder:
                results: list[Result] = importlib.import_module(f"bench.{name}").run(
                    Settings(given.quick, Path(folder))
                )
        except KeyboardInterrupt:
            return 130
        except Exception as error:  # noqa: BLE001  (one bench that cannot run must not take the others with it)
            why = str(error) if isinstance(error, CannotRun) else f"{type(error).__name__}: {error}"
            print(f"{name:<30} could not run: {why}", flush=True)
            document["failed"][name] = why
            continue
        for result in results:
            print(result.line(), flush=True)
            document["results"].append(result.as_dict())
        say(f"{name}: {time.perf_counter() - started:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
