"""One run, top to bottom. Read this file first."""

import time
from collections.abc import Generator

import torch

from tl_runner import config, machine
from tl_runner.chance import chance_of
from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import cut
from tl_runner.evaluate import examine, predict, scores, verdict
from tl_runner.heads import blueprint
from tl_runner.start import admit, source_model, source_names
from tl_runner.store import RunRecord, recording
from tl_runner.train import Point, train


def run(record: RunRecord) -> Generator[Point, None, RunRecord]:
    """Make the run that the record describes, and return the record; yields its points on the way.

    The record is on disk before anything is checked, and says at the end what happened. The target's answers
    are opened in the last step, when every prediction and the choice among the checkpoints stand.
    """
    with recording(record) as files:
        parts = config.load(record.config)
        seed, method, plan = parts.settings.seed, parts.method, parts.train
        device = machine.claim(parts.settings.device, parts.settings.threads)
        record.where |= machine.facts(device, plan)
        budget = Budget.parse(parts.settings.granted).settle(needed="granted" in method.needs)
        with chance_of(seed, "data"):
            drawn = config.call(parts.dataset, seed=seed, cache=files.cache)
            pair, answers, record.data = cut(drawn, seed, budget, device)
        admit(method, pair)
        record.granted = budget.said(record.data["granted"], len(pair.classes))
        with chance_of(seed, "model"):
            backbone, width = parts.backbone(pair.shape)
            model = Model(backbone, width, pair.classes, plan.batchnorm).to(device)
        if method.start == "source":
            record.data["source_model"] = yield from source_model(
                model, pair, parts.pretrain, parts.augment, seed, source_names(record), files.cache / "source_models"
            )
        with chance_of(seed, "prepare"):
            model, pair = method.prepare(model, pair, seed)
        model, method = machine.fast(model.to(device), plan), method.to(device)
        record.data |= {"input": str(model.backbone[0]), "model": blueprint(model)}

        torch.manual_seed(seed)  # for what training itself draws: dropout, noise
        started, history, predictions, chosen, weights = time.monotonic(), [], {}, 0, {}
        for trained in train(model, method, pair, plan, parts.optimizer, parts.schedule, parts.augment, seed):
            point, evidence = trained._replace(seconds=time.monotonic() - started), None
            if plan.examines(point.step):
                evidence, predictions[point.step] = examine(model, pair, point.step, "source" in method.needs)
                history.append(evidence)
                if parts.select(history) == len(history) - 1:
                    chosen = point.step
                    weights = {name: w.detach().to("cpu", copy=True) for name, w in model.state_dict().items()}
            point = point._replace(evidence=evidence)
            files.curve(point)
            yield point

        files.tensors("predictions", {f"step_{step}": rows for step, rows in predictions.items()})
        if parts.settings.save:
            files.tensors("model", weights)
        model.load_state_dict(weights)
        kept = pair.labelled_source if pair.shared_labels else None
        source = scores(predict(model, kept[0].test), kept[1].test) if kept else None
        record.scores = {"source": source, **verdict(predictions, answers.open(), chosen)}
    return record
