"""Heads other than a fresh linear one: modules from features (n, d) to logits (n, C), most of them fitted.

Where a quantity is predicted they give it, (n, 1) in standard units. What a linear model of scikit-learn has learnt is
an `nn.Linear` here; neighbours, votes and cosines have modules of their own, and an `nn.Sequential` of them is a head
too. `blueprint` and `rebuild_head` are how a stored model finds
its shape again.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.functional.losses import squared_distances
from tl_runner.models.features import cut_model
from tl_runner.options import NoEffect
from tl_runner.tasks import Regression, Task

ABSENT = -1e4  # the logit of a class that no fitted row had
FLOOR, TINY = 0.01, 1e-12  # the least deviation of a column, of the largest; and where all columns are constant

Classifier = Literal["logistic", "svm", "knn", "ncm"]  # heads that are fitted in closed form, for classes
Regressor = Literal["ridge", "svm", "knn"]  # and for a quantity
Fitted = Literal["auto", "logistic", "ridge", "svm", "knn", "ncm"]  # auto: logistic for classes, ridge for a quantity
InverseRegularisation = Annotated[float, NoEffect("head", "knn", "ncm", "linear")]  # the option C
NumberOfNeighbours = Annotated[int, NoEffect("head", "auto", "logistic", "ridge", "svm", "ncm", "linear")]  # k

OPTIONS = ("k", "temperature", "unit_weights", "p")  # of a head's modules that a stored model is to know


class Neighbours(nn.Module):
    """The vote of the k nearest rows: logit_c = log(votes for c), floored at half a vote so that it is finite."""

    rows: Tensor
    labels: Tensor

    def __init__(self, rows: Tensor, labels: Tensor, classes: int, k: int):
        super().__init__()
        self.classes, self.k = classes, k
        self.register_buffer("rows", rows)
        self.register_buffer("labels", labels)

    def forward(self, x: Tensor) -> Tensor:
        nearest = squared_distances(x, self.rows).topk(self.k, largest=False).indices
        votes = nn.functional.one_hot(self.labels[nearest], self.classes).sum(-2)
        return votes.float().clamp_min(0.5).log()


class NeighbourMean(nn.Module):
    """The mean value of the k nearest rows: x (n, d) ↦ (n, 1), of rows (m, d) with values (m,) of a quantity."""

    rows: Tensor
    values: Tensor

    def __init__(self, rows: Tensor, values: Tensor, k: int):
        super().__init__()
        self.k = k
        self.register_buffer("rows", rows)
        self.register_buffer("values", values)

    def forward(self, x: Tensor) -> Tensor:
        nearest = squared_distances(x, self.rows).topk(self.k, largest=False).indices
        return self.values[nearest].mean(-1, keepdim=True)


class Margins(nn.Linear):
    """A linear map to decision values that order the classes; their softmax is no probability (svm, ncm)."""


class Cosine(nn.Module):
    """logit_c = w_c · f/‖f‖ / temperature: the direction of the features decides, not their length.

    With `unit_weights` w_c has length 1 too, and w_c · f/‖f‖ is the cosine. That is the form of models that were saved
    before the head had this option.
    """

    def __init__(self, width: int, classes: int, temperature: float = 0.05, unit_weights: bool = False):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, width)))
        self.temperature, self.unit_weights = temperature, unit_weights

    def forward(self, x: Tensor) -> Tensor:
        weight = nn.functional.normalize(self.weight, dim=-1) if self.unit_weights else self.weight
        return nn.functional.normalize(x, dim=-1) @ weight.T / self.temperature


def perceptron(width: int, hidden: int, dropout: float, classes: int) -> nn.Sequential:
    """A head of one hidden layer: width -> hidden -> classes."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


