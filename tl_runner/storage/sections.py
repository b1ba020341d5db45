"""The sections of a run's record, as `run.json` holds them. A field is None, or empty, until it is known."""

from dataclasses import dataclass, field
from typing import Any, Literal

# By name: accuracy, balanced, macro_f1, ece, each in [0, 1]; of a quantity r2, mae, rmse, spearman. Of a checkpoint
# its step too.
Metrics = dict[str, int | float]

FUSED = "fused"


@dataclass
class Environment:
    """By what code, and on what machine, a run is made. `resumed` is the step at which a later process took over."""

    python: str | None = None
    platform: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)  # of libraries
    commit: str | None = None  # of the working folder, if it is under git
    dirty: bool | None = None  # whether it holds uncommitted changes
    device: str | None = None
    threads: int | None = None
    engine: str | None = None  # eager, compiled, or FUSED: in a stack with others, whose time is in its seconds too
    resumed: int | None = None


@dataclass
class SeedInfo:
    """How runs on several seeds are related: their kind, their test rows, and the pool that these are drawn from.

    `independent`: each seed has new rows. `resplit`: each seed draws its test rows from one pool. `fixed`: all seeds
    are scored on the same rows.
    """

    kind: Literal["independent", "resplit", "fixed"]
    test: int
    pool: int | None = None


@dataclass
class QuantityInfo:
    """What is to be predicted: its name, and the mean and deviation of the source's training rows."""

    name: str
    mean: float
    sd: float


@dataclass
class ImageSize:
    """Pixels a side that `dataset.size=auto` came to, by the files or by the backbone's weights.

    `native`: the median shorter side of each domain's files.
    """

    pixels: int
    by: Literal["files", "weights"]
    native: dict[str, int] = field(default_factory=dict)


@dataclass
class SoundInfo:
    """How waveforms become log-mel spectrograms, the first stage of a model that takes them: see `models.spectrogram`.

    `sample_rate` is in Hz, `window` and `hop` in milliseconds.
    """

    sample_rate: int
    mels: int
    window: float
    hop: float
    normalise: Literal["utterance", "domain", "none"]


@dataclass
class DataInfo:
    """What a run learned from and was scored on. Mappings have a `source`, if there is one, and a `target`."""

    files: str | None = None  # a hash of the files that the dataset reads
    read: dict[str, int] | None = None  # how many files and bytes these are
    fingerprint: dict[str, str] = field(default_factory=dict)  # a hash of each domain's arrays
    shape: list[int] = field(default_factory=list)  # of an input
    input: Literal["images", "table", "text", "audio"] | None = None  # what an input is made of; None in early records
    task: Literal["classification", "regression"] = "classification"
    quantity: QuantityInfo | None = None  # what a regression predicts
    classes: list[str] = field(default_factory=list)  # of the target
    source_classes: list[str] | None = None  # where they differ
    domains: dict[str, str | None] = field(default_factory=dict)  # their names
    rows: dict[str, list[int]] = field(default_factory=dict)  # of train, val and test
    members: dict[str, list[int]] | None = None  # of several source domains: the rows of each, as `rows`
    granted: int = 0  # target rows whose labels training may see
    labelled: list[int] | None = None  # target rows of train, val and test that have a label, where some have none
    seeds: SeedInfo | None = None
    range: list[float] = field(default_factory=lambda: [0.0, 1.0])  # of the inputs' numbers
    encoding: dict[str, Any] | None = None  # of a table's columns
    pixel_format: dict[str, Any] | None = None  # how image files became bytes
    resize: str | None = None  # what resized the images
    size: ImageSize | None = None  # where the size was left to the run
    sound: SoundInfo | None = None  # of waveforms
    label_knowledge: dict[str, Any] | None = None  # by what it is known which classes both domains have
    notes: dict[str, Any] = field(default_factory=dict)  # anything else that the dataset says of itself


@dataclass
class SourceModelInfo:
    """The source model that training started from. `shared`: an earlier run, or one beside it, had trained it.

    `transfer`: the stages of it that were copied, as `pretrain.transfer` names them.
    """

    id: str
    steps: int
    rows: int
    seconds: float
    source_val: float  # accuracy, or R² of a quantity, on the source's validation split
    shared: bool = False
    transfer: str = "all"


@dataclass
class AutoInfo:
    """What `method=auto` chose and why, the candidates that it tried, and how many steps that took."""

    chosen: str
    why: str
    steps: int
    tried: list[dict[str, Any]] = field(default_factory=list)


SharesEstimator = Literal["none", "bbse", "rlls", "mlls"]


