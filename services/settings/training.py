"""The file that says what to train on what: `streamrnn train --config FILE`. Read as strictly as the settings are."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.settings.problems import WrongSettings
from services.settings.sources import yaml_tree


class DataSection(BaseModel):
    """Where readings and truths stand in a table; every name is a column's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path | None = Field(None, description="CSV or Parquet, relative to this file.")
    test: Path | None = Field(None, description="Another such table, for `streamrnn backtest --config`.")
    set: str | None = Field(None, description="Instead of files: data that `streamrnn datasets` lists.")
    test_share: float = Field(0.2, gt=0, lt=1, description="With `set`: of a series the last part that only tests.")
    test_groups: tuple[str, ...] = Field((), description="With `set: watch`: recordings of these people only test.")
    time: str | None = Field(None, description="Milliseconds since 1970, or ISO 8601; none: one interval apart.")
    stream: str | None = Field(None, description="Names the stream; none: all rows are one.")
    features: tuple[str, ...] = Field((), description="Numbers that are read; `p*` is every column beginning so.")
    symbol: str | None = Field(None, description="The symbol that is read, where a row is one symbol.")
    text: str | None = Field(None, description="Symbols between blanks, where a row is a whole sequence.")
    end: str | None = Field(None, description="1 or true where a sequence ends; none: with its stream.")
    window: int = Field(0, ge=0, description="A sequence ends after so many readings at the latest; 0: when it ends.")
    truth: tuple[str, ...] = Field((), description="Numbers that are asked for, step by step where there are several.")
    label: str | None = Field(None, description="Class of a reading, or on its last row of a sequence.")
    tags: str | None = Field(None, description="With `text`: as many classes, between blanks.")
    answer: str | None = Field(None, description="Symbols between blanks that are to be said.")
    min_count: int = Field(1, ge=1, description="A symbol seen less often is not of the vocabulary.")

    @model_validator(mode="after")
    def _agree(self) -> DataSection:
        """Refuses keys of which one would be passed over."""
        given = {name for name in self.model_fields_set if getattr(self, name)}
        for key, others in _EXCLUDES.items():
            if key in given and (both := sorted(given & others)):
                raise ValueError(f"{key} and {both[0]} do not go together: leave one of them out")
        for key, needed in _NEEDS.items():
            if key in given and needed not in given:
                raise ValueError(f"{key} means something beside {needed} only: leave it out, or name {needed}")
        return self


_EXCLUDES = {
    "set": {"file", "test"},
    "text": {"symbol", "features", "time", "end"},
    "symbol": {"features"},
    "label": {"tags", "answer", "truth"},
    "tags": {"answer", "truth"},
    "answer": {"truth"},
}
_NEEDS = {"tags": "text", "test_share": "set", "test_groups": "set"}


class TrainingFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: dict[str, Any] = Field(default_factory=dict, description="Fields of rnn.config.ModelConfig.")
    data: DataSection = Field(default_factory=lambda: DataSection())
    recipe: dict[str, Any] = Field(default_factory=dict, description="Fields of rnn.train.practice.Practice.")
    out: Path | None = Field(None, description="Folder of the model, relative to this file.")


def training_file(path: Path) -> TrainingFile:
    """What the file says, its paths made relative to where it stands. Raises WrongSettings, naming key and file."""
    tree = yaml_tree(path)
    for section, known in (((), TrainingFile), (("data",), DataSection)):
        given = tree
        for key in section:
            given = given.get(key) or {}
        if not isinstance(given, dict):
            raise WrongSettings([f"{'.'.join(section)}: wants keys and values ({path})"])
        for key in given:
            if key not in known.model_fields:
                near = difflib.get_close_matches(str(key), known.model_fields, 1, 0.0)[0]
                raise WrongSettings(
                    [f"{'.'.join((*section, str(key)))}: no such key; the nearest is {near!r} ({path})"]
                )
    try:
        read = TrainingFile.model_validate({key: value for key, value in tree.items() if value is not None})
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')} ({path})"
            for one in error.errors()
        ]
        raise WrongSettings(problems) from None
    base = path.parent
    data = read.data.model_copy(
        update={name: base / value for name in ("file", "test") if (value := getattr(read.data, name)) is not None}
    )
    return read.model_copy(update={"data": data, "out": None if read.out is None else base / read.out})
