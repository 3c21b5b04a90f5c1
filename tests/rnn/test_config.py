"""A model's config travels as JSON and says clearly what is wrong with one."""

from __future__ import annotations

import json

import pytest

from rnn.config import ModelConfig


def test_json_round_trip_keeps_everything() -> None:
    config = ModelConfig(("a", "b"), ("b",), cell="gru", hidden=7, layers=3, head="point", band=0.5, interval_s=60)
    assert ModelConfig.from_json(config.to_json()) == config
    assert ModelConfig.from_json(config.to_json().encode()) == config


def test_all_features_are_targets_unless_said_otherwise() -> None:
    config = ModelConfig(("a", "b", "c"))
    assert config.targets == ("a", "b", "c")
    assert ModelConfig(("a", "b", "c"), ("c", "a")).target_index == (2, 0)


def test_fingerprint_tells_configs_apart_and_equal_ones_not() -> None:
    one = ModelConfig(("a", "b"), interval_s=60)
    assert one.fingerprint() == ModelConfig.from_json(one.to_json()).fingerprint()
    assert one.fingerprint() == ModelConfig(("a", "b"), ("a", "b"), interval_s=60.0).fingerprint()
    others = [
        ModelConfig(("b", "a"), interval_s=60),
        ModelConfig(("a", "b"), interval_s=60, hidden=65),
        ModelConfig(("a", "b"), interval_s=60, cell="gru"),
        ModelConfig(("a", "b"), interval_s=61),
    ]
    assert len({config.fingerprint() for config in (one, *others)}) == 5


def test_unknown_key_is_named_with_the_nearest_known_one() -> None:
    tree = json.loads(ModelConfig(("a",)).to_json())
    tree["hiden"] = 3
    with pytest.raises(ValueError, match=r"'hiden'.*'hidden'"):
        ModelConfig.from_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"features": ()}, "features"),
        ({"features": ("a", "a")}, "features"),
        ({"features": ("a", "")}, "features"),
        ({"targets": ("z",)}, "'z' is not a feature"),
        ({"cell": "ltsm"}, r"cell: 'ltsm'.*'lstm'"),
        ({"head": "gauss"}, r"head: .*'gaussian'"),
        ({"hidden": 0}, "hidden"),
        ({"hidden": 2.5}, "hidden"),
        ({"layers": 0}, "layers"),
        ({"band": 1.0}, "band"),
        ({"band": "wide"}, "band"),
        ({"interval_s": 0}, "interval_s"),
        ({"interval_s": float("nan")}, "interval_s"),
        ({"scaler_memory": -1}, "scaler_memory"),
    ],
)
def test_a_config_no_network_can_have_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ModelConfig(**{"features": ("a", "b"), **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "object"),
        ("{}", "features: missing"),
        ('{"features": "abc"}', "list of names"),
        ("not json", "Expecting"),
    ],
)
def test_json_that_is_no_config_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig.from_json(text)
