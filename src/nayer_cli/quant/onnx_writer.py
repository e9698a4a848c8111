"""The writer of ONNX files, by the name it had before: new code imports `nayer_cli.onnx.writer`."""

from nayer_cli.onnx.writer import write_onnx

__all__ = ["write_onnx"]
