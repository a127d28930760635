"""Where the console script begins.  Nothing heavy is imported before an interrupt is taken care of."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from edgequant import variables
from edgequant.cli import interrupts


def main() -> NoReturn:
    """The console script."""
    interrupts.watch()
    gc.set_threshold(10_000)  # what is imported is no garbage; looking through it again and again takes a sixth of it
    variables.set_ours()
    from edgequant.cli.commands import app
    from edgequant.cli.run_main import run_main

    code = run_main(app)
    interrupts.ignore()
    gc.freeze()  # or the interpreter looks through all that was loaded once more, to end
    sys.exit(code)
