"""What alignment compares: the rows of source and target at one or several layers of a model."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Model
from tl_runner.functional import losses
from tl_runner.models.features import Readout

HEAD = "head"  # the layer of the logits


def compare_layers(
    model: Model, batch: Batch, layers: Sequence[str] = (), normalise: bool = False
) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """The batch's supervised terms, and the (n, d) rows of source and target at each layer.

    `layers` are stages of the backbone, whose maps are averaged over their positions, or `head`, the logits; none are
    the features. With `normalise` each row is brought to length 1, but for logits, whose length says how sure they are.
    Raises `Refused` for a layer that there is not.
    """
    maps = model.maps(*batch.inputs, at=[name for name in layers if name != HEAD])
    features = maps[model.stages[-1]]
    labelled = losses.supervised(model.head, batch.labelled, [features[0], *features[2:]])

    def rows(layer: str, domain: int) -> Tensor:
        if layer == HEAD:
            return model.head(features[domain])
        found = Readout()(maps[layer][domain])
        return F.normalize(found, dim=-1) if normalise else found

    return labelled, [(rows(layer, 0), rows(layer, 1)) for layer in layers or [model.stages[-1]]]
