"""A model on disk: a folder with `model.safetensors` and its card, `card.json`.

Saving leaves a whole model or none; loading believes nothing that it has not checked, and never unpickles. The only
module that imports safetensors; of ours it knows cards and networks, and nothing of services.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rnn.io.card import CARD, CARD_BYTES, Card, DataRange, ModelRefused, TrainingSource, card_text, read_card
from rnn.io.memory import free_bytes, size
from rnn.nn.network import Network

__all__ = ["CARD", "WEIGHTS", "Card", "DataRange", "ModelNotSaved", "ModelRefused", "TrainingSource", "check_size",
           "load", "prepare_output_dir", "read_card", "read_tensors", "save", "skeleton", "write_tensors"]  # fmt: skip

WEIGHTS = "model.safetensors"
_AGAIN = "Save or train the model again with this release."


class ModelNotSaved(Exception):
    """The model could not be written; nothing of it is left. The message names the folder and what to do."""


def prepare_output_dir(folder: Path) -> Path:
    """The absolute path of `folder`, where a model can be saved; creates the folders above it.

    Raises ModelNotSaved for a file, a mount point, a folder that holds other things than a model (saving replaces it
    whole), and where no folder can be made beside it.
    """
    place = Path(os.path.realpath(folder))
    try:
        if place.exists() and not place.is_dir():
            raise ModelNotSaved(f"{place} is a file. Name a folder for the model.")
        if os.path.ismount(place):
            raise ModelNotSaved(f"{place} is a mount point, which saving cannot replace. Name a folder in it.")
        if place.is_dir() and any(place.iterdir()) and not (place / CARD).is_file():
            raise ModelNotSaved(
                f"{place} holds files but no {CARD}: saving a model there would delete them. "
                "Name a new or an empty folder."
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent)).rmdir()
    except OSError as error:
        raise ModelNotSaved(
            f"{place} cannot be written: {error.strerror or error}. Name a folder that can be written."
        ) from error
    return place


def save(
    folder: Path,
    network: Network,
    *,
    created_ms: int,
    data: DataRange | None = None,
    parent: str | None = None,
    scores: Mapping[str, float] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Card:
    """Writes the model into `folder`, whole or not at all, and returns its card.

    Both files are written into a folder beside it and flushed to the disk before that one is renamed. Of a model that
    was in `folder` before nothing remains. Equal weights give equal bytes of `model.safetensors`, hence one id.
    Raises ModelNotSaved (disk full, and as `prepare_output_dir`), and ValueError for weights that are not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} is not finite: this network must not be saved as a model")
    weights = safetensors.torch.save(tensors)  # no metadata: its order would vary from run to run
    sha256 = hashlib.sha256(weights).hexdigest()
    shapes = {name: tuple(tensor.shape) for name, tensor in sorted(tensors.items())}
    told = (dict(scores or {}), shapes, dict(recipe or {}))
    card = Card(sha256[:12], sha256, network.config, created_ms, data, parent, *told)
    folder = prepare_output_dir(folder)
    try:
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(fresh / WEIGHTS, weights)
            _write(fresh / CARD, card_text(card).encode())
            fresh.chmod(0o755)
            _flush(fresh)
            _put_in_place(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise ModelNotSaved(
            f"The model of {len(weights)} bytes could not be written to {folder}: {error.strerror or error}. "
            f"Free some space, or name a folder that can be written."
        ) from error
    return card


def load(folder: Path) -> tuple[Network, Card]:
    """The network, in evaluation mode on the CPU, and its card.

    Raises ModelRefused unless the card is one of this format, the file has the card's sha256, its tensors are exactly
    those of the card's config (names, shapes, float32) and every number is finite; and, before a byte of it is read,
    where it would not find room in memory.
    """
    folder = Path(folder)
    card = read_card(folder)
    network = skeleton(card)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    path = folder / WEIGHTS
    try:
        size_bytes = path.stat().st_size
        check_size(card, size_bytes, path)
        if (free := free_bytes()) is not None and 2 * size_bytes > free:
            raise ModelRefused(
                f"model {card.model} needs {size(2 * size_bytes)} of memory to be read; {size(free)} are free on this "
                "machine or in this container. Take a smaller model, or give more memory"
            )
        weights = path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"{path} cannot be read: {error.strerror}. Copy the model's whole folder again.") from error
    found = hashlib.sha256(weights).hexdigest()
    if found != card.sha256:
        raise ModelRefused(
            f"{path} ({len(weights)} bytes) has sha256 {found}, but {CARD} beside it says {card.sha256}: the file was "
            "damaged, or belongs to another model. Copy the model's whole folder again."
        )
    try:
        tensors = safetensors.torch.load(weights)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelRefused(f"{path} is not a safetensors file ({error}). Save or train the model again.") from error
    _check(path, tensors, expected, card.shapes)
    network.load_state_dict(tensors, assign=True)
    return network.eval(), card


