"""The documents that commands return and write, field by field; `docs/reference/schemas/` is written from these types.

Accuracies, agreements and thresholds are fractions of 1, times are in seconds, losses in nats.
"""

from typing import Any, NotRequired, Required

from typing_extensions import TypedDict

from nayer_cli.gates import Gate


class Scores(TypedDict, total=False):
    """The figures of a network; empty where there was nothing to measure it on."""

    n: int
    hits: int
    top1: float
    top5: float
    loss: float
    ece: float
    ci95: list[float]
    skipped: int
    agreement: float
    agreement_on: str


class Inheritance(TypedDict):
    """The layers of its teacher that a student began with."""

    parameters: int
    layers: dict[str, str]
    """The place in the teacher of each layer or block of the student."""


class Network(Scores, total=False):
    """A teacher or a student."""

    name: Required[str]
    parameters: Required[int]
    bn_layers: int
    sha256: str
    """SHA-256 of its weights and statistics, wherever they are stored."""
    hub: str
    """The repository on the Hugging Face hub that its weights came from."""
    license: str
    """The license of that repository, if timm knows it."""
    inherited: Inheritance
    """The layers that the student took from its teacher, if any."""


class Best(TypedDict):
    """The best measured epoch: an oracle."""

    top1: float
    epoch: int


class Images(TypedDict):
    """The numbers of images that a run made and that its student saw, repetitions counted."""

    synthesized: int
    seen: int


class Convergence(TypedDict):
    """After how many of its steps a round's images are what they were asked for: cross-entropy below 0.1."""

    rounds: int
    share: float
    """Share of the rounds that reached it."""
    steps: float | None
    """Mean over those; null if there is none."""
    bounded: float
    """Mean over all rounds, where one that did not come to it counts one step more than it has."""


class Diversity(TypedDict):
    """The differences of images of a class: means over classes of means over all pairs, null without a pair."""

    images: int
    """Number of images that were compared, the newest of each class."""
    features: float | None
    """1 − cosine of the teacher's penultimate features."""
    features_round: float | None
    """The same within the newest round."""
    pixels: float | None
    """Root mean squared difference, of pixels in [0, 1]."""
    pixels_round: float | None


class Synthesis(TypedDict):
    """The addition of `eval.synthesis`."""

    convergence: dict[str, Convergence]
    """Convergence by phase: `warm-up`, `student`. Empty if a round is one step."""
    diversity: Diversity | None


class Budget(TypedDict):
    """The budget of a run, and how much it used: of seconds, processor seconds, images or flop."""

    text: str
    counts: str
    amount: float
    used: float


class KeptFloat(TypedDict):
    """An operation that computes in float32, and why."""

    name: str
    what: str
    reason: str


class OnnxFile(TypedDict):
    """The ONNX file of a quantized network."""

    path: str
    bytes: int
    storage: str
    agreement: float | None
    convolutions: int
    integer_convolutions: int
    products: int
    integer_products: int
    float_layers: list[str]


class Stages(TypedDict):
    """Scores on the way to integers."""

    float: Scores
    ptq: Scores
    fake_quantized: Scores
    deployed: Scores
    onnxruntime: NotRequired[Scores]


class Quantization(TypedDict):
    """The addition of `nayer quantize`."""

    bits: str
    first_last_bits: int | None
    edge_bits: int | None
    weight_range: str
    mode: str
    calibration: str
    images: int
    reconstruct: bool
    reconstruct_steps: int
    reconstruct_batch: int
    bn: str
    stages: Stages
    kept_float: list[KeptFloat]
    reused: str | None
    onnx: OnnxFile | None


class Forecast(TypedDict):
    """The time, memory and disk that a run will take on this machine."""

    seconds: dict[str, float]
    """Seconds by phase, and their `total`."""
    memory: int | None
    """Bytes of the host that one process takes at most; null on a GPU."""
    disk: int
    """Bytes of the run directory."""


