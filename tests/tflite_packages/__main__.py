"""python -m tests.tflite_packages [--only PART]: the verdict on each model, and what we found ourselves."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.tflite_packages.compare import compared, models


def main() -> int:
    """Returns 1 where a verdict is not what our own comparison says."""
    parser = argparse.ArgumentParser(prog="python -m tests.tflite_packages", description=__doc__)
    parser.add_argument("--only", default="", metavar="PART", help="models with this in their name")
    asked = parser.parse_args()
    wrong = 0
    for name, path in models().items():
        if asked.only in name:
            with tempfile.TemporaryDirectory() as work:
                found = compared(name, path, Path(work))
            wrong += not found.agrees
            print(
                f"{'' if found.agrees else 'WRONG':6} {found.verdict:24} {found.own:28} {name}: {found.said}",
                flush=True,
            )
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
