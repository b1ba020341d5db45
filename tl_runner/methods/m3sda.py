"""Moment matching of several source domains and the target (M³SDA)."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Resources, Terms
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.functional.groups import group_means
from tl_runner.methods.strength import Strength
from tl_runner.models.heads import MeanOfHeads


def moment_distance(source: Tensor, domain: Tensor, domains: int, target: Tensor, moments: int = 2) -> Tensor:
    """Σ_k mean_i ‖E[x_iᵏ] − E[x_tᵏ]‖ + Σ_k mean_{i<j} ‖E[x_iᵏ] − E[x_jᵏ]‖, powers by element; k = 1 … moments.

    Of features source (n, d) of several domains, `domain` (n,) the number of each row's, and target (m, d). With one
    source domain the second sum is empty.
    """
    found, pairs = list[Tensor](), domains * (domains - 1) / 2
    for k in range(1, moments + 1):
        means = group_means(source.float().pow(k), domain, domains)
        found.append(_norms(means - target.float().pow(k).mean(0)).mean())
        if pairs:
            found.append(_norms(means[:, None] - means).triu(1).sum() / pairs)
    return torch.stack(found).sum()


def _norms(x: Tensor) -> Tensor:
    """The length (…,) of each row (…, d), with a gradient where it is 0."""
    return (x.square().sum(-1) + 1e-12).sqrt()


class M3SDA(Method):
    """mean_i CE(F_i(f_i)) + weight · schedule(p) · MD²: a classifier for each source domain i, and moments that match.

    MD² is `moment_distance` between each source domain and the target, and between the source domains. The classifiers'
    mean probability is the prediction. With `normalise` each row of features is brought to length 1 before its moments
    are taken: else the features shrink to nothing, where all moments match. Peng et al., ICCV 2019, who do without, at
    a small weight; their M³SDA-β, with two classifiers a domain that are trained as in mcd, and weights by each
    source's accuracy are left out. Of one source domain there are its moments.
    """

    needs = frozenset({"source", "target"})

    def __init__(
        self, weight: float = 1.0, moments: int = 2, normalise: bool = True, schedule: losses.Schedule = "ramp"
    ):
        super().__init__()
        check_range(0, weight=weight)
        check_range(1, moments=moments)
        self.strength, self.moments, self.normalise = Strength(weight, schedule), moments, normalise

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        source, _ = pair.labelled_source
        model = deepcopy(model)
        with resources.rng.child("heads").as_default():
            model.head = MeanOfHeads(model.width, len(model.classes), max(1, len(source.members)))
        return model, pair

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        heads = model.head
        assert isinstance(heads, MeanOfHeads)
        seen, rows, domain = model.encode(batch), batch.source, batch.domain
        own = heads.each(seen.source)[domain, torch.arange(len(domain), device=domain.device)]
        each = F.cross_entropy(own.float(), rows.y, reduction="none")
        by_domain = group_means(each if rows.w is None else rows.w * each, domain, heads.domains)
        compared = [F.normalize(x, dim=-1) if self.normalise else x for x in (seen.source, seen.target)]
        distance = moment_distance(compared[0], domain, heads.domains, compared[1], self.moments)
        given = batch.labelled.get("granted")
        granted = {"granted": losses.mean_loss(heads(seen.granted), given.y)} if given else {}
        return Terms(
            {"source": by_domain.mean(), **granted, "moments": self.strength(progress) * distance},
            metrics={"distance": distance.detach()},
        )
