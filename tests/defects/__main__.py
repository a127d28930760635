"""python -m tests.defects [--kind K] [--only NAME] [--on HOME] [--archived] [--json]: both rates."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from tests.defects.corpus import corpus
from tests.defects.outcome import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 where a defect was not caught, or a twin was blamed; 2 where there is no such defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.defects", description=__doc__)
    parser.add_argument("--kind", action="append", help="of this kind only")
    parser.add_argument("--only", action="append", metavar="NAME", help="this one only")
    parser.add_argument("--on", action="append", metavar="HOME", help="on this recording only; bench, host")
    parser.add_argument("--archived", action="store_true", help="only those that are judged from recordings")
    parser.add_argument("--json", action="store_true", help="as JSON")
    asked = parser.parse_args(arguments)
    chosen = [
        defect
        for defect in corpus().values()
        if (not asked.kind or defect.kind in asked.kind)
        and (not asked.only or defect.name in asked.only)
        and (not asked.on or defect.home in asked.on)
        and (not asked.archived or defect.way == "archived")
    ]
    if not chosen:
        print("there is no such defect; kinds:", ", ".join(sorted({each.kind for each in corpus().values()})))
        return 2
    found = []
    for defect in chosen:
        outcome = defect.outcome()
        found.append(outcome)
        if not asked.json:
            print(line(outcome), flush=True)
    if asked.json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=1))
    else:
        print(*rates(found), sep="\n")
    return int(any(each.result != "caught" or each.false_alarm for each in found))


def line(outcome: Outcome) -> str:
    twin = f"FALSE ALARM {outcome.twin} {','.join(outcome.twin_codes)}" if outcome.false_alarm else outcome.twin
    said = outcome.code or "-" if outcome.result == "caught" else f"{outcome.result}: {outcome.code or 'nothing'}"
    return f"{outcome.kind:13} {outcome.name:26} {outcome.verdict:12} {said:42} twin {twin}"


def rates(found: Sequence[Outcome]) -> list[str]:
    """A row for each kind, and the whole."""
    rows = ["", f"{'kind':13} defects  caught  misnamed  warn only  missed  false alarms"]
    kinds = dict.fromkeys(each.kind for each in found)
    for kind in [*kinds, None]:
        some = [each for each in found if kind in (None, each.kind)]
        counts = [
            sum(each.result == result for each in some) for result in ("caught", "misnamed", "warn only", "MISSED")
        ]
        alarms = sum(each.false_alarm for each in some)
        numbers = f"{len(some):7d} {counts[0]:7d} {counts[1]:9d} {counts[2]:10d} {counts[3]:7d} {alarms:13d}"
        rows.append(f"{kind or 'all':13} {numbers}")
    whole = len(found)
    missed = sum(each.result != "caught" for each in found)
    alarms = sum(each.false_alarm for each in found)
    real = sum(each.real for each in found)
    rows.append(f"not caught {missed} of {whole} ({missed / whole:.1%}), false alarms {alarms} of {whole} "
                f"({alarms / whole:.1%}); {real} on real models")  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())
