"""python -m tests.onnx_backend [--only NAME...] [--part N/M] [--results FILE] [--without | --with]: all of them.

What stands in FILE already, of this state of the product, is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from pathlib import Path

from tests.onnx_backend.examples import examples
from tests.onnx_backend.outcome import Outcome, outcome, own_runs


def main() -> int:
    """Returns 1 where there is a deviation."""
    parser = argparse.ArgumentParser(prog="python -m tests.onnx_backend", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these")
    parser.add_argument("--part", default="1/1", help="one of so many")
    parser.add_argument("--results", type=Path, help="a line of JSON for each, gone on with where it exists")
    parser.add_argument("--with", dest="given", action="store_true", help="with the tests' references alone")
    parser.add_argument("--without", action="store_true", help="without them alone")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    results: Path | None = asked.results
    found = []
    if results is not None and results.exists():
        found = [Outcome(**json.loads(line)) for line in results.read_text("utf-8").splitlines()]
    done = {(each.name, each.reference) for each in found}
    ways = [True] if asked.given else [False] if asked.without else [True, False]
    chosen = [each for name, each in examples().items() if not asked.only or name in asked.only][part - 1 :: parts]
    with own_runs() as truth:
        for example in chosen:
            for way in ways:
                if (example.name, way) in done:
                    continue
                result = outcome(example, truth, reference=way)
                found.append(result)
                how = f"{result.deviation or 'as it should be':16} {result.code:24} {result.seconds:6.2f}"
                name = f"{result.name}{' (own reference)' if way else ''}"
                print(f"{how} {name}: {result.truth}; {result.said[:300]}", flush=True)
                if results is not None:
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(dataclasses.asdict(result)) + "\n")
    for (code, deviation), count in sorted(Counter((each.code, each.deviation) for each in found).items()):
        print(f"{count:6} {code} {deviation}")
    return int(any(each.deviation for each in found))


if __name__ == "__main__":
    raise SystemExit(main())
