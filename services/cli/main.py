"""The command `streamrnn`: its sub-commands, and what a person sees when one fails.

Imports typer only. A sub-command's module is imported when that sub-command is called, not for the list of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
import warnings
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True, slots=True)
class Mounted:
    """Where a sub-command lives: `package.module:name` of a Typer application or of a function."""

    where: str
    help: str


MOUNTED = {
    "demo": Mounted("services.cli.demo.run:demo", "Real readings through real Kafka, with a kill -9 on the way."),
    "demo-retrain": Mounted(
        "services.cli.demo.retrain:demo_retrain", "A sensor changes its unit; a model that was retrained takes over."
    ),
    "serve": Mounted("services.cli.serve:serve", "Serve one pipeline until SIGTERM or Ctrl-C."),
    "train": Mounted("services.cli.train:train", "Train a model on a CSV file of the past."),
    "backtest": Mounted(
        "services.cli.backtest:backtest", "Train on the first part of a series, run the last one online."
    ),
    "predict": Mounted("services.cli.predict:predict", "Predict a file offline, with the engine that serves."),
    "replay": Mounted("services.cli.replay:replay", "Write a table to Kafka as its sensors would, watch the answers."),
    "probe": Mounted("services.cli.probe:probe", "Send one reading through a served pipeline, wait for its answer."),
    "retrain": Mounted("services.cli.retrain:retrain", "Train a challenger from the readings topic, once."),
    "doctor": Mounted("services.cli.doctor:doctor", "Look at all that serving needs, and say how to mend it."),
    "models": Mounted("services.cli.models:app", "Models that were published, and which one serves."),
    "datasets": Mounted("services.cli.datasets:app", "Real data to try things on."),
    "import": Mounted("services.cli.exchange:import_model", "Make a model of weights that were trained in torch."),
    "export": Mounted("services.cli.exchange:export_model", "Write a model for ONNX runtimes, or for torch."),
    "archive": Mounted("services.cli.archive:app", "Keep a topic's records in Parquet files, each exactly once."),
    "topics": Mounted("services.cli.topics:app", "Create or check a pipeline's four topics."),
    "asyncapi": Mounted("services.cli.asyncapi:asyncapi", "Print the topics as an AsyncAPI document."),
    "config": Mounted("services.cli.config:app", "Show, explain or validate the settings."),
    "broker": Mounted("services.cli.broker:app", "Start or stop an Apache Kafka for development."),
}


class _Lazy(TyperGroup):
    """Lists sub-commands from `MOUNTED`; imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, mounted in MOUNTED.items() if _is_there(mounted)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        mounted = MOUNTED.get(cmd_name)
        return TyperCommand(cmd_name, help=mounted.help) if mounted and _is_there(mounted) else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {name: TyperCommand(name) for name in self.list_commands(ctx)}  # what "did you mean" looks at
        name, _, rest = super().resolve_command(ctx, args)
        return name, _imported(MOUNTED[str(name)]), rest


def _is_there(mounted: Mounted) -> bool:
    return importlib.util.find_spec(mounted.where.partition(":")[0]) is not None


def _imported(mounted: Mounted) -> Any:
    module, _, name = mounted.where.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command()(found)
        found = alone
    found.pretty_exceptions_enable, found.rich_markup_mode, found._add_completion = False, None, False
    return typer.main.get_command(found)


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: half the start-up time, and examples that can be copied
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
See it work on this machine:
  streamrnn demo
\b
Serve your own topic:
  streamrnn config show --config streamrnn.yaml      what is set, and where
  streamrnn topics create --config streamrnn.yaml    the four topics
  streamrnn serve --config streamrnn.yaml            until SIGTERM or Ctrl-C
\b
A setting is given in the file, as STREAMRNN__SECTION__KEY=value, or as
--set section.key=value; the last of these wins.
""",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"streamrnn {version('streamrnn')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Recurrent networks over live sensor streams: Kafka in, predictions out, each exactly once."""


def main() -> None:
    """Entry point. An error that we foresaw is one line on standard error; any other keeps its traceback."""
    warnings.showwarning = _show_warning
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:
        from services.redaction import scrubbed

        if not _foreseen(error):
            sys.stderr.write(scrubbed(traceback.format_exc()))
            sys.exit(FAILED)
        for line in scrubbed(str(error) or type(error).__name__).splitlines():
            print(f"streamrnn: {line}", file=sys.stderr)
        sys.exit(WRONG_USAGE if type(error).__name__ == "WrongSettings" else FAILED)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **of: Any) -> None:
    """A warning of our own rooms is a line on standard error, as their errors are."""
    ours = category.__module__.split(".")[0] == "services"
    line = f"streamrnn: {message}\n" if ours else warnings.formatwarning(message, category, *where[:2])
    print(line, end="", file=sys.stderr)


def _foreseen(error: Exception) -> bool:
    """Errors of our own rooms are written for people, and so are the operating system's."""
    return type(error).__module__.split(".")[0] in ("services", "rnn") or isinstance(error, OSError)


if __name__ == "__main__":
    main()
