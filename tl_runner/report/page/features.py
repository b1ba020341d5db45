"""Where rows of both domains lie in the features of a model, by class and by domain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.report.page.drawing import COLOURS, Chart, spanning
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import Group, chosen
from tl_runner.report.page.kept import Kept

MOST = 6  # settings with two panels each; a map takes about half a second
SEED = 0  # of t-SNE
FEW = 30  # rows below which t-SNE has too few neighbours to place: principal components are shown


def figure(groups: Sequence[Group]) -> Figure:
    """Two panels per setting, of its first run that kept features: coloured by class, and by domain."""
    title = "Features of both domains"
    kept = [(group, run, clouds) for group in groups for run, clouds in [_first(group)] if run and clouds]
    shown, left_out = chosen([group for group, *_ in kept], MOST)
    panels, named = [], dict[str, str]()
    for group in shown:
        run, (source, target) = next((run, clouds) for each, run, clouds in kept if each is group)
        places, how = flat(np.concatenate([source[0], target[0]]))
        parts = [("source", places[: len(source[0])], source[1]), ("target", places[len(source[0]) :], target[1])]
        x, y = (spanning(column) for column in places.T)
        heading = f"{group.name} · seed {run.record.seed} · {how}"
        rows = f"{len(source[0])} source and {len(target[0])} target rows of run {run.record.id}"
        by_class = Chart(x, y, f"{group.name}, {how} of the features, coloured by class: {rows}", (280, 240), bare=True)
        by_domain = Chart(
            x, y, f"{group.name}, {how} of the features, coloured by domain: {rows}", (280, 240), bare=True
        )
        for side, points, labels in parts:
            for label in np.unique(labels):
                _draw(by_class, side, points[labels == label], f"c{int(label) % COLOURS}")
            _draw(by_domain, side, points, "c0" if side == "source" else "c3")
        panels += [Panel(f"{heading} · by class", by_class.svg), Panel(f"{heading} · by domain", by_domain.svg)]
        named |= {f"c{index % COLOURS}": name for index, name in reversed(list(enumerate(group.classes)))}
    if not panels:
        return Figure("features", title, missing="No run of this pair kept features (diagnose=none leaves them out).")
    classes = len(shown[0].classes)
    legend = [Key("dot", "ink", "source (disc)"), Key("cross", "ink", "target (cross)")]
    legend += [Key("square", f"c{index}", name) for index, name in enumerate(shown[0].classes[:COLOURS])]
    legend += [Key("dot", "c0", "by domain: source"), Key("cross", "c3", "by domain: target")]
    caption = (
        "n = 1 run a setting, the first seed that kept features: rows of both domains' test splits at the selected"
        " checkpoint, coloured by true class"
        f" and by domain. Each map is computed from up to 32 principal components; t-SNE (scikit-learn, seed {SEED})"
        f" keeps neighbours, not distances: sizes of"
        " and gaps between clusters mean nothing. "
    )
    if classes > COLOURS:
        caption += f"Colours repeat after {COLOURS} of the {classes} classes. "
    return Figure("features", title, caption + left_out, panels, legend)


def flat(features: NDArray[Any]) -> tuple[NDArray[np.float64], str]:
    """(m, 2) places of (m, k) features, and how they were found: t-SNE, or the first two components of few rows.

    Deterministic: it starts from the principal components and has a fixed seed and one thread.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = features.astype(np.float64)
    if len(features) < FEW or features.shape[1] < 3:
        two = np.zeros((len(features), 2))
        two[:, : features.shape[1]] = features[:, :2]
        return two, "first two principal components"
    with threadpool_limits(1):
        start: Any = _start(features)
        tsne = TSNE(2, perplexity=min(30.0, len(features) / 4), init=start, random_state=SEED, max_iter=500)
        return tsne.fit_transform(features), "t-SNE"


def _start(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first two components, small, as scikit-learn starts; features of no spread at all stay apart by nothing."""
    first = features[:, :2] - features[:, :2].mean(0)
    return first / (first[:, 0].std() or 1.0) * 1e-4


def _first(group: Group) -> tuple[Kept | None, tuple[Any, Any] | None]:
    """The first run with features, and ((features, labels) of the source, of the target)."""
    for run in group.runs:
        sides = [(run.diagnosis(f"{side}_features"), run.diagnosis(f"{side}_labels")) for side in ("source", "target")]
        if all(x is not None and y is not None and len(x) == len(y) and np.isfinite(x).all() for x, y in sides):
            return run, (sides[0], sides[1])
    return None, None


def _draw(chart: Chart, side: str, points: NDArray[Any], kind: str) -> None:
    (chart.dots if side == "source" else chart.crosses)(points.tolist(), kind)
