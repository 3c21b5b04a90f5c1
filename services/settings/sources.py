"""Reads settings from a file, the environment and flags, later ones winning, and remembers who said what."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from services.redaction import is_secret, remember
from services.settings import problems
from services.settings.problems import FREE, WrongSettings, leaves, unknown
from services.settings.tree import ENV_PREFIX, Settings

Tree = dict[str, Any]

LONG_ENOUGH = 12
"""Letters of an environment variable that is a secret by its name, and by no name of ours: `true` is none."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for every value that is not a default the place where it was given."""

    settings: Settings
    sources: Mapping[tuple[str, ...], str] = field(default_factory=dict)  # path -> file, env or flag
    file: Path | None = None


def load(config: Path | str | None = None, flags: Sequence[str] = ()) -> Settings:
    """The settings alone; see `read`."""
    return read(config, flags).settings


def read(config: Path | str | None = None, flags: Sequence[str] = ()) -> Loaded:
    """Defaults, then the YAML file `config`, then `STREAMRNN__SECTION__KEY` variables, then `section.key=value` flags.

    Raises WrongSettings, which names every unknown key with its nearest known one and every wrong value with what was
    expected.
    """
    config = None if config is None else Path(config)
    layers = {"file": _file(config) if config else {}, "env": _environment(), "flag": _flags(flags)}
    where = {"file": f"file {config}", "env": "environment", "flag": "--set"}
    merged: Tree = {}
    sources: dict[tuple[str, ...], str] = {}
    for source, layer in layers.items():
        _merge(merged, layer)
        for path in _paths(layer):
            sources = {old: said for old, said in sources.items() if old[: len(path)] != path} | {path: source}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        origin_of = {path: _named(path, source, where) for path, source in sources.items()}
        wrong = problems.explained(error, merged, origin_of)
    else:
        if not (wrong := _refused_by_kafka(settings)):
            others = (value for name, value in os.environ.items() if is_secret(name) and len(value) >= LONG_ENOUGH)
            remember((*settings.secrets(), *others))  # such as those of an object store
            return Loaded(settings, sources, config)
    raise WrongSettings(wrong)  # outside of the handler, so that no chained exception carries a value


def _refused_by_kafka(settings: Settings) -> list[str]:
    """The keys of `kafka` are the adapters' to judge; their rules need no client library."""
    from services.brokers import kafka_options

    try:
        kafka_options.check(settings.kafka)
    except ValueError as error:
        return [str(error)]
    return []


def _named(path: tuple[str, ...], source: str, where: Mapping[str, str]) -> str:
    return f"{ENV_PREFIX}{'__'.join(path).upper()}" if source == "env" else where[source]


def _merge(into: Tree, layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key] = {**into[key], **value}
        else:
            into[key] = value


def _paths(layer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in layer.items():
        found += [(key, str(inner)) for inner in value] if isinstance(value, dict) and value else [(key,)]
    return found


# ---- file -----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML without silent loss: a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise _Twice(f"line {key_node.start_mark.line + 1}: a key is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Twice(Exception):
    """A key is given twice; the message names the line."""


def _file(path: Path) -> Tree:
    return _tree(_content(path), path)


def yaml_tree(path: Path) -> Tree:
    """Keys and values of another YAML file than the settings', read as strictly. Raises WrongSettings."""
    content = _content(path)
    if not isinstance(content, dict):
        raise WrongSettings([f"{path}: must hold keys and values"])
    return {str(key): value for key, value in content.items()}


def _content(path: Path) -> Any:
    try:
        content = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506  _Loader is a SafeLoader
    except OSError as error:
        wrong = f"--config {path}: cannot be read ({error.strerror}); name a YAML file"
    except UnicodeDecodeError:
        wrong = f"--config {path}: is not UTF-8 text"
    except _Twice as error:
        wrong = f"{path}, {error}; keep one of them"
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        wrong = (  # the parser's own words may quote the file, so they are not repeated
            f"{path}{place}: is not valid YAML; look for a tab, wrong indentation, a missing quote, "
            "or a value that begins with * & ! % @ and is not in quotes"
        )
    else:
        return content
    raise WrongSettings([wrong])


def _tree(content: Any, path: Path) -> Tree:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise WrongSettings([f"{path}: must hold keys and values, such as `pipeline: sensors`"])
    sections = {leaf[0] for leaf in leaves() if len(leaf) > 1} | {FREE}
    tree = {str(key): value for key, value in content.items() if value is not None or key not in sections}
    for key in sections & tree.keys():
        if isinstance(tree[key], dict):
            tree[key] = {str(inner): value for inner, value in tree[key].items()}
    if isinstance(model := tree.get("model"), str) and not model.startswith("~"):
        tree["model"] = str(path.parent / model)
    if isinstance(retrain := tree.get("retrain"), dict) and isinstance(runs := retrain.get("runs"), str):
        tree["retrain"] = {**retrain, "runs": str(path.parent / Path(runs).expanduser())}
    if isinstance(registry := tree.get("registry"), str) and "://" not in registry and not registry.startswith("~"):
        tree["registry"] = str(path.parent / registry)
    return tree


# ---- environment ----------------------------------------------------------------------------------------------------


def _environment() -> Tree:
    tree, names = leaves(), [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]
    wrong = []
    for name in sorted(names):
        path = tuple(name[len(ENV_PREFIX) :].lower().split("__"))
        section = any(known[: len(path)] == path for known in tree)
        if not section and path not in tree and not (path[0] == FREE and len(path) == 2):
            wrong.append(unknown(path, name))
    if wrong:
        raise WrongSettings(wrong)
    try:
        given: Tree = EnvSettingsSource(Settings, case_sensitive=False)()
    except SettingsError:
        pass  # its text and cause may hold values
    else:
        if isinstance(free := given.get(FREE), dict):
            given[FREE] = {key: _parsed(key, value) for key, value in free.items()}
        return given
    whole = [
        name for name in names if (name[len(ENV_PREFIX) :].lower(),) not in tree or name.lower().endswith(f"__{FREE}")
    ]
    raise WrongSettings(
        [f"{name}: a whole section must be given as a JSON object; or set {name}__KEY" for name in sorted(whole)]
    )


# ---- flags ----------------------------------------------------------------------------------------------------------


def _flags(flags: Sequence[str]) -> Tree:
    tree: Tree = {}
    for number, flag in enumerate(flags, 1):
        name, equals, text = flag.partition("=")
        path = tuple(name.strip().split("."))
        if not equals or not all(path):
            raise WrongSettings(
                [f"--set number {number}: write section.key=value, for example --set epoch.max_readings=5000"]
            )
        if len(path) > 2:
            raise WrongSettings([unknown(path, "--set")])
        value = _parsed(path[-1], text) if path[0] == FREE else (None if text == "null" else text)
        _merge(tree, {path[0]: value} if len(path) == 1 else {path[0]: {path[1]: value}})
    return tree


def _parsed(key: str, text: Any) -> Any:
    """A kafka-python value out of text: numbers, true, false, null and lists are meant as such. Secrets stay text."""
    if not isinstance(text, str) or is_secret(key):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
