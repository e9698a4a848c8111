import pytest
import timm
import torch

from nayer_cli.classifiers.model_facts import class_count, class_labels, image_shape, normalization
from nayer_cli.config import ModelConfig
from nayer_cli.errors import InputError
from nayer_cli.types import ImageShape, Normalization

FACTS = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "classifier": "fc",
    "first_conv": "conv1",
}
WEIGHTS = {"fc.weight": torch.zeros(7, 4), "conv1.weight": torch.zeros(8, 1, 3, 3)}


def test_options_go_before_weights_and_weights_before_the_default() -> None:
    assert class_count(ModelConfig(num_classes=5), FACTS, WEIGHTS) == 5
    assert class_count(ModelConfig(), FACTS, WEIGHTS) == 7
    assert class_count(ModelConfig(), FACTS, {}) == 10
    assert class_count(ModelConfig(), {}, {}) is None


def test_the_first_of_two_classifiers_counts() -> None:
    assert class_count(ModelConfig(), {"classifier": ("head", "head_dist")}, {"head.weight": torch.zeros(3, 2)}) == 3


def test_image_shape() -> None:
    assert image_shape(ModelConfig(), FACTS, {}) == ImageShape(3, 32, 32)
    assert image_shape(ModelConfig(), FACTS, WEIGHTS) == ImageShape(1, 32, 32)
    assert image_shape(ModelConfig(channels=2, input_size=48), FACTS, WEIGHTS) == ImageShape(2, 48, 48)
    assert image_shape(ModelConfig(input_size=8, mean=(0.5,)), {}, {}) == ImageShape(1, 8, 8)


def test_a_stem_that_folds_pixels_does_not_tell_the_channels() -> None:
    assert image_shape(ModelConfig(), FACTS, {"conv1.weight": torch.zeros(8, 48, 3, 3)}).channels == 3


def test_facts_that_nothing_tells() -> None:
    with pytest.raises(InputError, match="size"):
        image_shape(ModelConfig("py:a:b"), {}, {})
    with pytest.raises(InputError, match="mean"):
        normalization(ModelConfig("py:a:b", input_size=8), {}, 3)


def test_normalization() -> None:
    assert normalization(ModelConfig(), FACTS, 3) == Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert normalization(ModelConfig(mean=(0.5,), std=(0.25,)), FACTS, 2) == Normalization((0.5,) * 2, (0.25,) * 2)
    grey = normalization(ModelConfig(), FACTS, 1)
    assert (*grey.mean, *grey.std) == pytest.approx((0.2, 0.5))


@pytest.mark.parametrize("options", [{"mean": (0.1, 0.2)}, {"std": (0.0,)}, {"std": (float("nan"),)}])
def test_impossible_normalizations(options: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(InputError):
        normalization(ModelConfig(**options), FACTS, 3)


def test_labels_of_a_checkpoint() -> None:
    assert class_labels({"label_names": ("a", "b")}, 2) == ("a", "b")
    assert class_labels({"label_names": {"1": "b", "10": "c", "0": "a"}}, 3) == ("a", "b", "c")
    described = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "crane", "n2": "crane", "n3": "ox"}}
    assert class_labels(described, 3) == ("crane (n1)", "crane (n2)", "ox")


def test_labels_of_imagenet_are_distinct() -> None:
    labels = class_labels(vars(timm.get_pretrained_cfg("resnet50")), 1000)
    assert labels is not None and len(set(labels)) == 1000
    assert labels[0] == "tench, Tinca tinca"
    assert labels[134].startswith("crane: ") and labels[517].startswith("crane: ")
    assert labels[638] != labels[639]


def test_a_thousand_classes_alone_do_not_make_an_imagenet_network() -> None:
    assert class_labels(FACTS, 10) is None
    assert class_labels(FACTS, 1000) is None
    assert class_labels({}, 1000) is None


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "pixels from 0 to 255"),
        ((0.5,), (58.395,), "std of 'net' is 58.395"),
        ((127.5,), (0.5,), "mean of 'net' is 127.5"),
        ((0.5,), (0.0,), "must be positive, not 0"),
        ((0.5,), (-0.2,), "must be positive, not -0.2"),
        ((float("nan"),), (0.5,), "finite"),
        ((0.5,), (float("inf"),), "finite"),
    ],
)
def test_constants_on_another_scale_are_refused(mean: tuple[float, ...], std: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalization(ModelConfig("net", mean=mean, std=std), {}, 3 if len(mean) == 3 else 1)
    with pytest.raises(InputError, match=message):
        normalization(ModelConfig("net"), {"mean": list(mean), "std": list(std)}, len(mean))


def test_more_classes_than_anybody_has_take_the_users_word() -> None:
    assert class_count(ModelConfig("net"), {"num_classes": 21_843}, {}) == 21_843
    with pytest.raises(InputError, match="1,000,000 classes") as fault:
        class_count(ModelConfig("net"), {"num_classes": 1_000_000}, {})
    assert "--num-classes 1000000" in str(fault.value.hint)
    assert class_count(ModelConfig("net", num_classes=10**6), {"num_classes": 10**6}, {}) == 10**6
