"""What the loop asks of a method's first steps, so that an author's mistake is an error and not a bad result."""

from collections.abc import Mapping

from torch import Tensor

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.errors import UserError


def check_unread(batch: Batch, method: Method) -> None:
    """Refuse a method that has read less of its first batch than it asks for."""
    if batch.unread:
        raise UserError(f"{type(method).__name__} never reads batch.{min(batch.unread)}, which has no effect")


def check_terms(terms: Mapping[str, Tensor], method: Method, model: Model) -> dict[str, Tensor]:
    """Terms and metrics by name; raises `UserError` where the method breaks its contract, and says how."""
    name, metrics = type(method).__name__, terms.metrics if isinstance(terms, Terms) else {}
    if not isinstance(terms, Mapping) or not terms:
        raise UserError(f"{name}.terms must return a dict of named scalar tensors, got {terms!r}")
    for key, value in [*terms.items(), *metrics.items()]:
        if not isinstance(value, Tensor) or value.shape:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise UserError(f"{name}: {key!r} must be a tensor with one number and no dimension, got {got}")
    if idle := [key for key, value in terms.items() if not value.requires_grad]:
        if next(model.backbone.parameters(), None) is None:
            raise UserError(
                f"this backbone has no parameters, so {name} can't move its features, and its term {idle[0]!r} would do"
                " nothing: use backbone=linear or mlp, for texts embedding_gru, or method=source_only"
            )
        raise UserError(
            f"{name}: the term {idle[0]!r} depends on nothing that is trained, so it would do nothing: what is only"
            " logged is a metric"
        )
    if both := terms.keys() & metrics.keys():
        raise UserError(f"{name}: {min(both)!r} is a term and a metric")
    return {**terms, **metrics}
