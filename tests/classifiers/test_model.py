import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

import nayer_cli.classifiers.models  # noqa: F401 - registers our networks
from nayer_cli.classifiers.model import (
    Classifier,
    Normalized,
    _probe,
    load_classifier,
    logits_of,
    new_classifier,
    new_network,
    parameters,
    save_classifier,
)
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.images.pictures import fit
from nayer_cli.machine.precision import Precision
from nayer_cli.trust import trusting_code
from nayer_cli.types import ImageShape, Normalization

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COLOUR = ImageShape(3, 32, 32)
GREY = Normalization((0.4,), (0.2,))


def teacher(k: int = 7, shape: ImageShape = COLOUR) -> Classifier:
    """What a student is made like; its network does not matter."""
    normalization = Normalization((0.4,) * shape.channels, (0.2,) * shape.channels)
    labels = tuple(f"class {index}" for index in range(k))
    return Classifier(nn.Identity(), "teacher", shape, normalization, k, labels)


def settled(network: nn.Module) -> nn.Module:
    """Give BatchNorms statistics that are not the trivial ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return network.eval()


def save(folder: Path, classifier: Classifier) -> Path:
    save_classifier(folder, classifier, card="# A card", extra={"seed": 3})
    return folder


def test_normalized_takes_images_in_0_to_1() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    model = Normalized(network, Normalization((0.5, 0.25), (0.5, 0.125)))
    images = torch.tensor([0.75, 0.5]).view(1, 2, 1, 1)
    assert torch.equal(model(images), network(torch.tensor([[0.5, 2.0]])))
    assert model.network is network
    assert model.mean.shape == (1, 2, 1, 1)


def test_normalized_returns_float32_whatever_the_precision() -> None:
    model = Normalized(
        nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), Normalization((0.5,), (0.5,)), Precision(dtype=torch.bfloat16)
    )
    seen: list[torch.dtype] = []
    model.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert model(torch.rand(2, 3, 2, 2)).dtype is torch.float32
    assert seen == [torch.bfloat16]


def test_odd_heads_are_unwrapped() -> None:
    logits = torch.zeros(2, 3)
    named = SimpleNamespace(loss=None, logits=logits)
    for output in (logits, (logits, None), [logits], {"loss": 0, "logits": logits}, {"logits": (logits,)}, named):
        assert logits_of(output) is logits
    assert logits_of(torch.zeros(2, 3, 1, 1)).shape == (2, 3)


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 4, 4), {"features": torch.zeros(2, 3)}, (), None])
def test_heads_without_logits(output: object) -> None:
    with pytest.raises(InputError, match="the network returns"):
        logits_of(output)


def test_parameters_do_not_count_buffers() -> None:
    assert parameters(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))) == 6 + 2 + 4


def test_a_student_has_everything_of_its_teacher() -> None:
    like = teacher(shape=ImageShape(1, 20, 28))
    student = new_classifier(ModelConfig("wrn_16_1"), like)
    assert (student.shape, student.num_classes, student.labels) == (like.shape, 7, like.labels)
    assert student.normalization == like.normalization
    assert student.name == "wrn_16_1"
    assert student.network(torch.zeros(2, 1, 20, 28)).shape == (2, 7)
    assert student.network.training


def test_a_student_named_by_timm_has_fresh_weights() -> None:
    torch.manual_seed(0)
    first, second = (new_classifier(ModelConfig("resnet50.a1_in1k"), teacher()).network for _ in range(2))
    assert not torch.equal(first.conv1.weight, second.conv1.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "word"), [("num_classes", "classes"), ("channels", "channels"), ("input_size", "pixels a side")]
)
def test_a_student_cannot_contradict_its_teacher(option: str, word: str) -> None:
    with pytest.raises(InputError, match=f"must have .* {word}, not 5"):
        new_classifier(ModelConfig("wrn_16_1", **{option: 5}), teacher())


def test_a_student_may_have_a_normalization_of_its_own() -> None:
    student = new_classifier(ModelConfig("wrn_16_1", mean=(0.1, 0.2, 0.3)), teacher())
    assert student.normalization == Normalization((0.1, 0.2, 0.3), (0.2, 0.2, 0.2))


def test_a_network_without_a_teacher_takes_its_own_facts() -> None:
    network = new_network(ModelConfig("resnet8_digits"), 4)
    assert (network.shape, network.num_classes, network.labels) == (ImageShape(1, 16, 16), 4, None)
    assert network.normalization == Normalization((0.31,), (0.32,))


def test_the_probe_leaves_modes_and_ambient_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    student = new_classifier(ModelConfig(f"py:{__name__}:Tiny"), teacher(k=3, shape=ImageShape(1, 2, 2)))
    assert student.network.training
    torch.manual_seed(0)
    _probe(student.network, student.shape, "tiny")
    assert student.network.training
    assert torch.equal(torch.rand(3), expected)


def test_an_image_that_the_network_cannot_take() -> None:
    with pytest.raises(InputError, match="'vgg11_cifar' cannot take 3×4×4 images"):
        new_classifier(ModelConfig("vgg11_cifar"), teacher(shape=ImageShape(3, 4, 4)))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("wrn_16_1", COLOUR),
        ("resnet18", COLOUR),
        ("resnet8_digits", ImageShape(1, 16, 16)),
        ("vgg11_cifar", ImageShape(3, 64, 64)),
        ("vit_tiny_patch16_224", ImageShape(1, 32, 32)),
        ("mixer_s32_224", ImageShape(3, 32, 64)),
    ],
)
def test_timm_and_nayer_reload_the_same_logits(tmp_path: Path, name: str, shape: ImageShape) -> None:
    student = new_classifier(ModelConfig(name), teacher(shape=shape))
    expected = settled(student.network)(images := torch.randn(2, *shape))
    save(tmp_path, student)
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    by_nayer = load_classifier(ModelConfig(str(tmp_path)))
    assert torch.equal(by_timm(images), expected)
    assert torch.equal(by_nayer.network(images), expected)
    for fact in ("name", "shape", "normalization", "num_classes", "labels", "key", "arguments"):
        assert getattr(by_nayer, fact) == getattr(student, fact)


def test_timm_is_told_how_to_prepare_images(tmp_path: Path) -> None:
    save(tmp_path, new_classifier(ModelConfig("resnet18"), teacher()))
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    facts = timm.data.resolve_model_data_config(network)
    assert list(facts["input_size"]) == [3, 32, 32]
    assert (facts["crop_pct"], facts["interpolation"]) == (1.0, "bicubic")
    assert (tuple(facts["mean"]), tuple(facts["std"])) == ((0.4,) * 3, (0.2,) * 3)
    assert list(network.pretrained_cfg["label_names"])[6] == "class 6"


def test_a_saved_folder_holds_three_files_and_what_is_extra(tmp_path: Path) -> None:
    save(tmp_path, new_classifier(ModelConfig("wrn_16_1"), teacher()))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1  # whoever reads one can read all
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["nayer"] == {"seed": 3}
    assert (document["architecture"], document["num_classes"]) == ("wrn_16_1", 7)
    assert (tmp_path / "README.md").read_text() == "# A card"


def test_keyword_arguments_survive_another_save(tmp_path: Path) -> None:
    wide = new_network(ModelConfig("resnet8_digits"), 10)
    wide = replace(wide, network=timm.create_model("resnet8_digits", width=16), arguments={"width": 16})
    save(tmp_path / "a", wide)
    save(tmp_path / "b", load_classifier(ModelConfig(str(tmp_path / "a"))))
    assert parameters(load_classifier(ModelConfig(str(tmp_path / "b"))).network) == parameters(wide.network)


def test_a_student_named_by_a_folder_starts_from_its_weights(tmp_path: Path) -> None:
    first = new_classifier(ModelConfig("wrn_16_1"), teacher())
    again = new_classifier(ModelConfig(str(save(tmp_path, first))), teacher())
    assert torch.equal(again.network.conv1.weight, first.network.conv1.weight)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"linear.weight is \[7, 64\] instead of \[9, 64\]"):
        new_classifier(ModelConfig(str(tmp_path)), teacher(k=9))


def test_a_weight_file_tells_classes_and_channels(tmp_path: Path) -> None:
    network = settled(timm.create_model("resnet18", num_classes=9, in_chans=1))
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    loaded = load_classifier(ModelConfig("resnet18", weights=str(tmp_path / "x.safetensors"), input_size=48))
    assert (loaded.num_classes, loaded.shape, loaded.labels) == (9, ImageShape(1, 48, 48), None)
    assert not loaded.network.training
    images = torch.randn(1, 1, 48, 48)
    assert torch.equal(loaded.network(images), network(images))


def test_an_imagenet_network_has_imagenets_labels(tmp_path: Path) -> None:
    torch.save(timm.create_model("mobilenetv3_small_050").half().state_dict(), tmp_path / "x.pth")
    loaded = load_classifier(ModelConfig("mobilenetv3_small_050", weights=str(tmp_path / "x.pth"), input_size=64))
    assert loaded.labels is not None and loaded.labels[207] == "golden retriever"
    assert loaded.normalization == Normalization(**IMAGENET)
    assert {parameter.dtype for parameter in loaded.network.parameters()} == {torch.float32}


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = timm.create_model("wrn_16_1").state_dict()
    weights["bn1.bias"][3] = float("nan")
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"bn1.bias of .*x.pth is not finite"):
        load_classifier(ModelConfig("wrn_16_1", weights=str(tmp_path / "x.pth")))


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        (ModelConfig("wrn_40_2"), "no pretrained weights for 'wrn_40_2'", "--teacher-weights FILE"),
        (ModelConfig("resnet50", num_classes=10), "has 1000 classes, not 10", ""),
        (ModelConfig("vit_small_patch14_dinov2"), "only features", "fine-tuned"),
        (ModelConfig("py:torch.nn:Identity"), "size of its images", "input_size"),
    ],
)
def test_teachers_that_cannot_teach(spec: ModelConfig, message: str, hint: str) -> None:
    with pytest.raises(InputError, match=message) as fault:
        load_classifier(spec)
    assert hint in (fault.value.hint or "")


class Tiny(nn.Module):
    """A network that timm does not know, with a head that returns more than logits."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x.flatten(1))}


