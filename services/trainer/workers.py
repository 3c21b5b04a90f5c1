"""One training by several processes: Ray Train starts them, restarts them where one dies, and keeps their checkpoints.

    this process --Work--> the board, which waits for TorchTrainer --> workers, each a rank of a torch process group
         ^---------- passes, by way of the board -------------------------/

Every few seconds a pass ends with a checkpoint that all ranks wait for; whoever dies, all go on from the last one, to
the weights that an undisturbed training gives. Imports ray; torch through rnn.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rnn.io.checkpoint import CheckpointMismatch, tensors_of
from rnn.io.weights import read_tensors, write_tensors
from rnn.nn.network import Network
from rnn.train.course import Pass
from rnn.train.learn import Learned, forecasts
from services.fleet.ray_runtime import join_or_start, prepare, yielding
from services.settings.model_lifecycle import NICENESS
from services.trainer.runs import Run
from services.trainer.training_task import NotTrained, OutOfTime, Told, TrainingTask, refusals, within

MAX_FAILURES = 3
"""How often workers are started anew."""
EVERY_S = 15.0
"""Between two checkpoints; each is waited for, for about a second."""
POLL_S = 0.2
GRACE_S = 30.0
"""After the time limit a pass may end by itself for so long; then everything is killed."""
TRAIN_ENV = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""How often the controller looks at its workers, for a report waits for that; how long they may take to start where
what serves has the cores; and no process that foresees a machine's end: a checkpoint is seconds old anyway."""
STANDING, FITTED, SAID = "standing", "fitted", "fitted.json"

Heard = Callable[[dict[str, Any]], None]


