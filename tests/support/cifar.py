"""A folder in the format of CIFAR-10."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10

from tl_runner.datasets import cifar

BATCHES = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]


def cifar_folder(root: Path, n: int = 20, batches: list[str] = BATCHES, **changes: Any) -> Path:
    """n images a batch in CIFAR-10's format; the class of an image is its red channel, the batch its blue one."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(batches):
        labels = [index % 10 for index in range(n)]
        x = rng.integers(0, 256, (n, 3, 1024), dtype=np.uint8)
        x[:, 0], x[:, 2] = np.array(labels, np.uint8)[:, None], number
        content = {"batch_label": name, "labels": labels, "data": x.reshape(n, 3072), **changes}
        (folder / name).write_bytes(pickle.dumps(content, 2))
    names = {"num_vis": 3072, "label_names": list(cifar.CLASSES)}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, 2))
    return folder
