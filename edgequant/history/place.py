"""Where the history is."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "EDGEQUANT_HISTORY"


def history_path(given: str | None) -> Path:
    """The file that was given, else that of EDGEQUANT_HISTORY, else history.sqlite in the user's data folder
    ($XDG_DATA_HOME/edgequant, ~/.local/share/edgequant)."""
    if chosen := given or os.environ.get(VARIABLE):
        return Path(chosen)
    from platformdirs import user_data_path

    return user_data_path("edgequant") / "history.sqlite"
