"""services.registry: models come back whole or not at all, aliases move once, and what is named is never collected."""

from __future__ import annotations

import importlib
import secrets
from pathlib import Path

import pytest

from rnn.io import weights
from services.registry import Conflict, Mismatch, ModelUnknown, Pinned, Registry, Unreachable, WrongRegistry

WHO = {"reason": "test", "by": "me"}


def test_an_empty_place_is_an_empty_registry(registry, make_model):
    assert registry.models() == [] and registry.history() == [] and registry.aliases().version == 0
    with pytest.raises(ModelUnknown, match="has no champion"):
        registry.resolve("champion")
    with pytest.raises(ModelUnknown, match="is empty"):
        registry.card("0123456789ab")


def test_a_model_comes_back_with_what_lay_beside_it(registry, make_model):
    folder = make_model(1)
    (folder / "report.json").write_text('{"scores": {"mse": 1.0}}')
    (folder / "curve.png").write_bytes(b"a picture")
    (folder / ".hidden").write_text("not for others")
    (folder / "link").symlink_to("/etc/hostname")
    (folder / "checkpoints").mkdir()
    card = registry.add(folder, reason="first one", by="me")
    copy = registry.folder(card.model)
    assert sorted(path.name for path in copy.iterdir()) == [
        "card.json",
        "curve.png",
        "model.safetensors",
        "report.json",
    ]
    assert weights.load(copy)[1] == registry.card(card.model) == card
    assert registry.report(card.model) == {"scores": {"mse": 1.0}}
    (entry,) = registry.models()
    assert (entry.model, entry.scores, entry.added.reason, entry.added.by) == (
        card.model,
        {"mse": 0.1},
        "first one",
        "me",
    )
    assert entry.bytes > sum(path.stat().st_size for path in copy.iterdir()) - 1


def test_a_model_in_a_volume_of_a_configmap_is_a_model(registry, make_model, tmp_path: Path):
    volume = tmp_path / "volume"
    (volume / "..data").mkdir(parents=True)
    for file in make_model(1).iterdir():
        file.rename(volume / "..data" / file.name)
        (volume / file.name).symlink_to(f"..data/{file.name}")
    card = registry.add(volume, **WHO)
    assert sorted(path.name for path in registry.folder(card.model).iterdir()) == ["card.json", "model.safetensors"]


def test_a_model_whose_card_is_elsewhere_is_refused(registry, make_model, tmp_path: Path):
    folder = make_model(1)
    (folder / "card.json").rename(tmp_path / "card.json")
    (folder / "card.json").symlink_to(tmp_path / "card.json")
    with pytest.raises(weights.ModelRefused, match="leads out of the folder"):
        registry.add(folder, **WHO)
    assert registry.models() == []


def test_the_same_model_twice_is_one_model(registry, make_model):
    first = registry.add(make_model(1), **WHO)
    assert registry.add(make_model(1), **WHO) == first
    assert [one.model for one in registry.models()] == [first.model]


def test_promote_challenge_roll_back_are_remembered_with_their_reasons(registry, where, make_model, tmp_path):
    a, b, c = (registry.add(make_model(seed), **WHO).model for seed in (1, 2, 3))
    registry.promote(a, **WHO)
    registry.challenge(b, reason="trained on last week", by="trainer")
    registry.promote(b, reason="better", by="judge", numbers={"p": 0.01, "margin": float("nan")})
    now = registry.aliases()
    assert (now.champion, now.challenger, now.previous) == (b, None, a)
    registry.challenge(c, **WHO)
    now = registry.rollback(reason="worse on Sunday", by="judge")
    assert (now.champion, now.challenger, now.previous) == (a, c, b)
    assert registry.withdraw(**WHO).challenger is None
    again = Registry(where, cache=tmp_path / "other")  # what another process sees
    assert again.aliases() == registry.aliases()
    told = [(one.version, one.what, one.reason, dict(one.numbers)) for one in again.history()]
    assert told[2] == (3, "promoted", "better", {"p": 0.01, "margin": None})
    assert [what for _, what, _, _ in told] == ["promoted", "challenged", "promoted", "challenged", "rolled back",
                                                "withdrawn"]  # fmt: skip
    assert [entry.aliases for entry in again.models()] == [(), ("previous",), ("champion",)]


def test_who_comes_second_is_told_what_happened(registry, make_model):
    a, b = (registry.add(make_model(seed), **WHO).model for seed in (1, 2))
    seen = registry.aliases()
    registry.promote(a, reason="was quicker", by="first trainer", seen=seen)
    with pytest.raises(Conflict, match=r"first trainer has promoted \(was quicker\)"):
        registry.promote(b, **WHO, seen=seen)
    with pytest.raises(Conflict):
        registry.move(seen, **WHO, challenger=b)
    assert registry.aliases().champion == a


def test_what_is_so_already_is_no_change(registry, make_model):
    a, b = (registry.add(make_model(seed), **WHO).model for seed in (1, 2))
    registry.promote(a, **WHO)
    registry.challenge(b, **WHO)
    version = registry.aliases().version
    registry.promote(a, **WHO)
    registry.challenge(b, **WHO)
    registry.pin(False, **WHO)
    assert registry.aliases().version == version
    with pytest.raises(Mismatch, match="cannot challenge itself"):
        registry.challenge(a, **WHO)


