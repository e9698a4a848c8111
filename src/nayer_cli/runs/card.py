"""The model card that is saved beside a student."""

from typing import Any


def model_card(result: dict[str, Any]) -> str:
    """Write the card, in the Markdown that model hubs read, from a result document."""
    student, teacher = result["student"], result["teacher"]
    made = result["images"]["synthesized"]
    origin = f"distilled from `{teacher['name']}`" if teacher else "trained"
    source = f"{made:,} synthetic images, without training data" if made else "labelled images"
    return f"""---
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, timm, nayer]
---
# {student["name"]}, {origin}

Made with nayer (`pip install nayer-cli`), method `{result["method"]}`, seed {result["seed"]},
from {source}.

{_table(student, teacher)}
```python
import timm
import nayer_cli.models  # registers the CIFAR networks; not needed for timm's own architectures

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)
```
"""


def _table(student: dict[str, Any], teacher: dict[str, Any] | None) -> str:
    rows = [("student", student)] + ([("teacher", teacher)] if teacher else [])
    lines = ["| | network | parameters | top-1 | images |", "|---|---|---|---|---|"]
    for role, model in rows:
        top1 = f"{100 * model['top1']:.2f} %" if "top1" in model else "not measured"
        lines.append(f"| {role} | `{model['name']}` | {model['parameters']:,} | {top1} | {model.get('n', '–')} |")
    if "agreement" in student:
        lines += [
            "",
            f"Agreement with the teacher: {100 * student['agreement']:.2f} % of {student['agreement_on']}.",
        ]
    return "\n".join(lines) + "\n"
