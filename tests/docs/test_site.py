"""The documents as a site: it builds, every page is reached, and what is wrong with a page is said."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from services.codecs.contract import PredictionV1
from services.settings import load
from services.settings.training import training_file
from services.tables.sets import material_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_builder", ROOT / "docs" / "site" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with warnings as errors; links, anchors and what it loads were looked at."""
    to: Path = tmp_path_factory.mktemp("built") / "site"
    assert builder.build(to) > 80
    return to


def test_it_has_what_people_look_for(site: Path) -> None:
    for page, words in {
        "quickstart.html": "streamrnn broker start",
        "lecture.html": "The lecture",
        "configuration.html": "epoch.max_readings",
        "commands.html": "streamrnn models promote",
        "metrics.html": "streamrnn_end_to_end_latency_seconds",
        "wire.html": "wrong_schema",
        "runbooks/StreamrnnLag.html": "Remedy",
        "examples/power.html": "streamrnn train",
        "source/rnn/nn/cells/lstm.py.html": "class",
    }.items():
        assert words in (site / page).read_text(), page


def test_its_search_knows_the_settings(site: Path) -> None:
    assert "max_readings" in (site / "search.json").read_text()


def test_a_link_that_leads_nowhere_is_named(builder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#not">2</a><a href="c.html">3</a><a href="https://example.org">4</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1><script src="https://example.org/x.js"></script>')
    assert builder.problems(tmp_path) == [
        "a.html: b.html#not names no place on that page",
        "a.html: c.html leads nowhere",
        "b.html: https://example.org/x.js is fetched from elsewhere",
    ]


def test_a_page_that_nobody_reaches_is_named(builder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "known.md").write_text("# Known\n")
    (tmp_path / "lost.md").write_text("# Lost\n")
    said = builder.unreachable([{"Start": ["known.md", "gone.md"]}], tmp_path)
    assert said == [
        "lost.md: not in the navigation of docs/site/zensical.toml",
        "docs/site/zensical.toml: there is no page gone.md",
    ]


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the quickstart's page shows, its Python run."""
    text = (ROOT / "docs" / "quickstart.md").read_text()
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "yaml":
            name = block.removeprefix("# ").partition(":")[0]
            Path(name).write_text(block.replace("PORT", "9092"))
        elif language == "python":
            exec(compile(block, "quickstart.md", "exec"), {})
    return tmp_path


def test_the_quickstart_s_files_are_what_train_and_serve_read(quickstart: Path) -> None:
    file = training_file(quickstart / "pumps.yaml")
    learned = material_of(file.data, file.model)
    assert (learned.config.features, learned.config.targets) == (("flow", "level"), ("flow", "level"))
    assert sum(map(len, material_of(file.data, file.model, test=True).rows)) == 1000
    settings = load(quickstart / "streamrnn.yaml")
    assert settings.model == quickstart / file.out
    assert settings.telemetry.spotlight == ("pump-1", "pump-2")


def test_the_quickstart_s_prediction_is_one(quickstart: Path) -> None:
    (block,) = re.findall(
        r"^```json\n(.*?)^```", (ROOT / "docs" / "quickstart.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert PredictionV1.model_validate_json(block).stream == "pump-2"
