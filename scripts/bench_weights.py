r"""Weights of source rows against the exact ratio of two Gaussians: ours, and those of the libraries adapt and skada.

    pip install -e ".[compare]"     # adapt and skada; what is not installed is left out, and said
    python scripts/bench_weights.py [draws]

Source N(0, 1), target N(.7, 1), the same draws for all; means over the draws of

- rank: Spearman's correlation of the weights with the exact ratio exp(.7x − .245); below 0 the weights are inverted;
- miss: the weighted mean of the source less that of the target sample (for rulsif less .606, that of its own ratio);
- of 0: the share of source rows that are left out; s: seconds a draw.

Where a library wants kernel widths, it gets the candidates that ours has; else its defaults stand.
"""

import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import tl_runner  # noqa: F401  (it sets how threads wait, before torch and NumPy load)

# isort: split
import numpy as np
import torch
from scipy import stats
from torch import Tensor

from tl_runner.functional import importance, kernel_ratio

SIZES = [(1501, 700), (4007, 1501)]
MOVE, ALPHA_MEAN = 0.7, 0.606
Weigh = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def ours() -> dict[str, Weigh]:
    def on_arrays(weigh: Callable[[Tensor, Tensor, int], Tensor]) -> Weigh:
        return lambda s, t, seed: weigh(torch.tensor(s).float(), torch.tensor(t).float(), seed).double().numpy()

    return {
        "exact": lambda s, t, _: np.exp(MOVE * s[:, 0]),
        "density_ratio": on_arrays(importance.density_ratio),
        "kmm": on_arrays(lambda s, t, _: kernel_ratio.kmm(s, t)),
        "kliep": on_arrays(kernel_ratio.kliep),
        "ulsif": on_arrays(kernel_ratio.ulsif),
        "rulsif": on_arrays(kernel_ratio.rulsif),
        "weighted mode=rbf": on_arrays(lambda s, t, _: importance.by_distance(s, t)),
        "weighted mode=count": on_arrays(lambda s, t, _: importance.by_distance(s, t, "count")),
    }


def gammas(s: np.ndarray, t: np.ndarray) -> list[float]:
    """1/2σ² for the widths that ours tries."""
    median = float(np.median(np.abs(np.subtract.outer(s[:, 0], t[:, 0]))))
    return [1 / (2 * (width * median) ** 2) for width in kernel_ratio.WIDTHS]


def of_adapt() -> dict[str, Weigh]:
    from adapt import instance_based as them  # pyright: ignore[reportMissingImports]

    def told(kind: str, ridges: bool = False, widths: bool = True) -> Weigh:
        def weigh(s: np.ndarray, t: np.ndarray, seed: int) -> np.ndarray:
            said: dict[str, object] = {"gamma": gammas(s, t)} if widths else {"gamma": gammas(s, t)[2]}
            said |= {"lambdas": [*kernel_ratio.RIDGES]} if ridges else {}
            return getattr(them, kind)(random_state=seed, verbose=0, **said).fit_weights(s, t)

        return weigh

    def plain(kind: str) -> Weigh:
        return lambda s, t, seed: getattr(them, kind)(random_state=seed, verbose=0).fit_weights(s, t)

    return {
        "IWC": plain("IWC"),
        "KMM": told("KMM", widths=False),
        "KLIEP": told("KLIEP"),
        "ULSIF": told("ULSIF", ridges=True),
        "RULSIF": told("RULSIF", ridges=True),
        "NearestNeighborsWeighting": plain("NearestNeighborsWeighting"),
    }


def of_skada() -> dict[str, Weigh]:
    from skada import _reweight as them  # pyright: ignore[reportMissingImports]

    def adapter(make: Callable[[np.ndarray, np.ndarray, int], object]) -> Weigh:
        def weigh(s: np.ndarray, t: np.ndarray, seed: int) -> np.ndarray:
            x, domain = np.concatenate([s, t]), np.concatenate([np.ones(len(s)), -2 * np.ones(len(t))]).astype(int)
            y = np.concatenate([np.arange(len(s)) % 2, -np.ones(len(t))]).astype(int)
            _, found = make(s, t, seed).fit_transform(x, y, sample_domain=domain)  # pyright: ignore[reportAttributeAccessIssue]
            return np.asarray(found["sample_weight"])[: len(s)]

        return weigh

    return {
        "Discriminator": adapter(lambda s, t, seed: them.DiscriminatorReweightAdapter()),
        "KMM": adapter(lambda s, t, seed: them.KMMReweightAdapter(gamma=gammas(s, t)[2])),
        "KLIEP": adapter(lambda s, t, seed: them.KLIEPReweightAdapter(gamma=gammas(s, t), random_state=seed)),
        "Density": adapter(lambda s, t, seed: them.DensityReweightAdapter()),
        "Gaussian": adapter(lambda s, t, seed: them.GaussianReweightAdapter()),
        "NearestNeighbor": adapter(lambda s, t, seed: them.NearestNeighborReweightAdapter()),
    }


def judge(name: str, weigh: Weigh, n: int, m: int, draws: int) -> str:
    """A row of the table; an exception is a row too."""
    found = []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        source, target = rng.normal(size=(n, 1)), rng.normal(MOVE, size=(m, 1))
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                weights = np.asarray(weigh(source, target, draw), dtype=float).ravel()
        except Exception as error:  # of someone else's library, of any kind
            return f"| {name} | failed: {type(error).__name__}: {str(error).splitlines()[0][:70]} | | | |"
        seconds = time.perf_counter() - begin
        if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            return (
                f"| {name} | failed: no {n} finite weights, none below 0: {weights.shape}, {weights.min():.3g} | | | |"
            )
        wanted = ALPHA_MEAN if name.lower().endswith("rulsif") else target.mean()
        mean = (weights * source[:, 0]).sum() / weights.sum()
        ranks = [stats.rankdata(weights), stats.rankdata(source[:, 0])]
        rank = float(np.corrcoef(ranks)[0, 1]) if np.ptp(weights) > 0 else 0.0
        found.append((rank, mean - wanted, (weights == 0).mean(), seconds))
    rank, miss, nothing, seconds = np.mean(found, 0)
    words = " **inverted**" if rank < -0.5 else ""
    return f"| {name} | {rank:.3f}{words} | {miss:+.3f} | {nothing:.0%} | {seconds:.2f} |"


def main() -> None:
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    torch.set_num_threads(1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable(logging.WARNING)
    sets = {"tl_runner": ours()}
    for library, known in (("adapt", of_adapt), ("skada", of_skada)):
        try:
            print(f"{library} {version(library)}")
            sets[library] = known()
        except (PackageNotFoundError, ImportError) as error:
            print(f"{library} is left out: {error}")
    for n, m in SIZES:
        print(f"\n{n} source rows, {m} target rows, {draws} draws\n", flush=True)
        print("| weights | rank | miss | of 0 | s |\n|---|--:|--:|--:|--:|")
        for library, estimates in sets.items():
            for name, weigh in estimates.items():
                print(judge(f"{library} {name}", weigh, n, m, draws), flush=True)


if __name__ == "__main__":
    main()
