"""Workers that are made to be killed: each line of standard input is an offset that a new process delivers.

A process for each, forked from one that has everything imported, since importing takes longer than delivering. Its
process id is printed when it begins, and how it ended when it has.
"""

from __future__ import annotations

import json
import os
import sys

import azure.kusto.ingest  # noqa: F401 - so that it is there in each process

from tests.end_to_end.place import Place, flights


def say(number: int) -> None:
    """A line for the test that has started this."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    """The place comes as JSON in the only argument."""
    place = json.loads(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            made = Place(**place)
            made.deliver(made.app(), flights(int(line)))
            os._exit(0)
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
