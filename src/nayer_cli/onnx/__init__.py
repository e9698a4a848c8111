"""ONNX files: a quantized network written as integers, and run again."""
