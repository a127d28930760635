"""Whether a file computes what its source computes at all, so that `quantize` may write it: see `judge.sane`."""

from __future__ import annotations

import numpy as np

from edgequant.archive.types import ArrayRef, Capture
from edgequant.findings import Finding
from edgequant.judge.sane import SANE_CASE_DB, SANE_SQNR_DB, sanity
from edgequant.judge.stages import Comparer, by_case
from edgequant.judge.types import NOTHING, Observed

NOT_WRITTEN = "FILE_NOT_WRITTEN"


def file_resembles(reference: Capture | None, capture: Capture, comparer: Comparer) -> Observed:
    """A finding where it does not.  It adds nothing to the verdict, which is stricter."""
    assert reference is not None
    outputs = by_case(capture)

    def arrays(refs: dict[str, ArrayRef] | None) -> dict[str, np.ndarray] | None:
        return None if refs is None else {name: comparer.array(ref) for name, ref in refs.items()}

    found = sanity(
        (case.case, arrays(case.outputs) or {}, arrays(outputs[case.case].outputs if case.case in outputs else None))
        for case in reference.cases
    )
    if found.ok:
        return NOTHING
    finding = Finding(
        code=NOT_WRITTEN,
        severity="fail",
        where=found.output,
        message=f"the file does not compute what the source computes: {found.why}",
        evidence={"case": found.case, "sqnr_db": found.sqnr_db},
        remedy=f"A file is written where each output has at least {SANE_CASE_DB:g} dB SQNR in each case and "
        f"{SANE_SQNR_DB:g} dB over all of them, is not stuck at one value and, where it holds whole numbers, differs "
        "in at most half of them.  Try dynamic:8 or fp16, and inputs like those the model is for.",
    )
    return Observed((finding,))