def test_a_pinned_champion_stays_until_it_is_unpinned(registry, make_model):
    a, b = (registry.add(make_model(seed), **WHO).model for seed in (1, 2))
    with pytest.raises(ModelUnknown, match="no champion to pin"):
        registry.pin(**WHO)
    registry.promote(a, **WHO)
    registry.pin(reason="audit this week", by="ana")
    registry.challenge(b, **WHO)
    for change in (registry.promote, lambda model, **who: registry.move(registry.aliases(), champion=model, **who)):
        with pytest.raises(Pinned, match=r"audit this week \(ana\)"):
            change(b, **WHO)
    registry.pin(False, **WHO)
    assert registry.promote(b, **WHO).champion == b


def test_aliases_never_name_what_is_not_there(registry, make_model):
    a = registry.add(make_model(1), **WHO).model
    for name in ("champion", "challenger", "previous"):
        with pytest.raises(ModelUnknown, match="has no model 0123456789ab; it has"):
            registry.move(registry.aliases(), **WHO, **{name: "0123456789ab"})
    with pytest.raises(ModelUnknown, match="no previous champion"):
        registry.rollback(**WHO)
    with pytest.raises(ModelUnknown, match="is no model's id"):
        registry.promote("../../etc/passwd", **WHO)
    with pytest.raises(ValueError, match="say why"):
        registry.promote(a, reason="", by="me")
    assert registry.aliases().version == 0


def test_a_model_of_another_question_takes_nobodys_place(registry, make_model):
    a = registry.add(make_model(1), **WHO).model
    registry.promote(a, **WHO)
    other = registry.add(make_model(2, targets=("b",)), **WHO).model
    for change in (registry.promote, registry.challenge):
        with pytest.raises(Mismatch, match=r"targets: the champion has 'a', 'b' \(2\), the other 'b' \(1\)"):
            change(other, **WHO)
    assert registry.challenge(registry.add(make_model(3, hidden=16, layers=2), **WHO).model, **WHO).champion == a


def test_ids_may_be_shortened_and_aliases_named(registry, make_model):
    a = registry.add(make_model(1), **WHO).model
    registry.promote(a, **WHO)
    assert registry.resolve(a[:4]) == registry.resolve("champion") == registry.resolve(a) == a
    for name in (a[:3], "ffff", "x"):
        with pytest.raises(ModelUnknown):
            registry.resolve(name)


def test_verdicts_are_kept_beside_the_card(registry, make_model):
    a = registry.add(make_model(1), **WHO).model
    registry.add_verdict(a, {"verdict": "undecided", "readings": 100, "p": float("inf")})
    registry.add_verdict(a, {"verdict": "rejected", "readings": 900, "p": 0.6})
    told = [{name: value for name, value in one.items() if name != "at_ms"} for one in registry.verdicts(a)]
    assert told == [{"verdict": "undecided", "readings": 100, "p": None},
                    {"verdict": "rejected", "readings": 900, "p": 0.6}]  # fmt: skip
    assert registry.models()[0].verdict == "rejected" and registry.card(a).model == a
    with pytest.raises(ValueError, match="promoted, rejected"):
        registry.add_verdict(a, {"verdict": "perhaps"})
    with pytest.raises(ModelUnknown):
        registry.add_verdict("0" * 12, {"verdict": "rejected"})


# ---- garbage --------------------------------------------------------------------------------------------------------

DAY_S = 86_400.0


def test_only_what_nobody_needs_is_collected(registry, make_model, clock):
    parent = registry.add(make_model(1), **WHO).model
    champion = registry.add(make_model(2, parent=parent), **WHO).model
    old, kept, challenger, previous = (registry.add(make_model(seed), **WHO).model for seed in (3, 4, 5, 6))
    registry.add_verdict(old, {"verdict": "rejected"})
    registry.promote(previous, **WHO)
    registry.promote(champion, **WHO)
    registry.challenge(challenger, **WHO)
    clock.advance(2 * DAY_S)
    young = registry.add(make_model(7), **WHO).model
    assert registry.collect([kept], older_than_s=DAY_S, dry_run=True) == [old]
    assert registry.card(old).model == old
    assert registry.collect([kept], older_than_s=DAY_S, by="gc") == [old]
    assert {one.model for one in registry.models()} == {parent, champion, kept, challenger, previous, young}
    assert registry.verdicts(old) == []
    with pytest.raises(ModelUnknown):
        registry.promote(old, **WHO)
    assert registry.history()[-2].numbers == {"models": [old]} and registry.aliases().leaving == ()
    assert registry.collect([kept], older_than_s=DAY_S) == []
    assert registry.add(make_model(3), **WHO).model == old  # and it may come again


def test_a_model_that_is_added_again_is_young_again(registry, make_model, clock):
    a = registry.add(make_model(1), **WHO).model
    clock.advance(2 * DAY_S)
    registry.add(make_model(1), **WHO)
    assert registry.collect(older_than_s=DAY_S) == []
    assert registry.card(a).model == a


