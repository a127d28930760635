"""Starts a program with the pack's own modules and nothing of the device's: boot.py [-u] (PROGRAM | -c CODE) [ARG...].

Runs on the device, inside the pack.  Takes the place of `python` in a command line, so it accepts -u (which is on
anyway).
"""

# pathlib would be one more module to import on a slow device.
# ruff: noqa: PTH100, PTH110, PTH118, PTH120
import os
import runpy
import sys


def _main() -> None:
    # As the command line has it and not resolved: the directory may be reached through a link.
    root = os.path.dirname(os.path.abspath(__file__))
    sys.path.append(os.path.join(root, "site"))
    # NumPy's BLAS would start a thread per core when it is imported, and nothing here multiplies large matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = sys.argv[1:]
    while arguments and arguments[0] in ("-u", "-I", "-S"):
        del arguments[0]
    if not arguments:
        sys.exit("boot.py: no program given")
    if arguments[0] == "-c":
        if len(arguments) < 2:
            sys.exit("boot.py: -c without code")
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
        return
    sys.argv = arguments
    if not os.path.exists(arguments[0]):
        sys.stderr.write(f"boot.py: there is no {arguments[0]}\n")
        sys.exit(2)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _main()
