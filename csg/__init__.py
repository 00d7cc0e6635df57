"""csg: from synthetic images to a served model that works on real photographs."""

__version__ = "0.2.0"
