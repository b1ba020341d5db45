"""Heads other than a fresh linear one: modules from features (n, d) to logits (n, C), most of them fitted.

What a linear classifier of scikit-learn has learnt is an `nn.Linear` here; neighbours, votes and cosines have modules
of their own, and an `nn.Sequential` of them is a head too. `blueprint` and `rebuild_head` are how a stored model finds
its shape again.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.functional.losses import squared_distances
from tl_runner.models.features import cut_model
from tl_runner.options import NoEffect

ABSENT = -1e4  # the logit of a class that no fitted row had

Fitted = Literal["logistic", "svm", "knn", "ncm"]  # heads that are fitted in closed form
InverseRegularisation = Annotated[float, NoEffect("head", "knn", "ncm", "linear")]  # the option C
NumberOfNeighbours = Annotated[int, NoEffect("head", "logistic", "svm", "ncm", "linear")]  # the option k

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
        return torch.exp(-squared_distances(x, self.rows) / self.width) @ self.weight


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


def fit_head(kind: Fitted, x: Tensor, y: Tensor, classes: int, C: float, k: int, seed: int) -> nn.Module:  # noqa: N803
    """A head fitted to rows x (n, d) with labels y (n,), on the CPU, in closed form.

    `logistic` and `svm` by scikit-learn, with inverse regularisation `C` on columns of mean 0 and deviation 1, the
    scale folded into the head; `knn` by the vote of `k` neighbours; `ncm` by the nearest class mean μ_c (logit
    −‖f − μ_c‖², but for what all classes share).
    """
    if kind in ("logistic", "svm"):
        return linear_classifier(kind, x, y, classes, C, seed)
    if kind == "knn":
        if k >= len(y):
            raise UserError(
                f"head=knn with k={k} needs more than {k} labelled rows, got {len(y)}: set a smaller k, or another head"
            )
        return Neighbours(x, y, classes, k)
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
        "Votes": lambda: Votes(**empty),
        "Kernel": lambda: Kernel(**empty),
        # models that were saved before there was the option have unit weights
        "Cosine": lambda: Cosine(
            *columns, temperature=plan["temperature"], unit_weights=plan.get("unit_weights", True)
        ),
        "Margins": lambda: Margins(*columns),
        "ReLU": nn.ReLU,
        "Dropout": lambda: nn.Dropout(plan["p"]),
    }
    return kinds.get(plan["head"], lambda: nn.Linear(*columns))()