@dataclass
class SharesInfo:
    """The target's class shares as `shares=` estimated them by the selected checkpoint, beside the source's.

    `bias` is added to the logits on the target. `applied`: the estimate was far enough from the source's shares.
    """

    by: SharesEstimator
    source: list[float]
    estimated: list[float]
    bias: list[float]
    applied: bool = True


@dataclass
class TrainingInfo:
    """The network that was trained, and from where. `lr_backbone`: factors of the backbone's rates, by phase.

    `backbone`: what its options that are `auto` came to, by which it is rebuilt.
    `trainable`: how many parameters, the method's own among them, some phase trains.
    """

    start: str | None = None  # see `Method.start`
    input: str | None = None
    backbone: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None  # what rebuilds its head
    lr_backbone: dict[str, list[float]] = field(default_factory=dict)
    trainable: int | None = None  # None in early records
    shares: SharesInfo | None = None  # None with shares=none
    temperature: float | None = None  # by which the logits are divided in predictions.csv
    source_model: SourceModelInfo | None = None
    auto: AutoInfo | None = None


@dataclass
class EstimatedAccuracy:
    """An accuracy that is estimated without labels, and its 90 % interval, by errors that were measured elsewhere.

    `changed`: the share of rows whose class changed between checkpoints, None of a few. `believable`: it is small.
    """

    value: float
    low: float
    high: float
    changed: float | None
    believable: bool


@dataclass
class EstimatedError:
    """The RMSE of a quantity on the target, estimated without its labels, its 90 % interval, and that of the source.

    The interval holds the chance of which rows were drawn, and not that the weights may be wrong.
    """

    value: float
    low: float
    high: float
    source: float


@dataclass
class Scores:
    """Of the selected checkpoint on each domain's test split, beside what other choices would have scored.

    `last` is the checkpoint at the end, `selected` the one that the selection rule took, `oracle` the best that any
    checkpoint has by each score. `majority` is what saying the most frequent class, or the mean of a quantity, would
    score. No `source` where its classes are others. Where no test row of the target has a label, `last` and `selected`
    hold their steps alone, and `target`, `oracle` and `majority` are None.
    """

    source: Metrics | None
    target: Metrics | None
    last: Metrics
    selected: Metrics
    oracle: Metrics | None
    majority: Metrics | None = None
    estimated: dict[str, float] | None = None  # accuracy on the target by each way of estimating it without its labels
    estimate: EstimatedAccuracy | None = None  # what these ways come to
    estimated_error: EstimatedError | None = None  # of a quantity
    members: dict[str, Metrics] | None = None  # on each of several source domains


@dataclass
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass
class TestedMMD:
    """The squared MMD of two samples, and the p-value of a permutation test that their distributions are equal."""

    value: float
    p: float


@dataclass
class Gap:
    """How far apart two domains are; None what could not be measured."""

    a_distance: Interval | None = None
    mmd: TestedMMD | None = None


@dataclass
class ClassAccuracies:
    """The accuracy on each class of a domain's test split; None of a class without rows."""

    source: list[float | None] | None = None
    target: list[float | None] | None = None


@dataclass
class ClassShares:
    """The source's class shares, the target's as they are estimated without labels, and ½ Σ |difference|.

    `low` and `high` are the ends of the estimates' intervals, at 95 % for all of them together.
    """

    source: list[float]
    estimated: list[float]
    shift: float
    low: list[float] | None = None  # None of very many classes
    high: list[float] | None = None


@dataclass
class BoundTerms:
    """The terms of ε_t ≤ ε_s + ½d + λ* (Ben-David et al. 2010) as measured on the selected checkpoint's features."""

    source_error: float
    half_distance: float | None
    joint_error: float | None


@dataclass
class StageDistances:
    """The proxy A-distance at each stage of the backbone, before and after training."""

    before: dict[str, Interval | None] = field(default_factory=dict)
    after: dict[str, Interval | None] = field(default_factory=dict)


DIAGNOSIS_LEVELS = ("none", "basic", "full")  # from the least to the most


@dataclass
class Diagnosis:
    """What happened between the domains: see `evaluation.diagnosis`. `inputs` and `stages` with diagnose=full alone."""

    before: Gap | None = None  # with the network as training found it
    after: Gap | None = None  # with the selected checkpoint
    histogram: list[float] | None = None  # shares of the classes that it predicts on the target's test split
    classes: ClassAccuracies | None = None
    priors: ClassShares | None = None
    bound: BoundTerms | None = None
    inputs: Gap | None = None
    stages: StageDistances | None = None
