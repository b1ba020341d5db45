"""Jobs that are copies with other values are what Hydra composes, to the last key; all others are composed by Hydra."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from tl_runner.storage.record import describe_run
from tl_runner.sweep.compose import Composer, read_composed


class Counting:
    """A loader that counts what it composes."""

    def __init__(self, loader: Any):
        self.loader, self.composed = loader, 0

    def load_sweep_config(self, master: Any, overrides: list[str]) -> Any:
        self.composed += 1
        return self.loader.load_sweep_config(master, overrides)


@pytest.fixture
def hydra() -> Iterator[tuple[Counting, Any]]:
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        master = compose("config", return_hydra_config=True)
        yield Counting(GlobalHydra.instance().config_loader()), master


def by_hydra(hydra: tuple[Counting, Any], overrides: list[str]) -> Any:
    composed = hydra[0].loader.load_sweep_config(hydra[1], overrides)
    return read_composed(composed, composed.hydra)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1"],
        ["method=dann", "method.weight=0.5", "seed=3", "train=tiny"],
        ["method.weight=1e-3", "method.weight=2"],  # the last one counts
        ["backbone=resnet18", "backbone.weights='my file.pt'", "seed=0"],
        ["threads=null", "save=false", "granted='5'"],
        ["granted=5", "hydra.launcher.n_jobs=1"],
        ["outputs=other", "seed=2"],
        ["method=sum", "method.parts=[mmd,dann]", "seed=1"],  # a list is more than a plain value
        ["method.layers=[conv1]"],
        ["+method.extra=1"],
        ["~method.schedule"],
        ["dataset.size=${seed}", "seed=8"],  # refers to another value
    ],
    ids=" ".join,
)
def test_a_job_is_what_hydra_composes(hydra, overrides):
    composer = Composer(*hydra)
    for _ in range(2):  # composed, and copied
        found, known = composer.compose(overrides), by_hydra(hydra, overrides)
        assert found.config == known.config and dict(found.choices) == dict(known.choices)
        assert found.overrides == known.overrides
        assert all(
            type(a) is type(b)
            for a, b in zip(found.config["method"].values(), known.config["method"].values(), strict=True)
        )
        ids = {describe_run(dict(each.config), dict(each.choices)).id for each in (found, known)}
        assert len(ids) == 1


def test_hydra_composes_once_per_choice_of_groups(hydra):
    composer = Composer(*hydra)
    for method in ("mmd", "dann"):
        for seed in range(5):
            composer.compose([f"method={method}", f"seed={seed}", "method.weight=0.5"])
    assert hydra[0].composed == 2


def test_a_copy_shares_nothing_with_the_next(hydra):
    composer = Composer(*hydra)
    composer.compose(["seed=1"]).config["method"]["weight"] = "spoiled"
    assert composer.compose(["seed=2"]).config["method"]["weight"] != "spoiled"


@pytest.mark.parametrize("word", ["method.wieght=1", "method=nothing", "sede=1", "method=1", "train.steps.x=1"])
def test_what_cannot_be_composed_raises_as_hydra_does(hydra, word):
    with pytest.raises(Exception) as by_us:
        Composer(*hydra).compose([word])
    with pytest.raises(Exception) as by_them:
        by_hydra(hydra, [word])
    assert type(by_us.value) is type(by_them.value) and str(by_us.value) == str(by_them.value)
