"""Quantized classifiers: quantizers, where they go in a network, their calibration, integers that run, and ONNX."""
