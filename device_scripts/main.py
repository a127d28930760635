"""Start of the runner: take the stream, load MNN, serve."""

from __future__ import annotations

import functools
import importlib
import os
import sys

from . import governor, lock, process

EXIT_NO_ENGINE = 3
EXIT_NOT_RESTARTED = 5


def main() -> int:
    """Serve the host on stdin and stdout until it closes the stream.  Returns the exit code."""
    # NumPy's OpenBLAS, which nothing here uses, would start a thread for each core, and they spin for a while.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    wire_in, wire_out = process.take_stdio()
    held = lock.Lock()
    governor.give_back(only_left=True)
    give_back = functools.partial(governor.give_back, of=os.getpid())
    dismiss_watcher = process.die_with_host(wire_in, wire_out, *held.descriptors, at_end=give_back)
    held.take_over()  # after the fork: it starts a thread

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
    served = engine.Engine(banner, held)
    code = server.serve(served, stream, give_back)
    if served.restart_with is None:
        return code
    held.pass_on()
    dismiss_watcher()
    try:
        process.start_anew(served.restart_with, wire_in, wire_out)
    except OSError as error:
        sys.stderr.write("edgequant-runner: cannot start itself anew: %s\n" % error)
    give_back()
    return EXIT_NOT_RESTARTED
