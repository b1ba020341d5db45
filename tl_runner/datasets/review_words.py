"""The words that `reviews` are made of: what both domains share, and what is a domain's own."""

from typing import NamedTuple

NEGATIVE, POSITIVE = 0, 1


class DomainWords(NamedTuple):
    """What a domain's reviews speak of, and the opinions (of `NEGATIVE`, of `POSITIVE`) that only it knows."""

    item: tuple[str, ...]
    aspect: tuple[str, ...]
    story: tuple[str, ...]  # sentences without an opinion
    opinions: tuple[tuple[str, ...], tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(each.split()) for each in text.split(","))


SHARED = (
    _words("bad awful terrible poor horrible disappointing dreadful mediocre annoying inferior"),
    _words("good great excellent wonderful superb fantastic amazing perfect lovely impressive"),
)

# {word} is an opinion, {opposite} one of the other class: with "not", the order of words counts.
OPINIONS = _phrases(
    "the {aspect} is {word}, the {aspect} is {degree} {word}, I found the {aspect} {word}, {word} {aspect},"
    "this {item} has one {word} {aspect}, the {aspect} was {degree} {word}, the {aspect} seems {word} to me,"
    "the {aspect} is not {opposite}, this {item} is {word}, I call the {aspect} {word}"
)
DEGREES = _words("very really quite rather truly so somewhat surprisingly")
TIMES = _phrases(
    "yesterday, last week, on Friday, this morning, in June, a month ago, over the holidays, at last, again"
)
PEOPLE = _phrases("my sister, a friend, my son, our neighbour, my boss, a colleague, my wife, my uncle, the family")

FILMS = DomainWords(
    item=_words("film movie picture drama comedy thriller sequel western"),
    aspect=_phrases(
        "plot, script, acting, cast, ending, dialogue, soundtrack, story, pacing, scenery, lead actor, villain, humour,"
        "opening scene, editing, directing, camera work, finale, romance, premise"
    ),
    story=_phrases(
        "we saw it at the cinema {time}, {person} watched it {time}, it runs for two hours,"
        "the tickets were cheap, {person} had read the book, it is set in Paris, the director also wrote it,"
        "the theatre was half full, it was shown with subtitles {time}, the trailer came out {time}"
    ),
    opinions=(
        _words(
            "boring predictable dull wooden shallow cliched tedious confusing pretentious lifeless forgettable"
            " contrived laughable overacted implausible dreary"
        ),
        _words(
            "gripping moving witty touching suspenseful heartfelt charming memorable thrilling poetic subtle haunting"
            " hilarious absorbing believable stirring"
        ),
    ),
)
GADGETS = DomainWords(
    item=_words("gadget device phone tablet charger headset watch router"),
    aspect=_phrases(
        "battery, screen, keyboard, cable, case, speaker, software, button, hinge, microphone, display, strap,"
        "touchpad, sound, firmware, signal, plug, zoom, fan, adapter"
    ),
    story=_phrases(
        "I ordered it online {time}, {person} bought it {time}, the parcel arrived {time}, it comes in a black box,"
        "{person} owns the older model, it has two ports, I use it at work, the warranty ends in a year,"
        "I charged it {time}, it connects over Bluetooth"
    ),
    opinions=(
        _words(
            "flimsy defective sluggish bulky unreliable glitchy fragile noisy uncomfortable laggy dim leaky faulty"
            " wobbly blurry unresponsive"
        ),
        _words(
            "sturdy reliable fast responsive durable crisp compact lightweight comfortable bright handy accurate"
            " waterproof precise intuitive sleek"
        ),
    ),
)
DOMAINS = {"films": FILMS, "gadgets": GADGETS}
