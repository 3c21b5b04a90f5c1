"""Sentence pairs people have translated: the catalogues that come with Django. Imports the standard library only."""

from __future__ import annotations

import random
import re
import struct
import zipfile
from collections import Counter
from pathlib import Path

from services.datasets.series import cache_folder
from services.datasets.tables import Split, Spoken, table_of
from services.datasets.wheels import DataUnavailable, Wheel, fetch

WHEEL = Wheel(
    project="Django",
    version="5.2.8",
    filename="django-5.2.8-py3-none-any.whl",
    sha256="37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    megabytes=8,
)
CITATION = (
    "Messages of Django 5.2.8 and their translations, by the Django Software Foundation and contributors. BSD-3-Clause."
)
MAGIC = 0x950412DE
_TOKEN = re.compile(r"%\(\w+\)[sd]|%[sd]|\w+(?:['’-]\w+)*|[^\w\s]")


def translation(language: str = "de", longest: int = 12, seed: int = 0, cache: Path | None = None) -> Split:
    """Short messages, English -> `language`, lower case, one symbol a word. A tenth of them is held back, out of those
    whose every word is in another message, too. The answer stands on a sentence's last row, its words put apart by
    spaces. Raises DataUnavailable if the wheel cannot be had, ValueError for a language that it does not have.
    """
    pairs = sorted({(said, meant) for said, meant in messages(language, cache) if _short(said, meant, longest)})
    random.Random(f"translation {seed}").shuffle(pairs)
    one_each = list({said: Spoken(said, (" ".join(meant),)) for said, meant in pairs}.values())
    left = Counter(word for one in one_each for word in set(one.words))
    held_back: list[Spoken] = []
    learned: list[Spoken] = []
    for one in one_each:
        known = len(one.words) > 1 and all(left[word] > 1 for word in one.words)
        if known and len(held_back) < len(one_each) // 10:
            left.subtract(set(one.words))
            held_back.append(one)
        else:
            learned.append(one)
    return Split(table_of(learned, "translation", "train"), table_of(held_back, "translation", "test"), CITATION)


def next_words(longest: int = 16, seed: int = 0, cache: Path | None = None) -> Split:
    """The English messages themselves, to go on word by word."""
    found = sorted({said for said, _ in messages("de", cache) if 2 <= len(said) <= longest})
    random.Random(f"next words {seed}").shuffle(found)
    spoken = [Spoken(said, ()) for said in found]
    cut = len(spoken) // 10
    return Split(table_of(spoken[cut:], "", "train"), table_of(spoken[:cut], "", "test"), CITATION)


def messages(language: str, cache: Path | None = None) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every message of the wheel and its translation, as words."""
    with zipfile.ZipFile(fetch(WHEEL, cache_folder(cache))) as wheel:
        members = [name for name in wheel.namelist() if name.endswith(f"/locale/{language}/LC_MESSAGES/django.mo")]
        if not members:
            raise ValueError(f"language: Django has no catalogue for {language!r}")
        pairs = [pair for name in members for pair in catalogue(wheel.read(name))]
    return [(tokens(said), tokens(meant)) for said, meant in pairs]


def catalogue(content: bytes) -> list[tuple[str, str]]:
    """(message, translation) of a compiled gettext catalogue, its header and contexts left out; of plurals the first
    form. Raises DataUnavailable for other bytes.
    """
    try:
        if len(content) < 20 or struct.unpack_from("<I", content)[0] != MAGIC:
            raise ValueError("no such file")
        count, said_at, meant_at = struct.unpack_from("<3I", content, 8)
        pairs = []
        for k in range(count):
            texts = []
            for table in (said_at, meant_at):
                length, start = struct.unpack_from("<2I", content, table + 8 * k)
                texts.append(content[start : start + length].decode("utf-8").split("\0")[0])
            said, meant = texts
            if said and meant:
                pairs.append((said.rpartition("\x04")[2], meant))
        return pairs
    except (ValueError, struct.error) as error:
        raise DataUnavailable(f"a catalogue in {WHEEL.filename} cannot be read: {error}") from error


def tokens(text: str) -> tuple[str, ...]:
    """Words, placeholders and marks of a message, in lower case."""
    return tuple(found.lower() for found in _TOKEN.findall(text))


def _short(said: tuple[str, ...], meant: tuple[str, ...], longest: int) -> bool:
    return 1 <= len(said) <= longest and 1 <= len(meant) <= longest and said != meant
