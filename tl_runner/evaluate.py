"""What a model predicts on a split, how good that is, and what may be known of it without target labels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tl_runner import losses
from tl_runner.core import Model
from tl_runner.domains import Pair, Split
from tl_runner.errors import Diverged
from tl_runner.features import portions
from tl_runner.select import Evidence

BINS = 15  # of equal width, for the calibration error


@torch.no_grad()
def predict(model: Model, split: Split) -> Tensor:
    """Class probabilities, (n, C) float32 on the CPU; the model is left in evaluation mode."""
    model.eval()
    return torch.cat([model(x).float().softmax(-1) for x in portions(split, model.device)]).cpu()


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    return (probabilities.argmax(-1) == labels.cpu()).double().mean().item()


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b |rows in b|/n · |accuracy_b − confidence_b| (Guo et al., ICML 2017).

    probabilities (n, C), labels (n,); b runs over `bins` equal intervals of the confidence max_c p_c.
    """
    confidence, predicted = probabilities.double().max(-1)
    gap = (predicted == labels.cpu()).double() - confidence
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    return torch.zeros(bins, dtype=torch.double).index_add(0, bin_of, gap).abs().sum().item() / len(gap)


def scores(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """accuracy, macro_f1 (over the classes that occur or are predicted) and ece, each in [0, 1]."""
    from sklearn.metrics import f1_score

    macro_f1 = f1_score(labels.cpu().numpy(), probabilities.argmax(-1).numpy(), average="macro")
    return {
        "accuracy": accuracy(probabilities, labels),
        "macro_f1": float(macro_f1),
        "ece": calibration_error(probabilities, labels),
    }


def verdict(predictions: Mapping[int, Tensor], labels: Tensor, selected: int) -> dict[str, dict[str, float]]:
    """The target's scores at the selected step, beside the last checkpoint and the best one by the labels.

    `predictions` are the probabilities on the test split by step, in order. `oracle` can't be had without the
    answers: it says what an ideal choice among the checkpoints would have been worth.
    """
    accuracies = {step: accuracy(rows, labels) for step, rows in predictions.items()}
    steps = {
        "last": max(accuracies),
        "selected": selected,
        "oracle": max(accuracies, key=lambda s: (accuracies[s], s)),
    }
    named = {name: {"step": step, "accuracy": accuracies[step]} for name, step in steps.items()}
    return {"target": scores(predictions[selected], labels), **named}


def examine(model: Model, pair: Pair, step: int, keeps_source: bool) -> tuple[Evidence, Tensor]:
    """The evidence at this step, and the probabilities on the target's test split, which nobody scores yet.

    `keeps_source` says whether the method still learns the source's task: else its accuracy is no floor.
    """
    unlabelled, test = predict(model, pair.target.val), predict(model, pair.target.test)
    if not bool(torch.isfinite(test).all()):
        raise Diverged(f"the model's predictions at step {step} are not finite numbers")
    source_val, floor, floor_rows = None, None, 0
    if pair.shared_labels:
        source, labels = pair.labelled_source
        source_val = accuracy(predict(model, source.val), labels.val)
    if pair.held_out is not None:
        floor = accuracy(predict(model, pair.held_out.x), pair.held_out.y)
        floor_rows = len(pair.held_out.y)
    elif pair.granted is None and keeps_source and pair.source:  # else there are too few labels to hold some out
        floor, floor_rows = source_val, len(pair.source.val)
    classes = unlabelled.shape[-1]
    histogram = torch.bincount(unlabelled.argmax(-1), minlength=classes) / len(unlabelled)
    mean_entropy = losses.entropy(unlabelled).mean().item()
    evidence = Evidence(
        step=step,
        source_val=source_val,
        floor=floor,
        floor_rows=floor_rows,
        information=losses.entropy(unlabelled.mean(0)).item() - mean_entropy,
        entropy=mean_entropy,
        classes=classes,
        classes_used=losses.entropy(histogram).exp().item(),
    )
    return evidence, test
