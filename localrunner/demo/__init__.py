"""`python -m localrunner demo`: real records go all the way, a host is killed, and KQL proves the rest."""

from localrunner.demo.cli import add_arguments, run

__all__ = ["add_arguments", "run"]
