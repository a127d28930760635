"""Where the console script begins.  Nothing heavy is imported before an interrupt is taken care of."""

from __future__ import annotations

import sys
from typing import NoReturn

from edgequant.cli import interrupts


def main() -> NoReturn:
    """The console script."""
    interrupts.watch()
    from edgequant.cli.commands import app
    from edgequant.cli.run_main import run_main

    code = run_main(app)
    interrupts.ignore()
    sys.exit(code)