class Kernel(nn.Module):
    """Kernel components: x (n, d) ↦ k(x, rows) · weight (n, c), k(a, b) = exp(−‖a − b‖² / width)."""

    rows: Tensor
    weight: Tensor
    width: Tensor

    def __init__(self, rows: Tensor, weight: Tensor, width: Tensor):
        super().__init__()
        for name, tensor in (("rows", rows), ("weight", weight), ("width", width)):
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.exp(-squared_distances(x, self.rows) / self.width)
        return kernel.to(self.weight.dtype) @ self.weight


class Votes(nn.Module):
    """Linear learners that vote: logit_c = Σ_t vote_t · [argmax(W_t x + b_t) = c]."""

    weight: Tensor
    bias: Tensor
    vote: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, vote: Tensor):
        super().__init__()
        for name, tensor in (("weight", weight), ("bias", bias), ("vote", vote)):
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.einsum("tcd,nd->tnc", self.weight, x) + self.bias[:, None]
        chosen = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
        return (self.vote[:, None, None] * chosen).sum(0)


class WeightedMedian(nn.Module):
    """The weighted median of linear learners: the least w_t · x + b_t up to which learners have half of all votes.

    x (n, d) ↦ (n, 1); weight (T, d), bias and vote (T,), votes above 0.
    """

    weight: Tensor
    bias: Tensor
    vote: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, vote: Tensor):
        super().__init__()
        for name, tensor in (("weight", weight), ("bias", bias), ("vote", vote)):
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        said, order = (x @ self.weight.T + self.bias).sort(-1)
        votes = self.vote[order].cumsum(-1)
        before = (votes < self.vote.sum() / 2).sum(-1, keepdim=True)  # learners below the median
        return said.gather(-1, before)


class MeanOfHeads(nn.Module):
    """Linear classifiers whose probabilities are averaged: logit_c = log mean_k softmax_c(W_k x + b_k).

    There is one for each of several source domains. x (n, d) ↦ (n, C).
    """

    def __init__(self, width: int, classes: int, domains: int):
        super().__init__()
        built = [nn.Linear(width, classes) for _ in range(domains)]
        self.weight = nn.Parameter(torch.stack([each.weight.detach() for each in built]))
        self.bias = nn.Parameter(torch.stack([each.bias.detach() for each in built]))

    @property
    def domains(self) -> int:
        return len(self.weight)

    def each(self, x: Tensor) -> Tensor:
        """The logits (k, n, C) of every classifier."""
        return torch.einsum("kcd,nd->knc", self.weight, x) + self.bias[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x).float().log_softmax(-1).logsumexp(0) - math.log(self.domains)


class Calibrated(nn.Module):
    """A head whose logits get a bias for each class, and are divided by a temperature: as sure as they should be."""

    bias: Tensor | None

    def __init__(self, head: nn.Module, temperature: float = 1.0, bias: Tensor | None = None):
        super().__init__()
        self.head, self.temperature = head, temperature
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(x)
        return (logits if self.bias is None else logits + self.bias) / self.temperature


class InUnit(nn.Module):
    """A head whose output in standard units is given in the quantity's own: z ↦ z · sd + mean."""

    def __init__(self, head: nn.Module, mean: float, sd: float):
        super().__init__()
        self.head, self.mean, self.sd = head, mean, sd

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * self.sd + self.mean


def gives_probabilities(head: nn.Module) -> bool:
    """Whether the softmax of what a head says is meant as probabilities: not for margins, distances and votes."""
    last = head[-1] if isinstance(head, nn.Sequential) else head
    return not isinstance(last, Margins | Votes)


