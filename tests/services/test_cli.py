"""The command `streamrnn` as it is called: help that teaches, exit codes, one line for what went wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

HEAVY = ("torch", "ray", "kafka", "pyarrow", "numpy", "pandas", "matplotlib", "yaml", "structlog")


def run(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMRNN__")}
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *args],
        capture_output=True,
        text=True,
        env=clean | (env or {}),
    )


def test_help_lists_the_commands_with_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("serve", "topics", "config", "streamrnn topics create --config", "STREAMRNN__SECTION__KEY"):
        assert word in done.stdout


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["config", "--help"]])
def test_help_and_version_import_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['streamrnn', *sys.argv[1:]]\n"
        "from services.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_every_listed_command_has_help_of_its_own() -> None:
    listed = run("--help").stdout.partition("Commands:")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    assert "config" in names
    for name in names:
        done = run(name, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Usage: ")


def test_version() -> None:
    assert run("--version").stdout.split()[0] == "streamrnn"


@pytest.mark.parametrize(
    "args", [["confg"], ["config", "shw"], ["config", "show", "--confg", "x"], ["config", "show", "--config"]]
)
def test_wrong_usage_is_exit_code_2_with_a_hint_and_no_traceback(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


def test_show_prints_yaml_with_sources_and_masks_secrets(tmp_path) -> None:
    config = tmp_path / "streamrnn.yaml"
    config.write_text("pipeline: pumps\nkafka: {sasl_plain_password: hunter2}\n")
    done = run("config", "show", "-c", str(config), "--set", "fleet.shards=3", env={"STREAMRNN__LOG__LEVEL": "debug"})
    assert done.returncode == 0, done.stderr
    tree = yaml.safe_load(done.stdout)
    assert (tree["pipeline"], tree["fleet"]["shards"], tree["log"]["level"]) == ("pumps", 3, "debug")
    assert tree["kafka"]["sasl_plain_password"] == "***"
    assert "hunter2" not in done.stdout
    assert [line.rsplit("# ")[-1] for line in done.stdout.splitlines() if line.strip().startswith("shards:")] == [
        "flag"
    ]


def test_validate_is_0_when_right_and_2_with_a_line_for_each_problem(tmp_path) -> None:
    config = tmp_path / "streamrnn.yaml"
    config.write_text("pipeline: pumps\n")
    done = run("config", "validate", "--config", str(config))
    assert (done.returncode, done.stdout) == (0, f"{config}: right\n")
    config.write_text("pipelines: pumps\nepoch: {timeout_s: 0}\n")
    done = run("config", "validate", "--config", str(config))
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(line.startswith("streamrnn: ") for line in done.stderr.splitlines())
    assert sorted(line.split()[1] for line in done.stderr.splitlines()) == ["epoch.timeout_s:", "pipelines:"]


def test_schema_is_json() -> None:
    import json

    assert json.loads(run("config", "schema").stdout)["title"] == "streamrnn settings"


def test_a_reader_that_leaves_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m services.cli.main config schema | true",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr


def test_an_error_of_our_own_rooms_is_one_line_and_any_other_keeps_its_traceback() -> None:
    code = """
import sys
from services.cli import main
from services.predictor.ports import Refused
def broken():
    raise {error}
main.app = broken
main.main()
"""
    known = subprocess.run(
        [sys.executable, "-c", code.format(error="Refused('topics: too few')")], capture_output=True, text=True
    )
    assert (known.returncode, known.stderr) == (1, "streamrnn: topics: too few\n")
    other = subprocess.run(
        [sys.executable, "-c", code.format(error="ZeroDivisionError")], capture_output=True, text=True
    )
    assert "Traceback" in other.stderr
