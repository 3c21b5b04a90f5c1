"""A model as an MLflow model folder, for people who live there. Written without MLflow; standard library only.

    OUT/MLmodel               JSON, which is YAML: what MLflow reads first
    OUT/model/                the model's own files
    OUT/requirements.txt, python_env.yaml
    OUT/streamrnn.json        aliases and verdicts at the time of the export

`mlflow.pyfunc.load_model(OUT).predict(table)` calls `services.tables.mlflow_loader`, so streamrnn must be installed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rnn.io.card import Card
from services.registry.model_store import files_of
from services.registry.problems import Unreachable
from services.registry.registry import Registry

LOADER = "services.tables.mlflow_loader"


def export(registry: Registry, model: str, out: Path) -> Path:
    """Writes the folder, whole or not at all, and returns its path. Raises as `Registry.folder`, and Unreachable where
    `out` holds files already or cannot be written.
    """
    source, card = registry.folder(model), registry.card(model)
    out = Path(os.path.abspath(out))
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise Unreachable(f"{out} is there already. Name a new or an empty folder.")
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            (fresh / "model").mkdir()
            for name, path in files_of(source).items():
                shutil.copyfile(path, fresh / "model" / name)
            beside = {
                "aliases": asdict(registry.aliases()),
                "verdicts": [dict(one) for one in registry.verdicts(model)],
            }
            for name, tree in (
                ("MLmodel", _mlmodel(card)),
                ("python_env.yaml", {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}),
                ("streamrnn.json", beside),
            ):
                (fresh / name).write_text(json.dumps(tree, indent=2) + "\n")
            (fresh / "requirements.txt").write_text("".join(f"{need}\n" for need in _requirements()))
            fresh.chmod(0o755)
            fresh.rename(out)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise Unreachable(f"{out} cannot be written: {error.strerror or error}.") from error
    return out


def _mlmodel(card: Card) -> Mapping[str, Any]:
    made = datetime.fromtimestamp(card.created_ms / 1000, UTC)
    flavor = {
        "loader_module": LOADER,
        "data": "model",
        "python_version": platform.python_version(),
        "env": {"virtualenv": "python_env.yaml"},
    }
    return {
        "flavors": {"python_function": flavor},
        "model_uuid": card.sha256[:32],
        "utc_time_created": made.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "signature": {"inputs": json.dumps(_inputs(card)), "outputs": None, "params": None},
        "metadata": {
            "model": card.model, "sha256": card.sha256, "parent": card.parent,
            "fingerprint": card.config.fingerprint(), "scores": dict(card.scores),
        },
    }  # fmt: skip


def _inputs(card: Card) -> Sequence[Mapping[str, Any]]:
    config = card.config
    read = [("symbol", "string")] if config.symbolic else [(name, "double") for name in config.features]
    columns = [{"name": name, "type": kind, "required": True} for name, kind in read]
    taken = {name for name, _ in read}
    for name, kind in (("stream", "string"), ("at", "long"), ("end", "long")):
        if name not in taken:
            columns.append({"name": name, "type": kind, "required": False})
    return columns


def _requirements() -> list[str]:
    needs = []
    for name in ("streamrnn", "torch", "numpy", "pandas"):
        try:
            needs.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            needs.append(name)
    return needs
