"""ImageNet-1k (ILSVRC 2012): class names as timm carries them, all WordNet synonyms of a class; no two are equal."""

from nayer_cli.images.class_order import glossed_name
from nayer_cli.images.dataset import DatasetFacts, Names
from nayer_cli.types import ImageShape, Normalization


def _class_names() -> Names:
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    wordnet_ids: list[str] = info.label_names()  # type: ignore[no-untyped-call]
    return tuple(map(glossed_name, wordnet_ids, info.label_descriptions()))


FACTS = DatasetFacts(
    names=_class_names,
    shape=ImageShape(3, 224, 224),
    normalization=Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
