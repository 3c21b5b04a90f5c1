"""Every table of sequences by its name: what `streamrnn datasets fetch` writes and examples/ learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.datasets.digits import digit_names
from services.datasets.load_profiles import load_profiles
from services.datasets.sensor_tables import calibrate, faults, sensor_states, smoothing
from services.datasets.sentences import entities, sentiment
from services.datasets.tables import Split
from services.datasets.translations import next_words, translation
from services.datasets.word_kinds import word_kinds


@dataclass(frozen=True, slots=True)
class TableSet:
    """How one pair of tables is made, and what is in them. `make` takes the cache folder, None for the user's own."""

    make: Callable[[Path | None], Split]
    about: str
    columns: str  # what is read -> what is asked for


def _without_cache(make: Callable[[], Split]) -> Callable[[Path | None], Split]:
    return lambda cache: make()


TABLE_SETS = {
    "calibrate": TableSet(
        lambda cache: calibrate(cache=cache),
        "single minutes of a household's meter",
        "voltage, current, reactive_power -> power",
    ),
    "digit-names": TableSet(
        lambda cache: digit_names(cache=cache), "handwritten digits, 8 x 8 pixels", "64 pixels -> letters"
    ),
    "entities": TableSet(_without_cache(entities), "sentences with names, unseen ones in the test", "word -> tag"),
    "entities-both-ways": TableSet(
        _without_cache(partial(entities, both_sides=True)), "the same, where often only later words tell", "word -> tag"
    ),
    "faults": TableSet(
        lambda cache: faults(cache=cache), "a walk, where accelerometers fail now and then", "9 accelerations -> fault"
    ),
    "load-profiles": TableSet(
        load_profiles, "a year of 27 electricity customers", "day and customer -> 24 hourly loads"
    ),
    "next-words": TableSet(
        lambda cache: next_words(cache=cache), "Django's messages, word by word", "word -> the next"
    ),
    "sensor-states": TableSet(
        lambda cache: sensor_states(cache=cache), "a household's power in six states", "state -> the next"
    ),
    "sentiment": TableSet(_without_cache(sentiment), "sentences whose order and negations decide", "words -> mood"),
    "smoothing": TableSet(
        lambda cache: smoothing(cache=cache), "a household's voltage with gaps", "seen -> true voltage"
    ),
    "translation": TableSet(lambda cache: translation(cache=cache), "short messages of Django", "English -> German"),
    "word-kinds": TableSet(_without_cache(word_kinds), "Python's own words", "word -> kind"),
}
