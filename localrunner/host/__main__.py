"""`python -m localrunner.host`: the host alone, without the rest of the local stack's commands."""

from __future__ import annotations

import argparse
import sys

from localrunner.host import cli

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m localrunner.host", description=cli.__doc__)
    cli.add_arguments(arguments)
    sys.exit(cli.run(arguments.parse_args()))