def test_any_module_can_teach_and_be_saved(tmp_path: Path) -> None:
    spec = ModelConfig(f"py:{__name__}:Tiny", input_size=2, mean=GREY.mean, std=GREY.std)
    classifier = load_classifier(spec)
    assert (classifier.name, classifier.num_classes, classifier.shape) == ("Tiny", 3, ImageShape(1, 2, 2))
    with trusting_code():
        again = load_classifier(ModelConfig(str(save(tmp_path, classifier))))
    images = torch.rand(5, 1, 2, 2)
    assert torch.equal(
        Normalized(again.network, again.normalization)(images), Normalized(classifier.network, GREY)(images)
    )
    assert "timm cannot rebuild" in json.loads((tmp_path / "config.json").read_text())["note"]


def test_a_factory_is_held_to_the_number_of_classes() -> None:
    with pytest.raises(InputError, match="'Tiny' returns 3 logits, but there are 7 classes"):
        new_classifier(ModelConfig(f"py:{__name__}:Tiny"), teacher(shape=ImageShape(1, 2, 2)))


def test_a_network_that_came_without_a_key_is_rebuilt_by_its_class_or_timm_name(tmp_path: Path) -> None:
    for number, network in enumerate((Tiny(), timm.create_model("wrn_16_1", num_classes=3, in_chans=1))):
        bare = Classifier(network.eval(), "student", ImageShape(1, 2, 2), GREY, 3, None)
        with trusting_code():
            again = load_classifier(ModelConfig(str(save(tmp_path / str(number), bare))))
        assert torch.equal(logits_of(again.network(torch.ones(1, 1, 2, 2))), logits_of(network(torch.ones(1, 1, 2, 2))))


