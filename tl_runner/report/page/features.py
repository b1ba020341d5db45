"""Where rows of both domains lie in the features of a model, by class and by domain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.report.page.drawing import COLOURS, Chart, spanning
from tl_runner.report.page.figure import Figure, Key, Panel
from tl_runner.report.page.groups import SettingRuns, choose_settings
from tl_runner.report.page.run_files import RunFiles

DomainFeatures = dict[
    str, tuple[NDArray[Any], NDArray[Any]]
]  # features (m, k) and labels (m,) of the source, of the target
SIDES = ("source", "target")
SIZE = (280, 240)
MOST = 6  # settings with two panels each
ROWS = 125  # of each side: a map of 250 takes a third of a second, one of 400 a second
SEED = 0  # of t-SNE
FEW = 30  # rows below which t-SNE has too few neighbours to place: principal components are shown


def figure(groups: Sequence[SettingRuns]) -> Figure:
    """Two panels per setting, of its first run that kept features: coloured by class, and by domain."""
    title = "Features of both domains"
    first = {group.name: _first(group) for group in groups}
    shown, left_out = choose_settings([group for group in groups if first[group.name]], MOST)
    if not shown:
        return Figure(
            "features", title, missing="No run of this pair has features to show (diagnose=none leaves them out)."
        )
    panels: list[Panel] = []
    for group in shown:
        if found := first[group.name]:
            panels += _maps(group.name, *found)
    names, colours = shown[0].classes, "true class"
    if not names:
        names = ["lowest quarter", "second", "third", "highest quarter"]
        colours = "the quarter of the target's values that the true value is in"
    legend = [Key("dot", "ink", "source (disc)"), Key("cross", "ink", "target (cross)")]
    legend += [Key("square", f"c{index}", name) for index, name in enumerate(names[:COLOURS])]
    legend += [Key("dot", "c0", "by domain: source"), Key("cross", "c3", "by domain: target")]
    caption = (
        f"n = 1 run a setting, the first seed that kept features: the first {ROWS} rows of both domains' test splits"
        f" at the selected checkpoint, coloured by {colours} and by domain; grey where a row has no label, or the"
        " source other classes. Each map is computed from up to 32 principal components; t-SNE (scikit-learn, seed"
        f" {SEED}) keeps neighbours, not distances: sizes of clusters and gaps between them mean nothing. "
    )
    if len(names) > COLOURS:
        caption += f"Colours repeat after {COLOURS} of the {len(names)} classes. "
    return Figure("features", title, caption + left_out, panels, legend)


def _maps(name: str, run: RunFiles, sides: DomainFeatures) -> list[Panel]:
    """The same places twice: coloured by class, and by domain."""
    places, how = project_to_plane(np.concatenate([features for features, _ in sides.values()]))
    x, y = (spanning(column) for column in places.T)
    rows = " and ".join(f"{len(labels)} {side}" for side, (_, labels) in sides.items())
    words = f"{name}, {how} of the features, {rows} rows of run {run.record.id}, coloured by"
    by_class = Chart(x, y, f"{words} class", SIZE, bare=True)
    by_domain = Chart(x, y, f"{words} domain", SIZE, bare=True)
    ends = np.cumsum([len(labels) for _, labels in sides.values()])[:-1]
    shared = bool(run.record.scores and run.record.scores.source)
    for (side, (_, labels)), points in zip(sides.items(), np.split(places, ends), strict=True):
        groups = quartiles(labels, run)
        for label in np.unique(groups):
            kind = f"c{int(label) % COLOURS}" if label >= 0 and (side == "target" or shared) else "quiet"
            _draw(by_class, side, points[groups == label], kind)
        _draw(by_domain, side, points, "c0" if side == "source" else "c3")
    note = f"seed {run.record.seed}, {how}, by"
    return [Panel(name, by_class.svg, f"{note} class"), Panel(name, by_domain.svg, f"{note} domain")]


def quartiles(labels: NDArray[Any], run: RunFiles) -> NDArray[Any]:
    """Class numbers as they are; values by the quarter of the target's test values that they lie in, −1 of none."""
    values = run.labels
    if not run.record.data.quantity or values is None or np.isnan(values).all():
        return labels
    of = np.searchsorted(np.nanquantile(values, (0.25, 0.5, 0.75)), labels)
    return np.where(np.isnan(labels), -1, of)


def project_to_plane(features: NDArray[Any]) -> tuple[NDArray[np.float64], str]:
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


def _first(group: SettingRuns) -> tuple[RunFiles, DomainFeatures] | None:
    """The first run that kept features, and (features, labels) by side; the source's are missing where it has no"
    " rows."""
    for run in group.runs:
        found = {side: (run.diagnosis(f"{side}_features"), run.diagnosis(f"{side}_labels")) for side in SIDES}
        sides = {s: (x, y) for s, (x, y) in found.items() if x is not None and y is not None and len(x) == len(y)}
        if "target" in sides and all(np.isfinite(x).all() for x, _ in sides.values()):
            return run, {side: (x[:ROWS], y[:ROWS]) for side, (x, y) in sides.items()}
    return None


def _draw(chart: Chart, side: str, points: NDArray[Any], kind: str) -> None:
    (chart.dots if side == "source" else chart.crosses)(points.tolist(), kind)