def build_linear(weight: NDArray[Any], bias: NDArray[Any], kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """A linear head with these (C, d) weights and (C,) biases."""
    head = kind(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": torch.as_tensor(weight).float(), "bias": torch.as_tensor(bias).float()})
    return head


def expanded(
    coefficients: NDArray[Any], intercepts: NDArray[Any], present: NDArray[Any], classes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """scikit-learn's linear decision as one row a class: (C, d) and (C,).

    Of two classes it keeps one row, the second's against the first's; of a class without rows it knows nothing.
    """
    if len(coefficients) == 1 and len(present) == 2:
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weight, bias = np.zeros((classes, coefficients.shape[1])), np.full(classes, ABSENT)
    weight[present], bias[present] = coefficients, intercepts
    return weight, bias


def linear_classifier(
    kind: Literal["logistic", "svm"],
    x: Tensor,
    y: Tensor,
    classes: int,
    C: float,  # noqa: N803
    seed: int = 0,
    weights: Tensor | None = None,
) -> nn.Linear:
    """scikit-learn's classifier of rows x (n, d) with labels y (n,), as a head of `classes` logits.

    It is fitted to columns of mean 0 and deviation 1, `C` is its inverse regularisation; the scale is folded into the
    head, which takes the rows as they are. `weights` (n,) have mean 1. Rows of one class alone make a constant.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    form = Margins if kind == "svm" else nn.Linear
    if len(y.unique()) < 2:
        return build_linear(np.zeros((classes, x.shape[1])), np.eye(classes)[int(y[0])], form)
    rows, scaler = x.double().numpy(), StandardScaler()
    if kind == "logistic":
        model = LogisticRegression(C=C, max_iter=5000)
    else:
        model = LinearSVC(C=C, max_iter=100_000, random_state=seed % 2**32)
    model.fit(scaler.fit_transform(rows), y.numpy(), sample_weight=None if weights is None else weights.numpy())
    weight, bias = expanded(model.coef_, np.asarray(model.intercept_), model.classes_, classes)
    weight = weight / np.asarray(scaler.scale_)
    return build_linear(weight, bias - weight @ np.asarray(scaler.mean_), form)


def linear_regressor(
    kind: Literal["ridge", "svm"],
    x: Tensor,
    y: Tensor,
    C: float,  # noqa: N803
    seed: int = 0,
    weights: Tensor | None = None,
) -> nn.Linear:
    """scikit-learn's linear model of a quantity y (n,) in rows x (n, d), as a head of one output.

    `ridge` has the least ½‖w‖² + C Σ r², r the residuals: Ridge with alpha = 1/(2C); `svm` the least ½‖w‖² + C Σ |r|:
    LinearSVR. As `linear_classifier` it is fitted to columns of mean 0 and deviation 1, the scale folded into the head.
    A deviation below `FLOOR` of the largest counts as that: a feature that hardly varies in the source's rows would
    else weigh almost without bounds where it does in the target's.
    """
    from sklearn.linear_model import Ridge
    from sklearn.svm import LinearSVR

    rows = x.double().numpy()
    scale = rows.std(0)
    scale, mean = np.maximum(scale, max(FLOOR * scale.max(), TINY)), rows.mean(0)
    model = Ridge(1 / (2 * C)) if kind == "ridge" else LinearSVR(C=C, max_iter=100_000, random_state=seed % 2**32)
    shares = None if weights is None else weights.numpy()
    model.fit((rows - mean) / scale, y.double().numpy(), sample_weight=shares)
    weight = np.atleast_2d(model.coef_) / scale
    return build_linear(weight, np.atleast_1d(model.intercept_) - weight @ mean)


def settle_head(kind: Fitted, task: Task, others: Sequence[str] = ()) -> Classifier | Regressor:
    """The head that the option means for this task: `auto` is logistic for classes, ridge for a quantity.

    Raises `UserError` where it does not suit the task, and names those that do, with `others` that are not fitted.
    """
    if isinstance(task, Regression):
        suited, first, why = get_args(Regressor), "ridge", f"tells classes apart, and {task.quantity!r} is a quantity"
    else:
        suited, first, why = get_args(Classifier), "logistic", "predicts a quantity, and there are classes"
    if kind != "auto" and kind not in suited:
        possible = [*suited, *others]
        raise UserError(f"method.head={kind} {why}: use {', '.join(possible[:-1])} or {possible[-1]}")
    return first if kind == "auto" else kind


def fit_head(
    kind: Classifier | Regressor,
    x: Tensor,
    y: Tensor,
    classes: int,
    C: float,  # noqa: N803
    k: int,
    seed: int,
) -> nn.Module:
    """A head fitted to rows x (n, d) with labels y (n,), on the CPU, in closed form.

    For classes `logistic` and `svm` by scikit-learn, with inverse regularisation `C` on columns of mean 0 and
    deviation 1, the scale folded into the head; `knn` by the vote of `k` neighbours; `ncm` by the nearest class mean
    μ_c (logit −‖f − μ_c‖², but for what all classes share). For a quantity, whose labels are not whole numbers, `ridge`
    and `svm` in the same way (`linear_regressor`), `knn` by the mean of `k` neighbours.
    """
    of_quantity = y.is_floating_point()
    if kind == "knn":
        if k >= len(y):
            raise UserError(
                f"head=knn with k={k} needs more than {k} labelled rows, got {len(y)}: set a smaller k, or another head"
            )
        return NeighbourMean(x, y, k) if of_quantity else Neighbours(x, y, classes, k)
    if kind == "ridge" or (kind == "svm" and of_quantity):
        return linear_regressor(kind, x, y, C, seed)
    if kind in ("logistic", "svm"):
        return linear_classifier(kind, x, y, classes, C, seed)
    present = y.unique()
    means = torch.stack([x[y == c].double().mean(0) for c in present]).numpy()
    return build_linear(*expanded(2 * means, -np.square(means).sum(1), present.numpy(), classes), Margins)


def blueprint(model: Model) -> dict[str, Any]:
    """What must be known, beside the configuration, to build this model again."""
    return {"stage": model.stage, **_describe_head(model.head)}


def _describe_head(head: nn.Module) -> dict[str, Any]:
    if isinstance(head, nn.Sequential):
        return {"head": "Sequential", "parts": [_describe_head(part) for part in head]}
    shapes = {name: list(tensor.shape) for name, tensor in head.state_dict().items()}
    options = {name: getattr(head, name) for name in OPTIONS if hasattr(head, name)}
    return {"head": type(head).__name__, "shapes": shapes, **options}


def rebuild_head(model: Model, shape: tuple[int, ...], plan: Mapping[str, Any]) -> Model:
    """The model in the shape that its blueprint says, ready for its weights."""
    if plan["stage"]:
        model = cut_model(model, plan["stage"], shape)
    model.head = _empty(plan, len(model.classes))
    return model


def _empty(plan: Mapping[str, Any], classes: int) -> nn.Module:
    if plan["head"] == "Sequential":
        return nn.Sequential(*(_empty(part, classes) for part in plan["parts"]))
    empty = {name: torch.zeros(size) for name, size in plan["shapes"].items()}
    columns = [*reversed(plan["shapes"].get("weight", ()))]  # of a weight (classes, width): width, classes
    kinds: dict[str, Callable[[], nn.Module]] = {
        "Neighbours": lambda: Neighbours(empty["rows"], empty["labels"].long(), classes, plan["k"]),
        "NeighbourMean": lambda: NeighbourMean(**empty, k=plan["k"]),
        "Votes": lambda: Votes(**empty),
        "WeightedMedian": lambda: WeightedMedian(**empty),
        "Kernel": lambda: Kernel(**empty),
        # models that were saved before there was the option have unit weights
        "Cosine": lambda: Cosine(
            *columns, temperature=plan["temperature"], unit_weights=plan.get("unit_weights", True)
        ),
        "Margins": lambda: Margins(*columns),
        "MeanOfHeads": lambda: MeanOfHeads(*columns),
        "ReLU": nn.ReLU,
        "Dropout": lambda: nn.Dropout(plan["p"]),
    }
    return kinds.get(plan["head"], lambda: nn.Linear(*columns))()
