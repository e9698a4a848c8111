"""The model card that is saved with a student."""

from collections.abc import Mapping
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCardData

from nayer_cli.runs.documents import Network, Quantization, Result, Scores
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


def model_card(result: Result) -> str:
    """Write the card, in the Markdown that model hubs read, from a result document."""
    student, teacher, quantization = result["student"], result["teacher"], result.get("quantization")
    made = result["images"]["synthesized"]
    origin = f"{'quantized' if quantization else 'distilled'} from `{teacher['name']}`" if teacher else "trained"
    if quantization and not made:
        source = _reused(quantization)
    else:
        source = f"{made:,} synthetic images, without training data" if made else "labelled images"
    return f"""---
{_metadata(result).to_yaml()}
---
# {student["name"]}, {origin}

Made with nayer (`pip install nayer-cli`), method `{result["method"]}`, seed {result["seed"]},
from {source}.
{_provenance(result)}
{_stages(quantization) if quantization else _table(student, teacher)}
{_classes(result.get("label_names"))}{OF_INTEGERS if quantization else OF_TIMM}"""


def _metadata(result: Result) -> ModelCardData:
    """Return what model hubs read of a card. The licence is the teacher's where it is known; it is never guessed."""
    student, quantization = result["student"], result.get("quantization")
    teacher = result["teacher"] or student
    base = teacher.get("hub")
    relation: dict[str, Any] = {"base_model_relation": "quantized"} if base and quantization else {}
    return ModelCardData(
        license=teacher.get("license", "unknown"),
        library_name="nayer" if quantization else "timm",
        pipeline_tag="image-classification",
        tags=["image-classification", *(("quantized", "int8", "onnx") if quantization else ("timm",)), "nayer"],
        base_model=base,
        model_name=student["name"],
        eval_results=_figures(student) if "top1" in student else None,
        **relation,
    )


def _figures(student: Network) -> list[EvalResult]:
    """Return what was measured as hubs list it; accuracies are fractions of 1."""
    task, data = "image-classification", f"{student['n']} images"
    return [
        EvalResult(task, "images", data, "accuracy", round(value, 6), metric_name=name)
        for name, value in (("top-1", student["top1"]), ("top-5", student["top5"]))
    ]


def _provenance(result: Result) -> str:
    """Say which weights were copied, and what embedded the class names."""
    teacher, lines = result["teacher"], []
    if teacher and "sha256" in teacher:
        lines.append(f"Teacher: `{teacher['name']}`, SHA-256 of its weights {teacher['sha256']}.")
    if result["encoder"]:
        lines.append(f"Class names were embedded by `{result['encoder']}`.")
    return "".join(f"{line}\n" for line in lines)


def _classes(names: list[str] | None) -> str:
    """Write the class names in the order of the outputs."""
    if not names:
        return "Class names: unknown; the outputs are numbered.\n\n"
    listed = ", ".join(f"{index} {' '.join(name.split())}" for index, name in enumerate(names))
    return f"Classes, in the order of the outputs: {listed}.\n\n"


def _reused(quantization: Quantization) -> str:
    run = quantization["reused"]
    return f"the synthetic images of `{run}`, without training data" if run else "no image at all"


def _stages(quantization: Quantization) -> str:
    """Write what was rounded to how many bits, and the accuracy of each stage."""
    first_last, edges = quantization["first_last_bits"] or "the same", quantization["edge_bits"] or "the same"
    lines = [
        f"Bits of weights and activations: `{quantization['bits']}`; of the weights of the first and last layer: "
        f"{first_last}; of the input, sums, pooled features and layers without activation: {edges}.",
        "",
        "| stage | top-1 | images | agreement with the float model |",
        "|---|---|---|---|",
    ]
    for name, scores in cast(dict[str, Scores], quantization["stages"]).items():
        top1, agreement = _percent(scores, "top1"), _percent(scores, "agreement")
        lines.append(f"| {STAGES[name]} | {top1} | {scores.get('n', '–')} | {agreement} |")
    kept = [f"- {count} × {what}: {reason}" for (what, reason), count in floats_by_reason(quantization).items()]
    return "\n".join([*lines, "", "What computes in float32:", "", *(kept or ["- nothing"])]) + "\n"


def _percent(scores: Mapping[str, Any], key: str) -> str:
    return f"{100 * scores[key]:.2f} %" if key in scores else "not measured"


def _table(student: Network, teacher: Network | None) -> str:
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
