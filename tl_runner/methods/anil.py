"""Meta-learning of features on which a few steps of the head alone learn a small task (ANIL)."""

from torch import nn

from tl_runner.core import Model
from tl_runner.methods.maml import MAML


class ANIL(MAML):
    """MAML whose inner descent moves the task head alone ("almost no inner loop"); then CE(x_g).

    The head's weights descend on the features of the shots; the gradient of CE(queries) trains the backbone, which is
    the same for shots and queries, and the head's initial weights. Raghu, Raghu, Bengio & Vinyals, ICLR 2020.
    """

    def split_network(self, model: Model) -> tuple[nn.Module, nn.Module]:
        return model.backbone, self.task_head
