"""Which operators the installed MNN's converter takes, by its own word."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.quantize.child import run_child, tools_argv
from edgequant.quantize.log import dumped_operators

_FRAMEWORKS = {"onnx": "ONNX", "tflite": "TFLITE", "tf": "TF"}
_SECONDS = 60.0


_asked: dict[str, frozenset[str]] = {}


def known_operators(source_format: str) -> frozenset[str]:
    """Names as the format has them.  Empty where it does not tell, of an .mnn too: then nothing is known of any."""
    framework = _FRAMEWORKS.get(source_format)
    if framework is None:
        return frozenset()
    if source_format not in _asked:
        with tempfile.TemporaryDirectory() as work:
            log = Path(work) / "operators.log"
            try:
                argv = tools_argv(("mnnconvert", ["-f", framework, "--OP"]))
                run_child(argv, log=log, timeout=_SECONDS, cwd=Path(work))
            except ToolError:
                return frozenset()  # what comes next tells what this host lacks
            found = dumped_operators(log.read_text(encoding="utf-8", errors="replace"))
        if not found:
            return found  # it may tell the next time
        _asked[source_format] = found
    return _asked[source_format]