class Result(TypedDict):
    """The document of `distill`, `train` and `quantize`, and `result.json`."""

    schema: str
    kind: str
    run: str
    method: str
    encoder: str | None
    seed: int
    teacher: Network | None
    student: Network
    best_oracle: Best | None
    images: Images
    processes: int
    budget: Budget | None
    seconds: dict[str, float]
    processor_seconds: dict[str, float]
    peak_memory: dict[str, int]
    """Bytes, of one process: `host`, since it began, and `device` where that is a GPU."""
    gates: list[Gate]
    passed: bool
    warnings: list[str]
    label_names: list[str] | None
    synthesis: NotRequired[Synthesis]
    quantization: NotRequired[Quantization]
    dry_run: NotRequired[bool]
    forecast: NotRequired[Forecast | None]
    config: NotRequired[dict[str, Any]]


class Prepared(TypedDict):
    """The way in which pictures of another size got the model's, in timm's words."""

    interpolation: str
    crop_pct: float
    crop_mode: str


class Measured(TypedDict):
    """One model as `nayer eval` measured it."""

    model: str
    name: str
    data: str
    split: str
    input_size: list[int]
    """Channels, height, width."""
    preparation: Prepared
    skipped: int
    unreadable: list[str]
    n: int
    hits: int
    top1: float
    top5: float
    loss: float
    ece: float
    ci95: list[float]
    agreement: float | None
    drop: float | None
    parameters: int | None
    images_per_s: float
    device: str


class EvalResult(TypedDict):
    """The document of `nayer eval`."""

    schema: str
    results: list[Measured]
    reference: Measured | None
    gates: list[Gate]
    passed: bool
    warnings: list[str]


class Median(TypedDict):
    """A median over the turns, with a 95 % interval."""

    median: float
    low: float
    high: float


class Speed(TypedDict):
    """The time that one model takes for a batch."""

    batch: int
    seconds: Median
    """Seconds of one batch."""
    images_per_s: float
    faster: Median | None
    """Seconds of the first model over those of this one, turn by turn: 2 is twice as fast; null without the first."""


class Timed(TypedDict):
    """One model as `nayer bench` measured it."""

    model: str
    name: str
    runtime: str
    """`torch` or `ONNX Runtime`, with its version."""
    device: str
    numbers: str
    """`float32`, bits such as `w8a8`, or `integers` where a file does not tell how many bits."""
    input: list[int]
    """Channels, height, width."""
    bytes: int
    """Size of the file, or of the weights of a network without one."""
    parameters: int
    macs: int | None
    """Multiplications with additions of convolutions and matrix products, for one image; null if they are unknown."""
    latency: Speed | None
    """One image at a time; null for a file that takes more."""
    throughput: Speed | None
    """`batch` images at a time; null for a file that takes another number."""


class BenchResult(TypedDict):
    """The document of `nayer bench`."""

    schema: str
    processor: str
    threads: int
    batch: int
    repeats: int
    results: list[Timed]


class Sampled(TypedDict, total=False):
    """The document of `nayer sample`; the last five if there is a manifest of the images."""

    images: Required[int]
    classes: Required[dict[str, int]]
    path: Required[str]
    source: Required[str]
    """`bank` or `generator` of a run, or `model`."""
    format: str
    shape: list[int]
    layout: str
    values: str
    manifest: str


class Exported(TypedDict):
    """The document that `nayer export` returns."""

    path: str
    bytes: int
    model: str
    parameters: int
    kind: str
    input: str
    mean: list[float]
    std: list[float]
    writer: str
    """`nayer`, or `torch.onnx` for a network that nayer has no rules for."""
    images: int
    """On which file and network were compared; they are not photographs."""
    agreement: float
    """Part of the images that both put in the same class."""
    largest_difference: float
    """Largest difference of two logits."""
    range: float
    """From the least logit to the largest."""
    coarser: str
    """The values that the file rounds more coarsely than the network; empty if none."""