def test_what_is_being_removed_is_neither_named_nor_added_until_the_claim_has_run_out(registry, make_model, clock):
    """As a collector leaves it that was killed after its claim."""
    from dataclasses import replace

    a = registry.add(make_model(1), **WHO).model
    from services.registry.aliases import Change, Changes

    claim = replace(registry.aliases(), version=1, leaving=(a,))
    assert Changes(registry._place).append(Change(clock(), "a dead one", "gc", "collecting", claim))
    with pytest.raises(ModelUnknown, match="just being removed"):
        registry.promote(a, **WHO)
    with pytest.raises(Conflict, match="just being removed"):
        registry.add(make_model(1), **WHO)
    with pytest.raises(Conflict, match="a dead one is removing"):
        registry.collect(older_than_s=0.0)
    clock.advance(601)
    assert registry.collect(older_than_s=DAY_S) == [a]
    assert registry.add(make_model(1), **WHO).model == a and registry.promote(a, **WHO).champion == a


@pytest.mark.parametrize("moment", range(1, 8))
@pytest.mark.parametrize("what", ["promote", "add"])
def test_who_needs_a_model_while_it_is_collected_has_it_or_is_told(where, make_model, tmp_path, moment, what):
    """Somebody else promotes or adds the garbage at the collector's n-th look at its clock."""
    now_s, calls, told = [0], [0], []
    others = Registry(where, cache=tmp_path / "others", clock_ms=lambda: 1000 * now_s[0])
    champion = others.add(make_model(1), **WHO).model
    garbage = others.add(make_model(2), **WHO).model
    others.promote(champion, **WHO)
    now_s[0] = 1000

    def clock_ms() -> int:
        calls[0] += 1
        if calls[0] == moment:
            try:
                others.promote(garbage, **WHO) if what == "promote" else others.add(make_model(2), **WHO)
                told.append("done")
            except (ModelUnknown, Conflict):
                told.append("refused")
        return 1000 * now_s[0]

    gone = Registry(where, cache=tmp_path / "collector", clock_ms=clock_ms).collect(older_than_s=60.0)
    there = {one.model for one in others.models()}
    assert others.aliases().leaving == () and others.aliases().named() <= there
    assert told in (["done"], ["refused"], [])
    assert (garbage in there) == (told == ["done"] or garbage not in gone)
    for model in there:
        assert weights.load(others.folder(model))[1].model == model


# ---- places ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_other_things_is_no_registry(tmp_path: Path, make_model):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(WrongRegistry, match=r"holds cat\.png but no registry\.json"):
        Registry(tmp_path / "photos").add(make_model(1), **WHO)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]
    with pytest.raises(WrongRegistry, match="is a file"):
        Registry(tmp_path / "photos" / "cat.png")


def test_a_registry_of_another_format_is_left_alone(tmp_path: Path, make_model):
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "registry.json").write_text('{"format": 2}')
    for call in (lambda one: one.add(make_model(1), **WHO), lambda one: one.models()):
        with pytest.raises(WrongRegistry, match="format 2; this release knows 1"):
            call(Registry(tmp_path / "registry"))


def test_places_without_exclusive_writes_are_refused(tmp_path: Path):
    for url, why in (("ftp://host/models", "exclusive writes to ftp://"), ("", "is empty"),
                     ("s3://bucket/models", "pip install s3fs")):  # fmt: skip
        with pytest.raises(WrongRegistry, match=why):
            Registry(url)
    with pytest.raises(WrongRegistry) as refused:
        Registry("sftp://me:hunter2@host/models")
    assert "hunter2" not in str(refused.value)


def test_a_store_that_overwrites_what_it_should_create_is_found_out(make_model):
    """As S3 servers do that do not know If-None-Match."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Overwriting(MemoryFileSystem):
        protocol = "gs"
        store: dict = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        def pipe_file(self, path, value, mode="overwrite", **kwargs):
            return super().pipe_file(path, value, mode="overwrite", **kwargs)

    fsspec.register_implementation("gs", Overwriting, clobber=True)
    try:
        registry = Registry("gs://bucket/models")
        with pytest.raises(WrongRegistry, match="overwrites objects"):
            registry.add(make_model(1), **WHO)
    finally:
        importlib.import_module("fsspec.registry")._registry.pop("gs")


def test_a_copy_that_was_made_before_does_while_the_store_is_away(make_model, tmp_path, monkeypatch):
    """So that a shard can start again."""
    from fsspec.implementations.memory import MemoryFileSystem

    where, cache = f"memory://r{secrets.token_hex(4)}", tmp_path / "cache"
    known, other = (Registry(where, cache=cache).add(make_model(seed), **WHO).model for seed in (1, 2))
    folder = Registry(where, cache=cache).folder(known)

    def away(*_: object, **__: object) -> bytes:
        raise ConnectionError("no route to the store")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", away)
    registry = Registry(where, cache=cache)
    assert registry.folder(known) == folder
    with pytest.raises(Unreachable, match="no route"):
        registry.folder(other)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(Unreachable, match="no route"):
        registry.folder(known)
