"""From a trained run to a bundle: an ONNX graph or a TensorRT engine, compared with PyTorch."""
