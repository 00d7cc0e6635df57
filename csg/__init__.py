"""csg: from synthetic images to a served model that works on real photographs."""

__version__ = "0.1.0"
