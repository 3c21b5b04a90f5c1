"""Damaged, missing, foreign and mismatching models are refused in words that help; aliases stay as they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from services.registry import ModelUnknown, Registry, WrongRegistry, compatible
from services.registry.storage import place_of

WHO = {"reason": "test", "by": "me"}


def overwrite(registry: Registry, model: str, name: str, content: bytes | None) -> None:
    """What a disk, or a person, does to a file of the registry."""
    place = place_of(registry.where)
    if content is None:
        place.remove(f"models/{model}/{name}")
    else:
        place.put(f"models/{model}/{name}", content)


def not_finite(folder: Path) -> bytes:
    tensors = safetensors.torch.load((folder / weights.WEIGHTS).read_bytes())
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    return safetensors.torch.save(tensors)


def vouching(card: Path, content: bytes) -> bytes:
    """The card with the digest of other weights."""
    tree = json.loads(card.read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    return json.dumps({**tree, "sha256": sha256, "model": sha256[:12]}).encode()


DAMAGES = {
    "weights cut off": (weights.WEIGHTS, lambda folder: (folder / weights.WEIGHTS).read_bytes()[:-3], "has sha256"),
    "weights gone": (weights.WEIGHTS, lambda folder: None, "cannot be read"),
    "card cut off": (weights.CARD, lambda folder: (folder / weights.CARD).read_bytes()[:99], "is not a model's card"),
    "card of a newer format": (
        weights.CARD,
        lambda folder: (folder / weights.CARD).read_bytes().replace(b'"format": 1', b'"format": 9'),
        "has format 9; this release reads format 1",
    ),
    "card of another model": (
        weights.CARD,
        lambda folder: vouching(folder / weights.CARD, b"others"),
        "files were copied by hand",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_and_the_champion_stays(registry, make_model, damage):
    champion = registry.add(make_model(1), **WHO).model
    registry.promote(champion, **WHO)
    folder = make_model(2)
    model = registry.add(folder, **WHO).model
    name, content, why = DAMAGES[damage]
    overwrite(registry, model, name, content(folder))
    for call in (registry.folder, lambda one: registry.promote(one, **WHO), lambda one: registry.challenge(one, **WHO)):
        with pytest.raises(weights.ModelRefused, match=why) as refused:
            call(model)
        assert registry.where in str(refused.value)
    assert registry.aliases().champion == champion and registry.aliases().challenger is None
    assert {one.model for one in registry.models()} == {champion, model}  # the list is not broken by one
    assert registry.add(folder, **WHO).model == model  # the remedy
    assert registry.promote(model, **WHO).champion == model


def test_a_model_without_a_card_is_not_there(registry, make_model):
    model = registry.add(make_model(1), **WHO).model
    overwrite(registry, model, weights.CARD, None)
    with pytest.raises(ModelUnknown):
        registry.folder(model)
    assert registry.models() == []


def test_a_damaged_champion_can_be_replaced(registry, make_model):
    a, b = (registry.add(make_model(seed), **WHO).model for seed in (1, 2))
    registry.promote(a, **WHO)
    overwrite(registry, a, weights.CARD, b"{}")
    assert registry.promote(b, **WHO).champion == b


def test_what_is_no_model_is_not_added(registry, make_model, tmp_path: Path):
    folder = make_model(1)
    content = not_finite(folder)
    (folder / weights.CARD).write_bytes(vouching(folder / weights.CARD, content))
    (folder / weights.WEIGHTS).write_bytes(content)
    for bad, why in ((folder, "not finite"), (tmp_path, "cannot be read"), (tmp_path / "nowhere", "cannot be read")):
        with pytest.raises(weights.ModelRefused, match=why):
            registry.add(bad, **WHO)
    assert registry.models() == []


def test_a_damaged_copy_is_made_anew(make_model, tmp_path: Path, registry):
    model = registry.add(make_model(1), **WHO).model
    if registry.where.startswith("memory:"):
        (registry.folder(model) / weights.WEIGHTS).write_bytes(b"rubbish")
        assert weights.load(registry.folder(model))[1].model == model


def test_a_damaged_pointer_is_named(registry, make_model):
    a, b = (registry.add(make_model(seed), **WHO).model for seed in (1, 2))
    registry.promote(a, **WHO)
    registry.promote(b, **WHO)
    place = place_of(registry.where)
    for damage in (b"", b"[]", b'{"format": 7}', b"\xff\x00"):
        place.put("aliases/00000002.json", damage)
        with pytest.raises(WrongRegistry, match=r"aliases/00000002\.json is no change of aliases"):
            Registry(registry.where).aliases()
    assert registry.aliases().champion == b  # who had read it goes on
    place.remove("aliases/00000002.json")  # the remedy that the message names
    assert Registry(registry.where).aliases().champion == a


NEXT = ModelConfig(features=("a", "b"))
WORDS = ModelConfig(task="many-to-one", predicts="now", head="categorical", vocabulary=("x", "y"), labels=("l", "m"))


@pytest.mark.parametrize(
    ("champion", "other", "field"),
    [
        (NEXT, ModelConfig(features=("b", "a")), "features"),
        (NEXT, ModelConfig(features=("a", "b"), targets=("b",)), "targets"),
        (NEXT, ModelConfig(features=("a", "b"), targets=("a", "b"), predicts="now"), "predicts"),
        (NEXT, ModelConfig(features=("a", "b"), task="encoder-decoder", horizon=4), "task"),
        (
            ModelConfig(features=("a",), task="encoder-decoder", horizon=2),
            ModelConfig(features=("a",), task="encoder-decoder", horizon=4),
            "horizon",
        ),
        (WORDS, ModelConfig(task="many-to-one", predicts="now", head="categorical", vocabulary=("y", "x"),
                            labels=("l", "m")), "vocabulary"),
        (WORDS, ModelConfig(task="many-to-one", predicts="now", head="categorical", vocabulary=("x", "y"),
                            labels=("l", "n")), "labels"),
        (WORDS, ModelConfig(task="many-to-one", predicts="now", head="categorical", vocabulary=("x", "y"),
                            labels=("l", "m"), answer="each"), "answer"),
    ],
)  # fmt: skip
def test_what_reads_or_answers_something_else_does_not_fit(champion: ModelConfig, other: ModelConfig, field: str):
    for one, two in ((champion, other), (other, champion)):
        why = compatible(one, two)
        assert why is not None and why.startswith(f"{field}: ") and why.endswith(".")
    assert compatible(champion, champion) is None


def test_what_is_inside_may_differ():
    bigger = ModelConfig(features=("a", "b"), cell="gru", hidden=128, layers=3, head="student", linear=8, dropout=0.1)
    assert compatible(NEXT, bigger) is None


def test_long_lists_are_shown_where_they_differ():
    names = tuple(f"f{number}" for number in range(200))
    why = compatible(ModelConfig(features=names), ModelConfig(features=(*names[:100], "odd", *names[101:])))
    assert why is not None and "'f100'" in why and "'odd'" in why and len(why) < 300
