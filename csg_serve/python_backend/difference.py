"""`csg.difference` under the name that it has beside the scripts: `csg deploy` copies it there."""

from csg.difference import difference

__all__ = ["difference"]
