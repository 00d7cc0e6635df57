"""Measurements of csg evaluate."""
