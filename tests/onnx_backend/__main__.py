"""python -m tests.onnx_backend [--only NAME...] [--part N/M] [--with | --without]: what the product says of each.

What was found of this state of the product before is not run again, so a count that was stopped can be gone on with.
"""

from __future__ import annotations

import argparse
from collections import Counter

from tests.onnx_backend.examples import examples
from tests.onnx_backend.kept import kept_outcome
from tests.onnx_backend.outcome import own_runs


def main() -> int:
    """Returns 1 where there is a deviation."""
    parser = argparse.ArgumentParser(prog="python -m tests.onnx_backend", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these")
    parser.add_argument("--part", default="1/1", help="one of so many")
    parser.add_argument("--with", dest="given", action="store_true", help="with the tests' references alone")
    parser.add_argument("--without", action="store_true", help="without them alone")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    ways = [True] if asked.given else [False] if asked.without else [True, False]
    chosen = [each for name, each in examples().items() if not asked.only or name in asked.only][part - 1 :: parts]
    found = []
    with own_runs() as truth:
        for example in chosen:
            for way in ways:
                result = kept_outcome(example, truth, reference=way)
                found.append(result)
                how = f"{result.deviation or 'as it should be':16} {result.code:24} {result.seconds:6.2f}"
                name = f"{result.name}{' (its reference)' if way else ''}"
                print(f"{how} {name}: {result.truth}; {result.said[:300]}", flush=True)
    for (code, deviation), count in sorted(Counter((each.code, each.deviation) for each in found).items()):
        print(f"{count:6} {code} {deviation}")
    return int(any(each.deviation for each in found))


if __name__ == "__main__":
    raise SystemExit(main())
