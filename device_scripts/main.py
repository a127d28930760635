"""Start of the runner: take the stream, load MNN, serve."""

from __future__ import annotations

import importlib
import sys

from . import process

EXIT_NO_ENGINE = 3


def main() -> int:
    """Serve the host on stdin and stdout until it closes the stream.  Returns the exit code."""
    wire_in, wire_out = process.take_stdio()
    process.die_with_host(wire_in, wire_out)

    def load() -> None:
        # The import prints which kernels MNN enables here: that line is caught, and nothing else can be lost with it.
        importlib.import_module(".engine", __package__)

    try:
        banner = process.capture_stdout(load)
    except ImportError as error:
        # NumPy may be missing, which the stream itself needs: so this goes out as a line on stderr and an exit code.
        sys.stderr.write("edgequant-runner: IMPORT_FAILED %s: %s\n" % (error.name, error))
        return EXIT_NO_ENGINE
    from . import engine, server, wire

    stream = server.Stream(wire_in, wire_out)
    stream.write_raw(wire.PREAMBLE)
    return server.serve(engine.Engine(banner), stream)
