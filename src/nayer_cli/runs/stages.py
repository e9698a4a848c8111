"""The stages of a quantized model, and what of it stays float, in words. Nothing here imports torch."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

STAGES = {
    "float": "float",
    "ptq": "steps chosen",
    "fake_quantized": "after learning",
    "deployed": "integers",
    "onnxruntime": "ONNX Runtime",
}
"""The words for each stage of a result's `quantization`."""


def floats_by_reason(quantization: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """Count the operations that stay float, by their type and the reason."""
    return Counter((kept["what"], kept["reason"]) for kept in quantization["kept_float"])
