"""Build the parts that methods make images with: the teacher as a judge, and the others that `method.Parts` names."""

from torch import Tensor

from nayer_cli.classifiers.model import Classifier
from nayer_cli.config import AugmentConfig
from nayer_cli.critic import Critic
from nayer_cli.machine.interruption import Interruption
from nayer_cli.method import Parts
from nayer_cli.runs import assemble
from nayer_cli.storage.runlog import RunLog
from nayer_cli.types import ImageShape


def critic(teacher: Classifier, machine: assemble.Machine, log: RunLog) -> Critic:
    """Return the teacher as a judge of images, and say so where it judges without BatchNorm statistics."""
    made = Critic(assemble.model(teacher, machine), machine.group)
    if not made.has_statistics:
        log.note(
            f"the teacher '{teacher.name}' has no BatchNorm2d with running statistics (or they are folded into its "
            "convolutions): the term 'bn' is off, and total variation keeps the images smooth instead",
            level="warning",
        )
    return made


def parts(
    judge: Critic,
    embeddings: Tensor,
    shape: ImageShape,
    machine: assemble.Machine,
    batch_size: int,
    augment: AugmentConfig,
) -> Parts:
    """Return what a method is made from.

    Args:
        judge: the teacher.
        embeddings: of the class names, `[K, E]`; `[K, 0]` where there are none.
        shape: of the images.
        machine: where they are made.
        batch_size: images of a student step, of all processes together.
        augment: what teacher and student see of an image.

    """
    group = machine.group
    return Parts(
        critic=judge,
        pool=embeddings.to(machine.device),
        shape=shape,
        augment=assemble.augment(augment, shape),
        rng=machine.rng,
        precision=machine.precision,
        batch_size=group.share(batch_size, "schedule.batch_size"),
        group=group,
        interruption=Interruption(group),
    )
