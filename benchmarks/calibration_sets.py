"""Calibration sets compared: static quantization by ONNX Runtime, on digits. `python benchmarks/calibration_sets.py`.

For each set: on how many of 500 digits the quantized file names the class of the float network, and the processor time
that the set took.
"""

import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

from nayer_cli.classifiers.model import load_classifier
from nayer_cli.config import ModelConfig
from nayer_cli.images.labelled import open_images
from nayer_cli.runs.onnx_file import export_onnx
from nayer_cli.runs.sample import sample

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guides" / "other-tools.md"
MODEL, COUNT, STEPS = "builtin:digits", 64, 60
MADE = {
    "zeroq without its output term": {"method.name": "zeroq", "method.ce": 0.0},
    "zeroq": {"method.name": "zeroq"},
    "deepinv": {"method.name": "deepinv"},
}


def sets(folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield each set with its name and the seconds that it took."""
    model = load_classifier(ModelConfig(MODEL))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in model.normalization)
    (real, _), *_ = open_images("digits", split="train", shape=model.shape).batches(COUNT)
    noise = torch.rand(COUNT, *model.shape, generator=torch.Generator().manual_seed(0))
    yield "real images", ((real.float() / 255 - mean) / std).numpy(), 0.0
    yield "noise as pixels, normalized", ((noise - mean) / std).numpy(), 0.0
    yield "noise of [0, 1] as it is", noise.numpy(), 0.0
    for name, settings in MADE.items():
        start, out = time.process_time(), folder / name.replace(" ", "-")
        asked = {"model.name": MODEL, "count": COUNT, "method.batch": COUNT, "method.g_steps": STEPS, "device": "cpu"}
        sample(asked | settings | {"out": str(out)})
        yield name, np.load(out / "images.npz")["images"], time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    script = dict(__import__("documents").named_files(PAGE))["quantize_ort.py"]
    model = load_classifier(ModelConfig(MODEL))
    (pixels, _), *_ = open_images("digits", shape=model.shape).batches(500)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in model.normalization)
    images = ((pixels.float() / 255 - mean) / std).numpy()
    classes = model.network(torch.from_numpy(images)).argmax(1).numpy()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "quantize.py").write_text(script)
        export_onnx({"model": MODEL, "out": str(folder / "float.onnx")})
        for what, found, seconds in sets(folder):
            (folder / "set").mkdir(exist_ok=True)
            np.savez(folder / "set" / "images.npz", images=found.astype(np.float32))
            sys.argv = ["quantize.py", *(str(folder / part) for part in ("float.onnx", "set", "int8.onnx"))]
            runpy.run_path(str(folder / "quantize.py"))
            session = onnxruntime.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])
            same = np.mean(session.run(None, {"images": images})[0].argmax(1) == classes)
            print(f"{what:32} {100 * same:6.1f} % {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
