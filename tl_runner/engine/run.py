"""One run, top to bottom. Read this file first."""

from collections.abc import Generator

from tl_runner import config
from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.engine.auto import resolve_method
from tl_runner.engine.device import claim_device, describe_device
from tl_runner.engine.pretrain import check_task, list_backbone_rates, prepare_training
from tl_runner.engine.progress import restore_progress
from tl_runner.engine.recorder import open_recording
from tl_runner.evaluation.scores import collect_evidence, predict, read, score_run, scores
from tl_runner.models.batchnorm import by_domain_statistics, load_statistics, statistics
from tl_runner.models.heads import blueprint, gives_probabilities
from tl_runner.rng import chance_of
from tl_runner.storage.record import RunRecord
from tl_runner.training.loop import Point, train


def run(record: RunRecord) -> Generator[Point, None, RunRecord]:
    """Make the run that the record describes, and return the record; yields its points on the way.

    The record is on disk before anything is checked, and says at the end what happened. The target's answers
    are opened in the last step, when every prediction and the choice among the checkpoints stand. What an earlier
    process left unfinished goes on from its checkpoint; an exception thrown in at a point leaves one there.
    """
    with open_recording(record) as files:
        parts = config.load(record.config)
        seed, method, plan = parts.settings.seed, parts.method, parts.train
        files.track(parts.tracker)
        checkpoint = files.checkpoint(parts.settings.checkpoint_every)
        left = files.left(checkpoint)
        device = claim_device(parts.settings.device, left["made"]["threads"] if left else parts.settings.threads)
        record.where |= describe_device(device, plan)
        budget = Budget.parse(parts.settings.granted).settle(needed="granted" in method.needs)
        with chance_of(seed, "data"):
            drawn = config.call_with(parts.dataset, seed=seed, cache=files.cache)
            pair, answers, record.data = split_domains(drawn, seed, budget, device)
        files.confirm_data()
        check_task(method, pair)
        record.granted = budget.said(record.data["granted"], len(pair.classes))
        with chance_of(seed, "model"):
            backbone, width = parts.backbone(pair.shape)
            model = Model(backbone, width, pair.classes, plan.batchnorm).to(device)
            model.features_kept, model.pretrained = files.features, config.starts_trained(parts.backbone)
        method, told = yield from resolve_method(method, model, pair, parts, record, files.cache)
        record.data |= told
        setup = parts.diagnose.before(model, pair, method.once)
        start = statistics(model)  # the source's, where its rows are not read from here on
        method, model, pair = prepare_training(method, model, pair, plan, seed)
        record.data |= {
            "input": str(model.backbone[0]),
            "model": blueprint(model),
            "lr_backbone": list_backbone_rates(method, model, parts.optimizer),
        }

        progress = restore_progress(left, model, method, made := files.made())
        files.go_on(progress)
        for trained in train(
            model, method, pair, plan, parts.optimizer, parts.schedule, parts.augment, seed, progress.cursor
        ):
            point = trained._replace(seconds=progress.elapsed)
            if plan.examines(point.step):
                sides = by_domain_statistics(model, pair, point.streams, start)
                evidence, predicted = collect_evidence(sides, pair, point.step, method.keeps_source_task)
                progress.judge(evidence, predicted, parts.select, sides)
                point = point._replace(evidence=evidence)
            files.curve(point)
            with checkpoint.around(lambda: progress.state(model, method, made)):
                yield point

        files.predictions(progress.predictions, answers.names)
        if parts.settings.save:
            files.tensors("model", progress.weights)
        sides = load_statistics(model, progress.weights)
        files.tensors("validation", {"target": predict(sides.target, pair.target.val)})  # what trials agree on
        record.evidence = progress.evidence._asdict()
        source = read(sides.source, pair.source.test) if pair.source else None
        sure, known = gives_probabilities(model.head), source and pair.shared_labels
        of_source = scores(source.predicted, pair.labelled_source[1].test, sure) if source and known else None
        labels, predicted = answers.open(), progress.predictions[progress.chosen]
        record.scores = {"source": of_source, **score_run(progress.predictions, labels, progress.chosen, sure)}
        record.diagnosis, exhibits = parts.diagnose.after(sides, pair, setup, source, predicted, labels)
        files.tensors("diagnosis", exhibits)
    return record