def test_timm_prepares_a_picture_for_a_saved_model_as_it_was_measured(tmp_path: Path) -> None:
    shape, half = ImageShape(3, 32, 32), Normalization((0.5,) * 3, (0.5,) * 3)
    saved = new_network(ModelConfig("ghostnet_050"), 4, shape=shape, normalization=half)  # bilinear, says timm
    save(tmp_path, saved)
    facts = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    theirs = create_transform(**resolve_data_config(facts, verbose=False))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    ours = (torch.from_numpy(np.array(fit(picture, shape))).permute(2, 0, 1) / 255 - 0.5) / 0.5
    assert torch.allclose(theirs(picture), ours, atol=1e-6)


def test_the_published_resnet56_scores_as_it_should(shared: Path) -> None:
    weights = str(shared / "teachers" / "resnet56-4bfd9763.th")
    published = load_classifier(ModelConfig("resnet56_cifar_a", weights=weights, **IMAGENET))
    images, labels = cifar10(shared / "data" / "cifar10-jpeg-test5k.tar", every=10)
    with torch.no_grad():
        found = Normalized(published.network, published.normalization)(images).argmax(1)
    assert len(labels) == 500
    assert (found == labels).float().mean().item() == pytest.approx(0.83, abs=0.02)


def cifar10(path: Path, every: int) -> tuple[Tensor, Tensor]:
    """Read one image in `every`, `[N, 3, 32, 32]` in [0, 1], and labels by the alphabetical order of the folders."""
    with tarfile.open(path) as tar:
        members = sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
        classes = sorted({member.name.split("/")[0] for member in members})
        chosen = members[::every]
        pictures = [Image.open(io.BytesIO(tar.extractfile(member).read())) for member in chosen]  # type: ignore[union-attr]
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    labels = torch.tensor([classes.index(member.name.split("/")[0]) for member in chosen])
    return pixels.permute(0, 3, 1, 2) / 255, labels


def test_a_wrapped_network_can_be_exported():
    model = Normalized(settled(timm.create_model("resnet8_digits", num_classes=4)), GREY).eval()
    images = torch.rand(2, 1, 16, 16)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    more = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(exported(more), model(more))