def skeleton(card: Card) -> Network:
    """The card's network without numbers. Raises ModelRefused where the card can be of no network."""
    if card.config.layers > max(1, len(card.shapes)):  # else it would be built, layer by layer
        raise ModelRefused(
            f"The card of {card.model} has {card.config.layers:,} layers but lists {len(card.shapes)} tensors. {_AGAIN}"
        )
    try:
        with torch.device("meta"):  # shapes only: a card that lies about sizes must not cost memory
            return Network(card.config)
    except (RuntimeError, OverflowError, TypeError) as error:  # a product of sizes beyond 64 bits
        raise ModelRefused(
            f"The card of {card.model} is of a network that no machine holds ({error}). {_AGAIN}"
        ) from error


def check_size(card: Card, size_bytes: int, path: Path | str) -> None:
    """Raises ModelRefused for a file of weights with more bytes than the card's tensors have: it is not read then."""
    most = 4 * sum(math.prod(shape) for shape in card.shapes.values()) + CARD_BYTES
    if size_bytes > most:
        raise ModelRefused(
            f"{path} has {size_bytes} bytes, but the tensors that {CARD} beside it lists have at most {most}: the file "
            "was damaged, or belongs to another model. Copy the model's whole folder again."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, such as one of a module that was not made here. Raises ModelRefused."""
    try:
        return dict(safetensors.torch.load(Path(path).read_bytes()))
    except OSError as error:
        raise ModelRefused(f"{path} cannot be read: {error.strerror or error}.") from error
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelRefused(
            f"{path} is not a safetensors file ({error}). "
            "Save the module with safetensors.torch.save_file(module.state_dict(), path)."
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file that torch users read with safetensors.torch.load_file. Raises OSError."""
    whole = safetensors.torch.save({name: one.detach().cpu().contiguous() for name, one in tensors.items()})
    _write(Path(path), whole)


def _check(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise ModelRefused(f"{path} does not hold the tensors of its config; they differ in {', '.join(odd)}. {_AGAIN}")
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if shape != expected[name] or shape != shapes.get(name):
            raise ModelRefused(
                f"{path}: {name} has shape {list(shape)}; its config asks for {list(expected[name])}, "
                f"its card says {list(shapes.get(name, ()))}. {_AGAIN}"
            )
        if tensor.dtype != torch.float32:
            raise ModelRefused(f"{path}: {name} is {tensor.dtype}, but weights are float32. {_AGAIN}")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelRefused(f"{path}: {name} holds numbers that are not finite. Train the model again.")
    for name in ("scaler_std", "target_std"):
        if name in tensors and not bool((tensors[name] > 0).all()):
            raise ModelRefused(f"{path}: {name} must be greater than zero. Train the model again.")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Renames `fresh` to `folder`. While it replaces a model a reader may find none, never a mixture."""
    try:
        fresh.rename(folder)  # also replaces an empty folder
    except OSError:
        if not folder.is_dir():
            raise
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            folder.rename(aside / "old")
            try:
                fresh.rename(folder)
            except OSError:
                (aside / "old").rename(folder)
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    _flush(folder.parent)