class EventRelay:
    """An actor that waits for the whole training, and on which workers write what happens meanwhile. It owns the
    controller of the training and with it the workers: they end with it.
    """

    def __init__(self) -> None:
        self._said: deque[dict[str, Any]] = deque()

    def tell(self, event: dict[str, Any]) -> None:
        """Adds an event."""
        self._said.append(event)

    def take(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        return [self._said.popleft() for _ in range(len(self._said))]

    def fit(self, given: dict[str, Any], name: str, storage: str, workers: int) -> dict[str, Any]:
        """What the first rank found: tensors, passes and rows; empty where it found nothing."""
        import ray

        self.tell({"event": "starting"})
        return _fitted({**given, "board": ray.get_runtime_context().current_actor}, name, storage, workers)


def train(
    work: TrainingTask,
    run: Run,
    workers: int,
    told: Told | None = None,
    *,
    gpus: bool = False,
    address: str | None = None,
    limit_s: float | None = None,
    heard: Heard | None = None,
    niceness: int = NICENESS,
    every_s: float = EVERY_S,
) -> Learned:
    """Trains with `workers` processes on the Ray at `address`, on the one that this process has joined, or on one that
    it starts and stops. `heard` is told of what is no pass: that Ray Train starts, and each worker that is there,
    with its process id. What a killed worker takes with it is `every_s` seconds of work, and the pass under way.

    Raises NotTrained, OutOfTime; CheckpointMismatch for a checkpoint of something else, or damaged.
    """
    import ray

    if not forecasts(work.config):
        raise NotTrained("only forecasts of the next reading are trained by several processes: leave out --workers")
    prepare()
    ours = not ray.is_initialized()
    if ours:
        join_or_start(address, float(workers), float(workers) if gpus else 0.0)
    try:
        given = {"work": ray.put(work), "limit_s": limit_s, "gpus": gpus, "niceness": niceness, "every_s": every_s}
        return _driven(ray, work, run, workers, told, given, heard)
    finally:
        if ours:
            ray.shutdown()


def _driven(
    ray: Any,
    work: TrainingTask,
    run: Run,
    workers: int,
    told: Told | None,
    given: dict[str, Any],
    heard: Heard | None,
) -> Learned:
    environment = {**yielding(given["niceness"]), "env_vars": TRAIN_ENV}
    board = ray.remote(num_cpus=0, max_concurrency=4, runtime_env=environment)(EventRelay).remote()
    done = board.fit.remote(given, run.id, str(run.storage.absolute()), workers)
    limit_s: float | None = given["limit_s"]
    began_s = time.monotonic()
    failed: Exception | None = None
    started = False
    try:
        while True:
            over = bool(ray.wait([done], timeout=POLL_S)[0])
            for event in ray.get(board.take.remote()):
                if event["event"] == "pass" and told is not None:
                    told(Pass(**event["pass"]))
                elif event["event"] == "failed":
                    failed = failed or _error(event)
                elif heard is not None:
                    heard(event)
                started = started or event["event"] == "worker"
            if over:
                break
            if limit_s is not None and time.monotonic() - began_s > limit_s + GRACE_S:
                raise OutOfTime(_late(limit_s, workers, started))
        if failed is not None:
            raise failed
        learned = _learned(work, ray.get(done))
        shutil.rmtree(run.storage, ignore_errors=True)
        return learned
    except ray.exceptions.RayError as error:
        raise _lost(error, workers) from None
    finally:
        with suppress(Exception):
            ray.kill(board)


def _late(limit_s: float, workers: int, started: bool) -> str:
    limit = f"the limit of {limit_s / 60:g} minutes"
    if not started:
        return (
            f"no worker had started {GRACE_S:g} s after {limit}: look whether Ray has room for {workers} workers with "
            "a CPU each, and raise the limit"
        )
    return f"stopped by {limit}, amid a pass that took {GRACE_S:g} s more: raise the limit, or take a shorter range"


def _lost(error: Exception, workers: int) -> NotTrained:
    """A sentence for what Ray says at length."""
    text = f"{type(error).__name__} " + " ".join(str(error).split())
    if "OutOfMemory" in text or "out of memory" in text.lower() or "memory usage" in text.lower():
        why = "the machine ran out of memory, and its workers were killed"
    elif "StartupTimeout" in text or "Failed to schedule" in text or "insufficient" in text.lower():
        why = f"the cluster has no room for {workers} workers"
    elif "died" in text or "ActorDied" in text or "unavailable" in text.lower():
        why = f"its workers died {MAX_FAILURES + 1} times, killed by hand or for lack of memory"
    else:
        return NotTrained(f"training on Ray failed: {text[-400:]}")
    return NotTrained(f"{why}: use fewer --workers or a shorter range, or give it more memory")


def _error(event: dict[str, Any]) -> Exception:
    kinds = {kind.__name__: kind for kind in (NotTrained, OutOfTime, CheckpointMismatch)}
    return kinds[event["kind"]](event["message"])


def _learned(work: TrainingTask, result: dict[str, Any]) -> Learned:
    """What the first rank found, in this process."""
    network = Network(work.config)
    network.load_state_dict(tensors_of(result["tensors"]))
    passes = tuple(Pass(**one) for one in result["passes"])
    best = [one for one in passes if one.kept][-1]
    return Learned(network.eval(), passes, best, result["train_rows"], result["validation_rows"])


# ---- in other processes ---------------------------------------------------------------------------------------------


def _fitted(given: dict[str, Any], name: str, storage: str, workers: int) -> dict[str, Any]:
    """On the board."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = given["gpus"]
    trainer = TorchTrainer(
        _loop,
        train_loop_config=given,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = trainer.fit()
    if result.checkpoint is None:
        return {}
    with result.checkpoint.as_directory() as folder:
        said: dict[str, Any] = json.loads((Path(folder) / SAID).read_text()) if (Path(folder) / SAID).exists() else {}
        if said:
            said["tensors"] = {name: one.numpy() for name, one in read_tensors(Path(folder) / FITTED).items()}
    return said


def _loop(given: dict[str, Any]) -> None:
    """A worker. What cannot be done is told and ends in peace: to start anew would not help."""
    import ray
    from ray import train

    from rnn.train.learn import learn
    from rnn.train.process_group import joined

    work: TrainingTask = ray.get(given["work"])
    board = given["board"]
    device = "cpu"
    if given["gpus"]:
        from ray.train.torch import get_device

        device = str(get_device())
    team = joined(device, mixed=device != "cpu")
    known = train.get_checkpoint()
    board.tell.remote({"event": "worker", "rank": team.rank, "pid": os.getpid(), "resumed": known is not None})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if known is not None:
            with known.as_directory() as kept:
                if (Path(kept) / SAID).exists():  # all was done when a worker died
                    return
                shutil.copy(Path(kept) / STANDING, folder / STANDING)

        saved_s = time.monotonic()

        def passed(one: Pass) -> None:
            nonlocal saved_s
            if team.first:
                board.tell.remote({"event": "pass", "pass": asdict(one)})
            if team.broadcast_scalar(time.monotonic() - saved_s) < given["every_s"]:
                return
            saved_s = time.monotonic()
            saved = train.Checkpoint.from_directory(place) if team.first else None
            train.report({"pass": one.number, "validation_loss": one.validation_loss}, checkpoint=saved)

        start = None if work.start is None else tensors_of(work.start)
        try:
            with refusals(work):
                learned = learn(
                    work.config, work.series, work.recipe, within(given["limit_s"], passed, team.broadcast_scalar),
                    folder / STANDING, learned=work.learned, start=start, team=team,
                )  # fmt: skip
        except (NotTrained, CheckpointMismatch) as error:
            told = {"event": "failed", "kind": type(error).__name__, "message": str(error)}
            ray.get(board.tell.remote(told))
            return
        saved = None
        if team.first:
            write_tensors(folder / FITTED, learned.network.state_dict())
            passes = [asdict(one) for one in learned.epochs]
            rows = {"train_rows": learned.train_rows, "validation_rows": learned.validation_rows}
            (folder / SAID).write_text(json.dumps({"passes": passes, **rows}))
            saved = train.Checkpoint.from_directory(place)
        train.report({"pass": learned.epochs[-1].number}, checkpoint=saved)
