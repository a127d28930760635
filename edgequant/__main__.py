"""`python -m edgequant`."""

from edgequant.cli.app import main

main()
