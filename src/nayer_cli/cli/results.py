"""Result documents for people: as tables, and whether their gates were met. Nothing here prints."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nayer_cli.errors import GateMissed
from nayer_cli.runs.stages import STAGES, floats_by_reason

Document = Mapping[str, Any]
Rows = list[tuple[str, ...]]
"""A table: the headings, which may be empty, then the rows."""

OF_A_MODEL = (
    "model",
    "top-1",
    "95 % interval",
    "top-5",
    "loss",
    "ECE",
    "n",
    "agreement",
    "drop",
    "parameters",
    "prepared",
)
INSTALLATION_WIDTH = 30
CHOICES = ("presets", "methods", "generators", "encoders", "datasets")


def speaks() -> bool:
    """Say whether this process speaks to the user: of several that torchrun has started, the first does."""
    return os.environ.get("RANK", "0") == "0"


def percent(fraction: float | None) -> str:
    """Write a fraction of 1 as a percentage, and what was not measured as a dash."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def clock(seconds: float) -> str:
    """Write a duration as `h:mm:ss`."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def interval(bounds: Sequence[float] | None) -> str:
    """Write a confidence interval of a fraction."""
    return "–" if bounds is None else f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f} %"


def fact_rows(document: Document) -> Rows:
    """Return one row a fact, for documents without a table of their own."""
    return [("", ""), *((name, str(value)) for name, value in document.items())]


def method_rows(sentences: dict[str, str], memory: dict[str, dict[str, Any]]) -> Rows:
    """Return one row a method: what it keeps, megabytes for 1,000 images of 3×32×32, and its sentence."""
    kept = {name: _kept(**memory[name]) for name in memory}
    rows = [(name, kept.get(name, "–"), sentence) for name, sentence in sentences.items()]
    return [("method", "keeps (MB per 1,000 images of 3×32×32)", ""), *rows]


def _kept(keeps: str, mb_per_1000_images: float) -> str:
    return f"{keeps} ({mb_per_1000_images:g})" if mb_per_1000_images else keeps


def run_rows(result: Document) -> Rows:
    """Return teacher and student of a run side by side; of a dry run, the settings that it would have."""
    if result.get("dry_run"):
        return dry_rows(result)
    teacher, student = result["teacher"] or {}, result["student"]
    on = student.get("agreement_on", "evaluation data")
    agreement = f"agreement on {on}" if on == "evaluation data" else f"agreement on {on}, not accuracy"
    best = result.get("best_oracle") or {}
    inherited = (student.get("inherited") or {}).get("parameters")
    seconds = result["seconds"]["total"]
    return [
        ("", "teacher", "student"),
        ("model", teacher.get("name", "–"), student["name"]),
        ("parameters", _count(teacher.get("parameters")), _count(student["parameters"])),
        *([("of these, the teacher's at the start", "", _count(inherited))] if inherited else []),
        ("BatchNorm layers compared", _layers(teacher), ""),
        ("images", _images(teacher), _images(student)),
        ("top-1", percent(teacher.get("top1")), percent(student.get("top1"))),
        ("95 % interval", interval(teacher.get("ci95")), interval(student.get("ci95"))),
        ("top-5", percent(teacher.get("top5")), percent(student.get("top5"))),
        (agreement, "", percent(student.get("agreement"))),
        ("best epoch, an oracle", "", percent(best.get("top1"))),
        ("time", "", clock(seconds)),
        ("run", "", str(result["run"])),
    ]


def dry_rows(result: Document) -> Rows:
    """Return what a run would take, and the settings that it would have."""
    found = result.get("forecast")
    if not found:
        return fact_rows(result["config"])
    memory = f"{found['memory'] / 1e9:.1f} GB at most" if found["memory"] else "–"
    takes = {"time": clock(found["seconds"]["total"]), "memory": memory, "disk": f"{found['disk'] / 1e9:.2g} GB"}
    return fact_rows({**takes, **result["config"]})


def quantization_rows(result: Document) -> Rows:
    """Return the accuracy of each stage of a quantized model, and how much of it runs as integers."""
    if result.get("dry_run"):
        return dry_rows(result)
    about, student = result["quantization"], result["student"]
    onnx = about["onnx"]
    rows: Rows = [("", "top-1", "95 % interval", "images", "agreement with the float model")]
    rows += [(STAGES[name], *_stage_row(scores)) for name, scores in about["stages"].items()]
    facts = {"model": student["name"], "parameters": _count(student["parameters"])}
    facts["kept float"] = (
        "; ".join(f"{n} × {what}: {why}" for (what, why), n in floats_by_reason(about).items()) or "nothing"
    )
    if onnx:
        facts["ONNX file"] = f"{onnx['bytes']:,} bytes, {onnx['storage']} weights"
        facts["run as integers"] = (
            f"{onnx['integer_convolutions']} of {onnx['convolutions']} convolutions, "
            f"{onnx['integer_products']} of {onnx['products']} matrix products"
        )
        facts["ONNX Runtime agrees"] = percent(onnx["agreement"])
    facts |= {"time": clock(result["seconds"]["total"]), "run": str(result["run"])}
    return rows + [(name, value, "", "", "") for name, value in facts.items()]


def _stage_row(scores: Document) -> tuple[str, ...]:
    bounds = interval(scores.get("ci95"))
    return percent(scores.get("top1")), bounds, _images(scores), percent(scores.get("agreement"))


def export_rows(document: Document) -> Rows:
    """Return what an ONNX file takes, and how well it agrees with its network."""
    difference = f"{document['largest_difference']:.2g} of a range of {document['range']:.2g}"
    facts = {
        "file": document["path"],
        "bytes": f"{document['bytes']:,}",
        "model": f"{document['model']}, {document['kind']}",
        "input": document["input"],
        "mean, std": f"{document['mean']}, {document['std']}",
        "written by": document["writer"],
        "same class": f"{percent(document['agreement'])} of {document['images']} images that are no photographs",
        "largest difference of logits": difference,
        "coarser": document["coarser"],
    }
    return fact_rows({name: value for name, value in facts.items() if value})


def bench_rows(document: Document) -> Rows:
    """Return a row for each model: what it is, how fast it is, and how it compares with the first."""
    batch = document["batch"]
    head = (
        "model",
        "runtime",
        "numbers",
        "MB",
        "parameters",
        "MMAC",
        "latency, ms",
        "faster",
        f"images/s by {batch}",
        "faster",
    )
    return [head, *map(_bench_row, document["results"])]


def _bench_row(result: Document) -> tuple[str, ...]:
    latency, throughput, macs = result["latency"], result["throughput"], result["macs"]
    return (
        result["model"],
        result["runtime"].partition("+")[0],
        result["numbers"],
        f"{result['bytes'] / 1e6:.2f}",
        _count(result["parameters"]),
        "–" if macs is None else f"{macs / 1e6:,.1f}",
        f"{1e3 * latency['seconds']['median']:.3g}" if latency else "–",
        _faster(latency),
        f"{throughput['images_per_s']:,.0f}" if throughput else "–",
        _faster(throughput),
    )


def _faster(speed: Document | None) -> str:
    if not speed or not speed["faster"]:
        return "–"
    ratio = speed["faster"]
    bounds = f" ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio["low"] != ratio["high"] else ""
    return f"{ratio['median']:.2f}×{bounds}"


def machine_rows(document: Document) -> Rows:
    """Return where and how often models were timed."""
    return fact_rows({name: document[name] for name in ("processor", "threads", "repeats")})


def evaluation_rows(document: Document) -> Rows:
    """Return the comparison table: the reference first, then each model."""
    measured = [document["reference"], *document["results"]]
    return [OF_A_MODEL, *(_evaluation_row(result) for result in measured if result)]


def _evaluation_row(result: Document) -> tuple[str, ...]:
    return (
        result["model"],
        percent(result["top1"]),
        interval(result["ci95"]),
        percent(result["top5"]),
        f"{result['loss']:.4f}",
        f"{result['ece']:.4f}",
        _images(result),
        percent(result["agreement"]),
        percent(result["drop"]),
        _count(result["parameters"]),
        _prepared(result),
    )


def _prepared(result: Document) -> str:
    """Write what a model saw of a picture, such as `224×224, bicubic, crop 0.875`."""
    (_, height, width), how = result["input_size"], result["preparation"]
    mode = "" if how["crop_mode"] == "center" else f", {how['crop_mode']}"
    return f"{height}×{width}, {how['interpolation']}, crop {how['crop_pct']:g}{mode}"


def installation_rows(document: Document) -> Rows:
    """Return what `nayer info` found, with the command that adds each missing extra and mends each problem.

    A part of the document gives a part of the table, of the same width.
    """
    rows: Rows = [(name, str(document[name])) for name in ("nayer", "python", "platform") if name in document]
    rows += [(name, version or "missing") for name, version in document.get("packages", {}).items()]
    rows += [(f"extra {name}", _extra(name, packages)) for name, packages in document.get("extras", {}).items()]
    rows += [(f"processor: {name}", sentence) for name, sentence in document.get("processor", {}).items()]
    rows += [(f"cache of {name}", path) for name, path in document.get("caches", {}).items()]
    rows += [(name, ", ".join(value)) for name, value in document.items() if name in CHOICES]
    for kind, brought in document.get("installed_plugins", {}).items():
        rows += [(f"{kind} installed", f"{name} of {package}") for name, package in brought.items()]
    rows += [("problem", f"{problem['what']}; fix: {problem['mend']}") for problem in document.get("problems", ())]
    rows += [(f"device {one['device']}", f"{one['name']}, {one['gb']} GB") for one in document.get("devices", ())]
    return [("", ""), *((name.ljust(INSTALLATION_WIDTH), value) for name, value in rows)]


def _extra(name: str, packages: Mapping[str, str | None]) -> str:
    if None in packages.values():
        return f"missing: pip install 'nayer-cli[{name}]'"
    return ", ".join(f"{package} {version}" for package, version in packages.items())


def _layers(teacher: Document) -> str:
    """Write with how many layers of the teacher the term `bn` compares."""
    layers = teacher.get("bn_layers")
    return "none: total variation instead" if layers == 0 else _count(layers)


def _images(scores: Document) -> str:
    """Write on how many images scores were measured, and how many could not be read."""
    skipped = scores.get("skipped")
    return _count(scores.get("n")) + (f" ({_count(skipped)} unreadable left out)" if skipped else "")


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def comparison_rows(document: Document) -> Rows:
    """Return the settings that differ, then the figures, a column for each run."""
    rows: Rows = [("", *document["runs"])]
    for part in ("settings", "figures"):
        rows += [(name, *map(_figure, values)) for name, values in document[part].items()]
    return rows


def _figure(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_gates(document: Document) -> None:
    """Raise GateMissed if a threshold of the user was not met; results are written and shown before.

    Only where they are shown: torchrun ends all processes once one of them has failed.
    """
    if not speaks():
        return
    missed = [gate for gate in document["gates"] if not gate["passed"]]
    if missed:
        raise GateMissed("; ".join(map(_missed, missed)))


def _missed(gate: Document) -> str:
    stage = STAGES.get(gate.get("stage", ""), "")
    of = " of " + (gate.get("model") or f"'{stage}'") if gate.get("model") or stage else ""
    rounded = f"{gate['value']:.4f}"  # unless it would look like the threshold itself
    value = gate["value"] if float(rounded) == gate["threshold"] else rounded
    return f"{gate['metric']}{of} is {value}, but {gate['op']} {gate['threshold']:g} is wanted"
