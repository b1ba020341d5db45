"""Deep adaptation of regression: the inverse Gram matrices of the domains' features are aligned (DARE-GRAM)."""

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.errors import check_range
from tl_runner.functional import losses
from tl_runner.functional.inverse_gram import inverse_gram_distances
from tl_runner.methods.strength import Strength


class DAREGRAM(Method):
    """Loss(source) + schedule(p) · (alpha_cos · angle + gamma_scale · scale), see `functional.inverse_gram`.

    Features that are made equal lose the scale that a quantity is read from; aligning the inverse of the Gram matrix
    aligns the solution of least squares instead. The weights are the defaults of the authors' code for dSprites; by
    pair it takes 0.01 to 0.1 and 1e-5 to 1e-3, and shares from 0.9 to 0.999. Nejjar, Wang & Fink, CVPR 2023
    (arXiv:2303.13325).
    """

    needs = frozenset({"source", "target"})
    tasks = frozenset({"regression"})

    def __init__(
        self,
        alpha_cos: float = 0.05,
        gamma_scale: float = 0.001,
        share: float = 0.9,
        schedule: losses.Schedule = "constant",
    ):
        super().__init__()
        check_range(0, alpha_cos=alpha_cos, gamma_scale=gamma_scale)
        check_range(0, 1, share=share)
        self.angle, self.scale = Strength(alpha_cos, schedule), Strength(gamma_scale, schedule)
        self.share = share

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        seen = model.encode(batch)
        angle, scale = inverse_gram_distances(seen.source, seen.target, self.share)
        aligned = {"angle": self.angle(progress) * angle, "scale": self.scale(progress) * scale}
        return Terms({**seen.supervise(), **aligned})
