"""The model card that is saved beside a student."""

from typing import Any

from nayer_cli.runs.stages import STAGES, floats_by_reason

OF_TIMM = """```python
import timm
import nayer_cli.models  # registers the CIFAR networks; not needed for timm's own architectures

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)
```
"""
OF_INTEGERS = """The weights are whole numbers, which timm cannot load:

```python
from nayer_cli.config import ModelConfig
from nayer_cli.model import load_classifier

classifier = load_classifier(ModelConfig(name="PATH/TO/THIS/FOLDER"))
logits = classifier.network(images)  # normalized with classifier.normalization
```

`nayer eval PATH/TO/THIS/FOLDER --data IMAGES` measures it, and `nayer eval model.onnx --data IMAGES` the same network
in ONNX Runtime.
"""


def model_card(result: dict[str, Any]) -> str:
    """Write the card, in the Markdown that model hubs read, from a result document."""
    student, teacher, quantization = result["student"], result["teacher"], result.get("quantization")
    made = result["images"]["synthesized"]
    origin = f"{'quantized' if quantization else 'distilled'} from `{teacher['name']}`" if teacher else "trained"
    if quantization and not made:
        source = _reused(quantization)
    else:
        source = f"{made:,} synthetic images, without training data" if made else "labelled images"
    return f"""---
library_name: {"nayer" if quantization else "timm"}
pipeline_tag: image-classification
tags: [image-classification, {"quantized, int8, onnx" if quantization else "timm"}, nayer]
---
# {student["name"]}, {origin}

Made with nayer (`pip install nayer-cli`), method `{result["method"]}`, seed {result["seed"]},
from {source}.

{_stages(quantization) if quantization else _table(student, teacher)}
{_classes(result.get("label_names"))}{OF_INTEGERS if quantization else OF_TIMM}"""


def _classes(names: list[str] | None) -> str:
    """Write the class names in the order of the outputs."""
    if not names:
        return "Class names: unknown; the outputs are numbered.\n\n"
    listed = ", ".join(f"{index} {' '.join(name.split())}" for index, name in enumerate(names))
    return f"Classes, in the order of the outputs: {listed}.\n\n"


def _reused(quantization: dict[str, Any]) -> str:
    run = quantization["reused"]
    return f"the synthetic images of `{run}`, without training data" if run else "no image at all"


def _stages(quantization: dict[str, Any]) -> str:
    """Write what was rounded to how many bits, and the accuracy of each stage."""
    first_last, edges = quantization["first_last_bits"] or "the same", quantization["edge_bits"] or "the same"
    lines = [
        f"Bits of weights and activations: `{quantization['bits']}`; of the weights of the first and last layer: "
        f"{first_last}; of the input, sums, pooled features and layers without activation: {edges}.",
        "",
        "| stage | top-1 | images | agreement with the float model |",
        "|---|---|---|---|",
    ]
    for name, scores in quantization["stages"].items():
        top1, agreement = _percent(scores, "top1"), _percent(scores, "agreement")
        lines.append(f"| {STAGES[name]} | {top1} | {scores.get('n', '–')} | {agreement} |")
    kept = [f"- {count} × {what}: {reason}" for (what, reason), count in floats_by_reason(quantization).items()]
    return "\n".join([*lines, "", "What computes in float32:", "", *(kept or ["- nothing"])]) + "\n"


def _percent(scores: dict[str, Any], key: str) -> str:
    return f"{100 * scores[key]:.2f} %" if key in scores else "not measured"


def _table(student: dict[str, Any], teacher: dict[str, Any] | None) -> str:
    rows = [("student", student)] + ([("teacher", teacher)] if teacher else [])
    lines = ["| | network | parameters | top-1 | images |", "|---|---|---|---|---|"]
    for role, model in rows:
        top1 = _percent(model, "top1")
        lines.append(f"| {role} | `{model['name']}` | {model['parameters']:,} | {top1} | {model.get('n', '–')} |")
    if "agreement" in student:
        lines += [
            "",
            f"Agreement with the teacher: {100 * student['agreement']:.2f} % of {student['agreement_on']}.",
        ]
    return "\n".join(lines) + "\n"
