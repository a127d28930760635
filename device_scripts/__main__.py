# Runs on any Python, so that an old one gets a sentence instead of a syntax error from the modules behind it.
import sys

EXIT_OLD_PYTHON = 4

if sys.version_info < (3, 8):
    sys.stderr.write("edgequant-runner: PYTHON_TOO_OLD %d.%d\n" % sys.version_info[:2])
    sys.exit(EXIT_OLD_PYTHON)

from device_scripts.main import main  # noqa: E402

sys.exit(main())
