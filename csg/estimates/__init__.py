"""Scores of a model on images of which only a few are labelled: which to label, and what their labels say.

Formulas and papers: docs/few-labels.md. numpy and scipy alone.
"""
