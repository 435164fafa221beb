"""`python -m localrunner.adx`: the double by itself."""

import argparse
import sys

from localrunner.adx import cli


def main() -> int:
    """Run the double until SIGINT or SIGTERM; 0 after an orderly stop."""
    parser = argparse.ArgumentParser(prog="python -m localrunner.adx", description=cli.__doc__)
    cli.add_arguments(parser)
    return cli.run(parser.parse_args())


sys.exit(main())
