"""`python -m edgequant`, where the command itself is not on the PATH."""

from edgequant.cli.app import main

if __name__ == "__main__":
    main()
