"""CIFAR-100 (Krizhevsky 2009): names of the fine classes in torchvision's order."""

from nayer_cli.images.dataset import DatasetFacts
from nayer_cli.types import ImageShape, Normalization

FACTS = DatasetFacts(
    names=tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
        camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
        dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
        leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
        otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
        road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
        wardrobe whale willow_tree wolf woman worm
        """.split()  # noqa: SIM905 - a hundred quoted names are harder to read
    ),
    shape=ImageShape(3, 32, 32),
    normalization=Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
)
