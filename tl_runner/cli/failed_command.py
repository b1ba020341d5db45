"""An attempt from which no run came, kept on record, so that reports can say it."""

from collections.abc import Sequence

from tl_runner import options
from tl_runner.errors import UserError


def record_attempt(words: Sequence[str], message: str, outputs: str | None = None) -> None:
    """Put on record that these words could not be composed, and why; raises `OSError` where nothing can be written.

    `outputs` is the folder that holds runs/, if it is not as the words have it.
    """
    from tl_runner.engine.recorder import open_recording
    from tl_runner.storage.record import describe_run

    typed = options.parse_words(words)
    folder = outputs or typed.get("outputs", "outputs")
    record = describe_run(
        {"overrides": list(words), "outputs": "outputs" if folder == "null" else folder},
        options.resolve_choices(words),
    )
    record.seed, record.granted = typed.get("seed", "0"), typed.get("granted", "auto")
    try:
        with open_recording(record):
            raise UserError(message)
    except UserError:
        pass
