"""How promising a source, a backbone or a stage of it is: scores of features, before any method is trained.

What is trained is the source model, where `pretrain` asks for one: the same as for `run`, and shared with it. The
target's answers stay sealed: its labels are those that `granted` gives away.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tl_runner import config
from tl_runner.core import SourceModel
from tl_runner.domains import LabelledSplit, Pair, Split, Subset
from tl_runner.engine.assembly import assemble
from tl_runner.engine.device import claim_device, describe_device
from tl_runner.engine.pretrain import train_source_model
from tl_runner.engine.word_distance import compare_words
from tl_runner.errors import UserError
from tl_runner.functional.divergence import ROWS as COMPARED
from tl_runner.functional.divergence import mmd_test, separate_domains
from tl_runner.functional.estimated_accuracy import bound_estimate, estimate_accuracy, fit_temperature
from tl_runner.functional.transferability import admit, h_score, leep, linear_error, logme, nce
from tl_runner.models.features import cut_model
from tl_runner.models.frozen_features import FeatureCache
from tl_runner.models.learning_rates import new_stages
from tl_runner.rng import Rng
from tl_runner.storage.provenance import collect_provenance
from tl_runner.storage.record import RunRecord
from tl_runner.training.loop import Point

ROWS = 1000  # of a labelled split that are scored, at most
PERMUTATIONS = 500  # of the test that the domains are the same
ALL = "all"  # stages

Whose = Literal["granted target labels", "the source's labels"]
Embed = Callable[[Split, Tensor], Tensor]  # features (n, d) of these rows of a split


class Screened(NamedTuple):
    """A candidate: one stage of one backbone on one pair, and its scores by name, but for those that it can't have.

    `rows` are the labelled rows that were scored, `whose` their labels; `last` says whether the stage is the backbone's
    last; `seconds` are for this stage, without the source model. `words` says what the word vectors are, where the
    domains' words were compared.
    """

    record: RunRecord
    stage: str
    last: bool
    whose: Whose
    rows: int
    scores: Mapping[str, float]
    seconds: float
    seeds: int = 1  # that the scores are means of
    words: str = ""


class Distance(NamedTuple):
    """Another distance of the domains to measure: by the words of texts, as the vectors in a file have them.

    Without a file the vectors are trained on these texts.
    """

    name: Literal["word2vec"]
    vectors: Path | None = None


def screen(
    record: RunRecord, stages: Sequence[str] = (), distance: Distance | None = None
) -> Generator[Point, None, list[Screened]]:
    """Score these stages of the backbone that the record describes, `("all",)` for all, none for the last.

    Yields the points of the source model's training, where it is not kept from before. The record gets to know its
    data and machine, as a run's would; nothing is written but what runs share in `record.cache`.
    """
    parts = config.load_parts(record.config)
    device = claim_device(parts.settings.device, parts.settings.threads)
    record.environment = replace(collect_provenance(), **describe_device(device, parts.train))
    assembled = assemble(record, parts, device, needs_granted=False)
    record.data = assembled.data
    model, pair = assembled.model, assembled.pair
    whose, labelled = sample_labelled(pair)
    admit(torch.cat([part.y for part in labelled]))
    if new_stages(model):
        raise UserError(config.BOTTLENECK_MESSAGE)
    wanted = model.stages if tuple(stages) == (ALL,) else stages or model.stages[-1:]
    for stage in wanted:
        model.upto(stage)  # refused before anything is trained
    words = compare_words(assembled, distance.vectors) if distance else None
    source_model, facts = (yield from train_source_model(model, assembled)) or (None, None)
    record.training.source_model = facts
    found = []
    for stage in wanted:
        started, last = time.monotonic(), stage == model.stages[-1]
        part = model if last else cut_model(model, stage, pair.shape)
        embed = partial(embed_rows, FeatureCache(assembled.features, part))
        scores, rows = _score_features(embed, whose, labelled, assembled.rng, source_model if last else None)
        scores |= _measure_distances(embed, pair)
        if "error" in scores and "a_distance" in scores:
            scores["bound"] = scores["error"] + scores["a_distance"] / 2
        if last and source_model:
            scores |= _estimate_target(embed, source_model, pair)
        if words:
            scores["words"] = words.similarity
        seconds, told = time.monotonic() - started, words.told if words else ""
        found.append(Screened(record, stage, last, whose, rows, scores, seconds, words=told))
    return found


def sample_labelled(pair: Pair) -> tuple[Whose, list[LabelledSplit]]:
    """The labelled rows to score on, and whose labels: all that the target grants, else the source's val split.

    Raises `UserError` where there are neither.
    """
    if granted := [part for part in (pair.granted, pair.held_out) if part is not None]:
        return "granted target labels", granted
    if pair.source is None:
        raise UserError("there is no source and no label to score on: granted=5 reveals 5 target labels per class")
    source, labels = pair.labelled_source
    return "the source's labels", [LabelledSplit(source.val, labels.val)]


def _score_features(
    embed: Embed, whose: Whose, labelled: Sequence[LabelledSplit], rng: Rng, source_model: SourceModel | None
) -> tuple[dict[str, float], int]:
    """The transferability scores of these features of labelled rows, and how many rows these are.

    Those that want a source classifier are had where there is one, on top of the whole backbone. `error`, of a linear
    classifier, is the bound's ε_s, and so had on the source's labels. Of a quantity LogME alone is defined.
    """
    rows = [_draw_rows(split, rng) for split in labelled]
    f = torch.cat([embed(split.x, of) for split, of in zip(labelled, rows, strict=True)])
    y = torch.cat([split.y[of].cpu() for split, of in zip(labelled, rows, strict=True)])
    scores = {"logme": logme(f, y)}
    if y.is_floating_point():
        return scores, len(y)
    scores["h_score"] = h_score(f, y)
    if whose == "the source's labels" and (error := linear_error(f, y)) is not None:
        scores["error"] = error
    if source_model:
        with torch.no_grad():
            predictions = source_model.head(f.to(labelled[0].y.device)).softmax(-1).cpu()
        scores |= {"leep": leep(predictions, y), "nce": nce(predictions.argmax(-1), y)}
    return scores, len(y)


def _measure_distances(embed: Embed, pair: Pair) -> dict[str, float]:
    """How far the domains lie apart in these features, by no label; nothing where there is no source.

    On the first rows of the validation splits, which were shuffled when they were cut, and which the source model was
    not fitted to: what a run's diagnosis measures before it adapts.
    """
    if pair.source is None:
        return {}
    sides = [(domain.val, torch.arange(min(len(domain.val), COMPARED))) for domain in (pair.source, pair.target)]
    source, target = (embed(split, rows) for split, rows in sides)
    apart, mmd = separate_domains(source, target), mmd_test(source, target, PERMUTATIONS)
    found = {}
    if apart:
        found |= dict(zip(("a_distance", "a_low", "a_high"), apart.a_distance, strict=True))
    return found | ({"mmd": mmd.value, "mmd_p": mmd.p} if mmd else {})


def _estimate_target(embed: Embed, source_model: SourceModel, pair: Pair) -> dict[str, float]:
    """The source model's accuracy on the target, estimated without its labels, and the ends of the interval.

    On the val splits. Nothing where the head does not know the target's classes, or there are none. The interval is
    wide: that of a run with one checkpoint.
    """
    if not pair.shared_labels or not pair.classes:
        return {}
    source, labels = pair.labelled_source

    def predict(split: Split) -> Tensor:
        features = embed(split, torch.arange(len(split)))
        with torch.no_grad():
            return source_model.head(features.to(labels.val.device)).softmax(-1).cpu()

    of_target, of_source, y = predict(pair.target.val), predict(source.val), labels.val.cpu()
    estimates = estimate_accuracy(of_target, of_source, y, fit_temperature(of_source, y))
    found = bound_estimate(estimates.values(), None, len(of_target))
    return dict(zip(("estimated", "estimated_low", "estimated_high"), found, strict=True))


def embed_rows(cache: FeatureCache, split: Split, rows: Tensor) -> Tensor:
    """What the cache's part of a model makes of these rows, (n, d) on the CPU. `UserError` where it is not finite."""
    part, whole = cache.model, len(rows) == len(split)
    found = cache.embed(split if whole else Subset(split, rows.to(part.device))).cpu()
    if not bool(torch.isfinite(found).all()):
        raise UserError(f"the features at stage {part.stage or part.stages[-1]!r} are not finite numbers")
    return found


def _draw_rows(labelled: LabelledSplit, rng: Rng) -> Tensor:
    """The numbers of all rows of a split, in order; of a large one `ROWS` drawn at random."""
    rows = torch.randperm(len(labelled.x), generator=rng.child("screen").generator())
    return rows[:ROWS].sort().values.to(labelled.y.device)
