"""How fast the sink is, and against what: `python -m bench` prints it."""
