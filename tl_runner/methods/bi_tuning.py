"""Fine-tuning by contrast: rows with classes, and rows with rows, over a queue of earlier ones (bi-tuning)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.functional import losses
from tl_runner.methods.stage_groups import group_stages
from tl_runner.training import augment

PROJECTOR = 0.1  # of the head's learning rate


def contrast(similarity: Tensor, positive: Tensor, there: Tensor, temperature: float) -> Tensor:
    """mean_i −1/|P_i| Σ_{j ∈ P_i} log (exp(s_ij/τ) / Σ_{k there} exp(s_ik/τ)); P_i are the positive j that are there.

    Similarities (n, m) and `positive` (n, m), one of which a row has at least, `there` (m,); float32.
    """
    logits = (similarity.float() / temperature).masked_fill(~there, -torch.inf)
    positive = positive & there
    chosen = logits.log_softmax(-1).masked_fill(~positive, 0.0)  # −inf · 0 would be NaN
    return -(chosen.sum(-1) / positive.sum(-1)).mean()


def prototypes(head: nn.Linear) -> Tensor:
    """The head's weight beside its bias, each class brought to length 1, without gradient: (C, d + 1)."""
    return F.normalize(torch.cat([head.weight, head.bias[:, None]], -1).detach(), dim=-1)


class BiTuning(Method):
    """CE(granted) + weight · (L_class + L_row), contrasts over a queue of keys with their labels; see `contrast`.

    Two random views (`augment.strong`) of each granted row: a query, and a key by the momentum encoder θ_k ←
    m·θ_k + (1 − m)·θ. L_row compares a query's projection z (length 1) with those of all keys, those of its class
    being positive. L_class compares the prototype of a row's class, (w, b) of the head at length 1 and without
    gradient, with (h, 1) of its query and of all keys at length 1: the contrasts train the features, CE of the queries
    alone the head. The projector learns at `PROJECTOR` times the head's rate, as in the authors' code. The queue holds
    the last queue × classes keys, whichever classes they are of, a batch's own among them; the authors' holds `queue`
    of each class, at first random ones, and of a batch only a row's own key. Zhong et al. 2020 (arXiv:2011.06182).
    """

    needs = frozenset({"granted"})
    start = "source"
    keys_h: Tensor
    keys_z: Tensor
    labels: Tensor

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.07,
        momentum: float = 0.999,
        queue: int = 40,
        projection: int = 128,
        flip: bool = False,
        magnitude: float = 0.5,
    ):
        super().__init__()
        check_range(0, weight=weight)
        check_range(1e-3, temperature=temperature)
        check_range(0, 1, momentum=momentum, magnitude=magnitude)
        check_range(1, queue=queue, projection=projection)
        self.weight, self.temperature, self.momentum, self.queue = weight, temperature, momentum, queue
        self.projection, self.flip, self.magnitude = projection, flip, magnitude
        self.next = 0  # place in the queue

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        if pair.input not in ("images", "audio"):
            rows = "texts" if pair.input == "text" else f"{' × '.join(map(str, pair.shape))} numbers"
            raise UserError(
                "bi_tuning compares two random views of a granted row, and only images and sound have views here: these"
                f" rows are {rows}. Use method=finetune, l2sp, delta or bss"
            )
        with resources.rng.child("projector").as_default():
            self.projector = nn.Linear(model.width, self.projection).to(model.device)
        self.encoder = deepcopy(model.backbone)
        self.key_projector = deepcopy(self.projector)
        places = self.queue * len(pair.classes)
        self.register_buffer("keys_h", torch.zeros(places, model.width + 1))
        self.register_buffer("keys_z", torch.zeros(places, self.projection))
        self.register_buffer("labels", torch.full((places,), -1))  # an empty place
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        projector = Group(self.projector.parameters(), PROJECTOR)
        return [Phase("tune", 1.0, [*group_stages(model), projector])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        x, y = batch.granted.x, batch.granted.y
        seen = model.encode(batch.with_inputs(granted=self._view(x)))
        with torch.no_grad():
            self._follow(model)
            key = self.encoder(self._view(x)).float()
            self._queue(losses.extended(key), F.normalize(self.key_projector(key).float(), dim=-1), y)
        h, z = losses.extended(seen.granted.float()), F.normalize(self.projector(seen.granted).float(), dim=-1)
        assert isinstance(model.head, nn.Linear)
        with torch.autocast(x.device.type, enabled=False):
            same, there = y[:, None] == self.labels, self.labels >= 0
            w = prototypes(model.head)[y]
            own, all_there = torch.ones_like(same[:, :1]), torch.cat([there.new_ones(1), there])
            with_rows = torch.cat([(w * h).sum(-1, keepdim=True), w @ self.keys_h.T], -1)
            by_class = contrast(with_rows, torch.cat([own, same], -1), all_there, self.temperature)
            by_row = contrast(z @ self.keys_z.T, same, there, self.temperature)
        return {**seen.supervise(), "class_contrast": self.weight * by_class, "row_contrast": self.weight * by_row}

    def _view(self, x: Tensor) -> Tensor:
        return augment.strong(x, int(torch.randint(2**31, ())), flip=self.flip, magnitude=self.magnitude)

    def _follow(self, model: Model) -> None:
        """The key's network a step towards the query's."""
        for keys, queries in ((self.encoder, model.backbone), (self.key_projector, self.projector)):
            for key, query in zip(keys.parameters(), queries.parameters(), strict=True):
                key.lerp_(query, 1 - self.momentum)

    def _queue(self, h: Tensor, z: Tensor, y: Tensor) -> None:
        """These keys in the place of the oldest."""
        places, n = len(self.labels), len(y)
        if n > places:
            raise UserError(f"method.queue={self.queue} keys a class are {places}, fewer than the {n} rows of a batch")
        at = (torch.arange(n, device=y.device) + self.next) % places
        self.keys_h[at], self.keys_z[at], self.labels[at] = h, z, y
        self.next = (self.next + n) % places
