"""rnn.io.weights: a model comes back as it was saved, and what was done to its folder is refused in words that help."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network

CONFIG = ModelConfig(features=("a", "b", "c"), targets=("b",), hidden=8, layers=2, interval_s=60.0)
DATA = weights.DataRange(from_ms=1_000, to_ms=9_000, rows=9, digest="ab" * 32)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(7)
    return Network(CONFIG)


@pytest.fixture
def folder(tmp_path: Path, network: Network) -> Path:
    weights.save(tmp_path / "model", network, created_ms=5, data=DATA, parent="0" * 12, scores={"mse": 0.25})
    return tmp_path / "model"


def edit_card(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / weights.CARD).read_text())
    change(card)
    (folder / weights.CARD).write_text(json.dumps(card))


def replace_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors under a card that vouches for their digest: what a careless or hostile writer would leave."""
    content = safetensors.torch.save(tensors)
    (folder / weights.WEIGHTS).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edit_card(folder, lambda card: card.update(sha256=sha256, model=sha256[:12]))


def refusal(folder: Path) -> str:
    with pytest.raises(weights.ModelRefused) as refused:
        weights.load(folder)
    text = str(refused.value)
    assert str(folder) in text and text.endswith(".")
    return text


def test_a_model_comes_back_as_it_was_saved(folder: Path, network: Network):
    loaded, card = weights.load(folder)
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert card.config == CONFIG and card.data == DATA and card.parent == "0" * 12
    assert card.scores == {"mse": 0.25} and card.created_ms == 5
    assert card.sha256 == hashlib.sha256((folder / weights.WEIGHTS).read_bytes()).hexdigest()
    assert card.model == card.sha256[:12]
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing half made beside it


def test_equal_weights_give_equal_bytes_and_one_id(folder: Path, network: Network, tmp_path: Path):
    other = Network(CONFIG)
    other.load_state_dict(dict(reversed(network.state_dict().items())))
    card = weights.save(tmp_path / "deep" / "again", other, created_ms=6)
    assert (tmp_path / "deep" / "again" / weights.WEIGHTS).read_bytes() == (folder / weights.WEIGHTS).read_bytes()
    assert card.model == weights.load(folder)[1].model


def test_saving_over_a_model_leaves_only_the_new_one(folder: Path):
    new = Network(CONFIG)
    card = weights.save(folder, new, created_ms=9)
    assert weights.load(folder)[1] == card
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, network: Network):
    network.head.linear.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        weights.save(tmp_path / "model", network, created_ms=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, network: Network):
    (tmp_path / "file").write_text("")
    with pytest.raises(weights.ModelNotSaved, match="file/model"):
        weights.save(tmp_path / "file" / "model", network, created_ms=0)


@pytest.mark.parametrize("place", [".", "full", "file", "/", "/proc/x"])
def test_a_place_that_saving_would_ruin_or_cannot_write_is_refused_and_left(
    place: str, tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "readings.csv").write_text("of years")
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path / "full" if place == "." else tmp_path)
    for refuse in (weights.prepare_output_dir, lambda folder: weights.save(folder, network, created_ms=0)):
        with pytest.raises(weights.ModelNotSaved) as refused:
            refuse(Path(place))
        assert str(Path(place).resolve()) in str(refused.value) and "Name a" in str(refused.value)
        assert "Errno" not in str(refused.value)
    assert (tmp_path / "full" / "readings.csv").read_text() == "of years"
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "readings.csv"]


def test_a_model_is_saved_in_an_empty_folder_and_where_a_link_points(
    tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "empty")
    first = weights.save(Path(), network, created_ms=0)
    assert weights.load(tmp_path / "empty")[1] == first
    second = weights.save(tmp_path / "link", Network(CONFIG), created_ms=1)
    assert weights.load(tmp_path / "empty")[1] == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from rnn.io import weights
from rnn.config import ModelConfig
from rnn.nn.network import Network
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the kernel refuses every byte of a file after these
try:
    weights.save(Path(sys.argv[1]), Network(ModelConfig(features=("a",), hidden=64)), created_ms=0)
except weights.ModelNotSaved as error:
    sys.stdout.write(str(error))
