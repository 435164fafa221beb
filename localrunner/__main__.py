"""`python -m localrunner COMMAND`: each command is a module, imported when it is asked for.

Such a module has `add_arguments(parser)` and `run(namespace)`, which gives the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "up": ("localrunner.up", "Kafka, Azurite, the ADX double and the app, until Ctrl-C"),
    "demo": ("localrunner.demo", "the proof on real data"),
    "produce": ("localrunner.produce", "lines of standard input as records of a topic"),
    "adx": ("localrunner.adx.cli", "the ADX double alone"),
    "registry": ("localrunner.registry.cli", "a schema registry alone"),
    "host": ("localrunner.host.cli", "a Functions host with the app alone"),
}
EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """The exit code of the command that `arguments` name."""
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        module = importlib.import_module(COMMANDS[name][0])
        parser = argparse.ArgumentParser(prog=f"python -m localrunner {name}", description=module.__doc__)
        module.add_arguments(parser)
        code: int = module.run(parser.parse_args(arguments[1:]))
        return code
    print("usage: python -m localrunner COMMAND [--help]\n")
    for known, (_, meaning) in COMMANDS.items():
        print(f"  {known:10}{meaning}")
    return 0 if name in ("-h", "--help") else EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
