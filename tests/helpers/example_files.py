"""The files that the commands in the documents name: images, weights and runs, all of them small and random."""

import shutil
import tarfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import documents
import nayer_cli.classifiers.models  # noqa: F401 - registers the networks
from nayer_cli.images import dataset
from nayer_cli.runs.distill import distill
from nayer_cli.runs.embed import embed
from nayer_cli.runs.quantize import quantize
from nayer_cli.runs.train import train
from onnx import TensorProto, helper, numpy_helper
from tiny_clip import fill_hub_cache

CLASSES = dataset.find("cifar10").class_names
SHORT = {"schedule.epochs": 2, "schedule.batch_size": 8, "device": "cpu", "output.sample_every": 0}
BRIEF = SHORT | {
    "schedule.warmup_epochs": 0,
    "schedule.rounds": 1,
    "schedule.kd_steps": 1,
    "lte.encoder": "onehot",
    "method.batch": 100,
    "method.g_steps": 1,
    "method.code_size": 8,
    "method.width": 4,
}


def write_example_files(folder: Path) -> None:
    """Fill a working directory."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % len(CLASSES)
    with chdir(folder):
        Path("classes.txt").write_text("\n".join(CLASSES))
        np.savez("test.npz", images=images, labels=labels)
        _write_images(Path("images/val"), images, labels)
        for name in ("train.tar", "test.tar"):
            with tarfile.open(name, "w") as archive:
                archive.add("images/val", arcname=".")
        _write_weights(Path("teacher.pth"), "wrn_40_2")
        _write_weights(Path("resnet56.pth"), "resnet56_cifar_a")
        _write_weights(Path("resnet20.pth"), "resnet20_cifar_a")
        write_own_weights(Path("cnn.pth"))
        write_peer(Path("peer.onnx"))
        embed({"labels": "classes.txt", "encoder": "onehot", "out": "pool.safetensors"})
        _write_runs()


def write_pretrained(hub: Path, model: str, scratch: Path) -> None:
    """Put random weights of a timm model where its pretrained ones would be in the cache of the hub."""
    scratch.mkdir()
    save_file(timm.create_model(model).state_dict(), scratch / "model.safetensors")
    fill_hub_cache(hub, timm.get_pretrained_cfg(model).hf_hub_id, scratch)
    shutil.rmtree(scratch)


def _write_images(folder: Path, images: Any, labels: Any) -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / CLASSES[label] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def _write_weights(path: Path, model: str) -> None:
    state = timm.create_model(model, num_classes=len(CLASSES)).state_dict()
    torch.save({"epoch": 200, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)


def write_peer(path: Path) -> None:
    """Write a classifier of 32×32 pixels that tells nothing of itself."""
    weight = numpy_helper.from_array(
        np.random.default_rng(0).normal(size=(3, len(CLASSES))).astype("float32"), "weight"
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["output"]),
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 32, 32])
    found = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, len(CLASSES)])
    graph = helper.make_graph(nodes, "peer", [given], [found], [weight])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())


def write_own_weights(path: Path) -> None:
    """Write the weights of the network in README's `cnn.py`."""
    space: dict[str, Any] = {}
    exec(dict(documents.named_files(documents.ROOT / "README.md"))["cnn.py"], space)
    torch.save(space["CNN"]().state_dict(), path)


def _write_runs() -> None:
    """Make runs that were stopped after the first of two epochs, so that they can be resumed."""
    distill(BRIEF | {"preset": "digits", "output.out": "runs/digits", "eval.data": "digits"})
    train(SHORT | {"student.name": "resnet20_cifar_a", "data": "train.tar", "output.out": "runs/teacher"})
    cifar = {"teacher.name": "runs/teacher", "student.name": "resnet20_cifar_a", "eval.data": "images/val"}
    distill(BRIEF | cifar | {"preset": "cifar10", "output.out": "runs/one"})
    few = {"schedule.epochs": 2, "schedule.batch_size": 8, "schedule.kd_steps": 1, "device": "cpu"}
    quantize(few | {"teacher.name": "runs/one", "quantizer.bits": "w4a4", "output.out": "runs/w4a4"})
    for run in Path("runs").iterdir():
        (run / "checkpoints" / "epoch-000002.safetensors").unlink()
    for name in ("runs/two", "runs/cifar10", "runs/cnn"):
        shutil.copytree("runs/one", name)