"""


def test_a_disk_that_takes_no_more_keeps_the_old_model_and_no_half_one(folder: Path):
    before = weights.load(folder)[1]
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True, check=True)
    assert str(folder) in done.stdout and "Free some space" in done.stdout
    assert weights.load(folder)[1] == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("where", [0, 8, 100, -1])
def test_a_flipped_bit_is_refused(folder: Path, where: int):
    content = bytearray((folder / weights.WEIGHTS).read_bytes())
    content[where] ^= 1
    (folder / weights.WEIGHTS).write_bytes(content)
    assert "sha256" in refusal(folder)


def test_a_truncated_file_is_refused(folder: Path):
    content = (folder / weights.WEIGHTS).read_bytes()
    (folder / weights.WEIGHTS).write_bytes(content[: len(content) // 2])
    assert f"({len(content) // 2} bytes)" in refusal(folder)


def test_a_card_of_another_model_is_refused(folder: Path, tmp_path: Path):
    weights.save(tmp_path / "other", Network(CONFIG), created_ms=0)
    (folder / weights.CARD).write_bytes((tmp_path / "other" / weights.CARD).read_bytes())
    assert "another model" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "card.json"])
def test_a_missing_file_is_refused(folder: Path, name: str):
    (folder / name).unlink()
    assert name in refusal(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "none")


def test_a_wrong_shape_is_refused(folder: Path, network: Network):
    replace_weights(folder, {**network.state_dict(), "scaler_mean": torch.zeros(4)})
    assert "scaler_mean has shape [4]; its config asks for [3]" in refusal(folder)


def test_numbers_that_are_not_finite_are_refused(folder: Path, network: Network):
    replace_weights(folder, {**network.state_dict(), "scaler_mean": torch.full((3,), torch.inf)})
    assert "scaler_mean holds numbers that are not finite" in refusal(folder)


def test_a_scaler_that_would_divide_by_zero_is_refused(folder: Path, network: Network):
    replace_weights(folder, {**network.state_dict(), "scaler_std": torch.tensor([1.0, 0.0, 1.0])})
    assert "greater than zero" in refusal(folder)


def test_another_number_type_is_refused(folder: Path, network: Network):
    replace_weights(folder, {**network.state_dict(), "scaler_mean": torch.zeros(3, dtype=torch.float64)})
    assert "float32" in refusal(folder)


def test_missing_and_unknown_tensors_are_refused(folder: Path, network: Network):
    tensors = network.state_dict()
    tensors["spare"] = tensors.pop("scaler_std")
    replace_weights(folder, tensors)
    assert "differ in scaler_std, spare" in refusal(folder)


def test_a_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"scaler_mean": Trap()}, folder / weights.WEIGHTS)
    sha256 = hashlib.sha256((folder / weights.WEIGHTS).read_bytes()).hexdigest()
    edit_card(folder, lambda card: card.update(sha256=sha256, model=sha256[:12]))
    assert "not a safetensors file" in refusal(folder)
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_config_key_is_refused_with_the_nearest_known_one(folder: Path):
    edit_card(folder, lambda card: card["config"].update(hiden=8))
    text = refusal(folder)
    assert "hiden" in text and "hidden" in text


def test_a_config_changed_by_hand_is_refused(folder: Path):
    edit_card(folder, lambda card: card["config"].update(interval_s=1.0))
    assert "fingerprint" in refusal(folder)


def test_a_config_too_large_for_memory_is_refused_not_built(folder: Path):
    huge = ModelConfig(features=CONFIG.features, targets=CONFIG.targets, hidden=10**8, layers=2, interval_s=60.0)
    edit_card(folder, lambda card: card.update(config=json.loads(huge.to_json()), fingerprint=huge.fingerprint()))
    assert "has shape" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\ufeff{}", "[" * 100_000, '{"format": 1}', '{"format": 99}', "\x00" * 10]
)
def test_what_is_not_a_card_is_refused(folder: Path, text: str):
    (folder / weights.CARD).write_text(text)
    assert "card" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "x"), ("sha256", 5), ("created_ms", "now"), ("scores", [1]), ("config", 3), ("data", {}), ("shapes", 1)],
)
def test_a_card_field_of_the_wrong_kind_is_refused(folder: Path, key: str, value: object):
    edit_card(folder, lambda card: card.update({key: value}))
    assert "card" in refusal(folder)
