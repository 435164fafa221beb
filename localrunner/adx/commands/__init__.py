"""The management commands, one file per subject; importing this package registers them all."""

from localrunner.adx.commands import data, databases, extents, functions, mappings, policies, resources, tables

__all__ = ["data", "databases", "extents", "functions", "mappings", "policies", "resources", "tables"]
