"""Settings that several methods have in common, as bases of their `Config`; like `config`, without torch."""

from dataclasses import dataclass

from nayer_cli.config import setting

EMBEDDINGS, COUNT, NOTHING = "embeddings", "count", "nothing"
"""The parts of the class names that a method can use."""
BATCH, STEPS, LIFE = "batch", "g_steps", "g_life"
"""Images of a round, steps in it, and epochs after which what makes images starts afresh."""
GENERATOR, WIDTH, CODE_SIZE = "generator", "width", "code_size"
"""Settings of these six names mean the same in every method that has them. Runs ask for no others by name."""


@dataclass(frozen=True)
class PriorSettings:
    """Settings of `prior.PriorGenerator`: a generator that lives as long as the run, and the terms of its loss."""

    name: str = setting("", "the method")
    lr_g: float = setting(0.02, "learning rate of the generator's Adam", low=0)
    code_size: int = setting(1000, "length of the latent codes", low=1)
    width: int = setting(64, "channels at full size of the generator, and of a VAE's decoder", low=1)
    generator: str = setting(
        "standard",
        "generator, and decoder of a VAE: standard, shallow, deep, auto, or a dotted path",
        plugin="generators",
        words=("auto", "standard"),
    )
    ce: float = setting(1.0, "weight of the teacher's confidence", low=0)
    balance: float = setting(5.0, "weight of the balance between classes", low=0)
    act: float = setting(0.1, "weight of strong penultimate features", low=0)
    js: float = setting(1.0, "weight of the disagreement of student and teacher", low=0)
    js_reduction: str = setting(
        "batchmean",
        "average over the batch, or also over classes as in the released code, which makes its gradient mostly 0"
        " from 100 classes",
        choices=("batchmean", "released"),
    )


@dataclass(frozen=True)
class VaeSettings(PriorSettings):
    """Settings of `variational.VariationalMemory`: a VAE that remembers what the generator of these priors drew."""

    replay: float = setting(0.125, "remembered images in a student's batch, per fresh one; 0: none", low=0, high=1)
    recall_after: int = setting(0, "steps of the student before remembered images join the fresh ones", low=0)
    vae_steps: int = setting(4, "steps of the VAE in a cycle", low=0)
    lr_vae: float = setting(5e-4, "learning rate of the VAE's Adam", low=0)
    lr_z: float = setting(0.02, "size of the step that codes take before they are decoded", low=0)
    tune_decoder: bool = setting(False, "let the decoder learn from the loss of that step too, as in the released code")
