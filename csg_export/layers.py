"""Which operators of an ONNX graph are layers, read without torch."""

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators with weights."""
