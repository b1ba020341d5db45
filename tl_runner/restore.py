"""The model of a finished run, from its folder."""

from pathlib import Path

from tl_runner import config
from tl_runner.core import Model
from tl_runner.errors import Refused
from tl_runner.heads import rebuilt
from tl_runner.store import read


def load(run: str | Path) -> Model:
    """The selected checkpoint of the run in this folder, in evaluation mode on the CPU.

    It maps inputs as the dataset gives them to logits; `model.classes` names their columns. Raises `Refused`
    where the folder holds no run, or one whose weights were not kept.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(run)
    try:
        record = read(folder / "run.json")
    except (OSError, ValueError) as error:
        raise Refused(f"{folder} holds no run: {error}") from error
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise Refused(
            f"{folder} has no model.safetensors: the run is {record.status!r}, save={record.config.get('save')}"
        )
    backbone, width = config.build(config.unweighted(record.config["backbone"]), "backbone")(
        tuple(record.data["shape"])
    )
    shape = tuple(record.data["shape"])
    model = rebuilt(Model(backbone, width, record.data["classes"]), shape, record.data["model"])
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise Refused(f"{weights} can't be read into the run's network: {error}") from error
    return model.eval()
