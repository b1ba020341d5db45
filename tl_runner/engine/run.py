"""One run, top to bottom. Read this file first."""

from collections.abc import Callable, Generator, Iterator

from tl_runner import config
from tl_runner.core import Model
from tl_runner.datasets.split import warn_of_absent_classes
from tl_runner.domains import Pair
from tl_runner.engine.assembly import Assembly, assemble
from tl_runner.engine.auto_trials import resolve_method
from tl_runner.engine.device import describe_device
from tl_runner.engine.preparation import check_task, describe_training, prepare_training
from tl_runner.engine.pretrain import start_model
from tl_runner.engine.progress import Progress, restore_progress
from tl_runner.engine.recorder import Recording, open_recording
from tl_runner.engine.shared_data import Shared
from tl_runner.engine.texts import warn_of_rate
from tl_runner.evaluation.class_shares import TrackedShares, add_bias
from tl_runner.evaluation.diagnosis import Setup, warn_of_shares
from tl_runner.evaluation.scores import (
    collect_evidence,
    estimate_errors,
    examine_source,
    find_temperature,
    predict_all,
    predict_validation,
    score_members,
    score_run,
    score_source,
)
from tl_runner.functional.estimated_accuracy import estimate_accuracy
from tl_runner.models.batchnorm import by_domain_statistics, load_statistics, statistics
from tl_runner.models.heads import gives_probabilities
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import FUSED
from tl_runner.tasks import Classification, Regression
from tl_runner.training.averaging import settle_weights
from tl_runner.training.loop import WAITING, Point, train


def run(
    record: RunRecord, train: Callable[..., Iterator[Point]] = train, shared: Shared | None = None
) -> Generator[Point, None, RunRecord]:
    """Make the run that the record describes, and return the record; yields its points on the way.

    The record is on disk before anything is checked, and says at the end what happened. The target's answers
    are opened in the last step, when every prediction and the choice among the checkpoints stand. A run that another
    process left unfinished resumes from its checkpoint. To stop a run, throw an exception into the generator: it writes
    a checkpoint first.

    Of runs that are made side by side in one process, `train` trains each in its turn, and `shared` holds what they
    read alike: see `engine.group`.
    """
    shared = Shared() if shared is None else shared
    with open_recording(record) as recording:
        yield from recording.log_within(_make(recording, train, shared))
    return record


def _make(recording: Recording, train: Callable[..., Iterator[Point]], shared: Shared) -> Generator[Point, None, None]:
    """All of it but opening and closing the record."""
    record = recording.record
    parts = config.load_parts(record.config)
    settings, plan = parts.settings, parts.train
    recording.track(parts.tracker)
    checkpoint = recording.open_checkpoint(settings.checkpoint_every)
    stored = recording.read_checkpoint(checkpoint)
    device = shared.claim_device(settings.device, stored["made"]["threads"] if stored else settings.threads)
    recording.note(environment=describe_device(device, plan))
    assembled = assemble(record, parts, device, "granted" in parts.method.needs, shared)
    recording.note(data=assembled.data, granted=assembled.granted, training={"backbone": assembled.settled})
    recording.confirm_data()
    check_task(parts.method, assembled.pair)
    warn_of_rate(record.config, parts.method.start)
    method, auto_info = yield from resolve_method(assembled)
    resources, source_info = yield from start_model(method, assembled.model, assembled)
    recording.note(training={"auto": auto_info, "source_model": source_info})
    setup = shared.measure_start(
        record.config, method.start, assembled.model, assembled.pair, parts.diagnose, assembled.features
    )
    start = statistics(assembled.model)  # the source's, where its rows are not read from here on
    method, model, pair = prepare_training(method, assembled.model, assembled.pair, plan, resources)
    recording.note(training=describe_training(method, model, parts.optimizer))

    shares = TrackedShares.start(settings.shares, pair, plan.balance)
    progress = restore_progress(stored, model, method, made := recording.identify_maker(), shares)
    recording.resume_curve(progress)
    if progress.cursor.step and stored and stored.get("engine") == FUSED:
        recording.note(environment={"engine": FUSED})  # so that who wants runs to the bit sees that it is not one
    for trained in train(
        model,
        method,
        pair,
        plan,
        parts.optimizer,
        parts.schedule,
        parts.augment,
        assembled.rng,
        progress.cursor,
        shares,
    ):
        if trained.phase == WAITING:  # for the other runs of its stack
            yield trained
            continue
        point = trained._replace(seconds=progress.elapsed)
        if plan.examines(point.step):
            examined = settle_weights(model, method, progress.cursor.average)
            sides = by_domain_statistics(examined, pair, point.streams, start, own=examined is model)
            adjusted, seen = shares.adjust(sides, pair) if shares else (sides, pair)
            evidence, predicted = collect_evidence(adjusted, seen, point.step, method.source_labels == "throughout")
            progress.consider(evidence, predicted, parts.select, sides, shares and shares.facts)
            point = point._replace(evidence=evidence)
        recording.append_point(point)
        with checkpoint.around(lambda: progress.state(model, method, made, record.environment.engine, shares)):
            yield point

    conclude(recording, assembled, setup, model, pair, progress, shares)


def conclude(
    recording: Recording,
    assembled: Assembly,
    setup: Setup,
    model: Model,
    pair: Pair,
    progress: Progress,
    shares: TrackedShares | None,
) -> None:
    """Keep the selected checkpoint and what it predicts; then, with nothing left to choose, open the answers."""
    places, predicted, task = assembled.answers.places, progress.predictions[progress.chosen], pair.task
    if assembled.parts.settings.save:
        if assembled.tokenizer:
            recording.write_tokenizer(assembled.tokenizer.state())
        recording.write_tensors("model", progress.weights)
    sides = load_statistics(model, progress.weights)
    sure = isinstance(task, Classification) and gives_probabilities(model.head)
    if shares:
        sides = add_bias(sides, progress.shares["bias"])
        recording.note(training={"shares": shares.describe(progress.shares)})
    validation = predict_validation(sides, pair)
    recording.write_tensors("validation", validation)
    temperature = find_temperature(validation) if sure else None
    recording.note(training={"temperature": temperature})
    recording.write_test_predictions(progress.predictions, places)
    if places:
        recording.write_all_predictions(places, predict_all(sides.target, pair, places, temperature), pair.classes)
    source = examine_source(sides, pair.source, "test") if pair.source else None
    of_source = score_source(source, pair, sure)
    estimated = None
    if temperature is not None:
        estimated = estimate_accuracy(predicted, validation["source"], validation["labels"], temperature)
    estimated_error = estimate_errors(sides, pair) if isinstance(task, Regression) else None
    labels = assembled.answers.open()
    warn_of_absent_classes(labels, pair.classes, "test", pair.target.name)
    scores = score_run(task, progress.predictions, labels, progress.chosen, sure, of_source, estimated)
    scores.estimated_error = estimated_error
    scores.members = score_members(source, pair, sure)
    diagnosis, figures = assembled.parts.diagnose.after(sides, pair, setup, source, predicted, labels)
    if diagnosis and diagnosis.priors and scores.estimate and scores.estimate.believable and not shares:
        warn_of_shares(diagnosis.priors, pair.classes)
    recording.write_tensors("diagnosis", figures)
    recording.note(scores=scores, evidence=progress.evidence._asdict(), diagnosis=diagnosis)
