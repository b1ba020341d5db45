"""A user's own images: a folder per domain, and in it a folder per class."""

from pathlib import Path
from typing import Literal

from tl_runner.datasets.domain_folders import explain_unlabelled, find_domains, list_domains
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled
from tl_runner.datasets.listed_images import Reading, draw_images
from tl_runner.datasets.native_size import Size
from tl_runner.datasets.pixel_format import Channels
from tl_runner.datasets.source_names import Several
from tl_runner.datasets.split import Drawn


def image_folder(
    seed: int,
    cache: Path,
    root: str = "data",
    source: Several = None,
    target: str | None = None,
    labels: Literal["same", "shared", "differ"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    test: str | None = None,
    size: Size = "auto",
    bit_depth: int | None = None,
    channels: Channels | None = None,
    follow_links: bool = False,
    on_bad: Literal["error", "skip"] = "error",
    memory: float = 2.0,
) -> Drawn:
    """Images under `root/<domain>/<class>/` or `root/<domain>/{train,val,test}/<class>/`, at any depth.

    source, target, test: names of domains; several sources are pooled, a source of None is in the backbone's weights,
    and a `test` is the target's test split. labelled: whether the target's folders name classes (see
    `class_folders`). follow_links: links to folders may lead out of the root, and stand within classes. For the
    other options see `Reading`. The seed decides nothing here.
    """
    reading = Reading(labels, label_set, score_on, size, bit_depth, channels, on_bad, memory).checked()
    base, kind = Path(root).expanduser(), reading.kind
    domains = find_domains(base, kind, {"source": source, "target": target, "test": test}, follow_links)
    listed = list_domains(domains, base, kind, labelled, follow_links)
    unlabelled = explain_unlabelled(listed["target"].folders, kind, labelled)
    return draw_images(listed, domains, reading, unlabelled, cache)
