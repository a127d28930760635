"""What a diagnosis is to leave for others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgequant.jobs.case_folder import require_free
from edgequant.jobs.model_explorer import require_shown
from edgequant.jobs.overwriting import given_paths, refuse_table
from edgequant.models import read_model
from edgequant.plan.request import Request


@dataclass(frozen=True)
class Wanted:
    """What is to be left for others: a new folder with the smallest reproduction, a file for Model Explorer, a page."""

    case: Path | None = None
    overlay: Path | None = None
    page: Path | None = None

    def check(self, request: Request) -> None:
        """Before anything is done.  Raises InputError (OUTPUT_NOT_WRITABLE, OUTPUT_INVALID, OPTION_INVALID)."""
        model = request.model
        if self.case is not None:
            require_free(self.case)
        if self.overlay is not None:
            require_shown(read_model(model), self.overlay, request.run_dir)
        if self.page is not None:
            refuse_table(self.page, [model, *given_paths(request)], run_dir=request.run_dir, option="--html")


NOTHING = Wanted()
