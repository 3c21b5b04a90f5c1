"""Fixtures that all tests share: real brokers, names and seeds.

A broker that cannot be had fails the tests that need it; nothing is skipped and nothing stands in for it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch: networks of tests are too small to be shared out

from services.brokers.devbroker import DevBroker

hypothesis.settings.register_profile("here", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


LONGEST = (
    "services/test_serve.py", "services/test_swaps.py", "chaos/test_kills.py", "services/test_demo_retrain.py",
    "chaos/test_tasks.py", "brokers/test_kafka_faults.py", "observability/test_live.py", "trainer/test_workers.py",
    "predictor/test_invariants.py", "archive/test_archive_kafka.py", "fleet/test_ray_head.py",
    "services/test_train_config.py", "services/test_probe.py", "examples/test_examples.py",
)  # fmt: skip
"""Files that take longest, in that order: they begin first, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))  # stable


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="repeat a run: the seed that it printed")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = 0 if os.environ.get("CI") else secrets.randbelow(2**32)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed} (repeat with --seed {config.option.seed})"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed of this test's own, from the run's; printed, so that a failure shows it."""
    digest = hashlib.sha256(f"{request.config.option.seed} {request.node.nodeid}".encode()).digest()
    print(f"seed {(own := int.from_bytes(digest[:4], 'big'))} of --seed {request.config.option.seed}")
    return own


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """A real broker that all tests share. Use topics of your own (`topic_names`) and do not stop it."""
    running = DevBroker(tmp_path_factory.mktemp("broker"), owned=True)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def shared_ray() -> Iterator[str]:
    """A Ray that all servers of a module's tests join, instead of one of their own each, which is most of what their
    start costs. Its address; servers find it in their environment.
    """
    import ray

    from services.fleet.ray_runtime import join_or_start, prepare

    prepare()
    join_or_start(None, 3, 0)
    try:
        address: str = ray.get_runtime_context().gcs_address
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("STREAMRNN__FLEET__RAY_ADDRESS", address)
            yield address
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def _mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    running = DevBroker(tmp_path_factory.mktemp("mortal") / "broker", owned=True)
    yield running
    running.kill()


@pytest.fixture
def own_broker(_mortal: DevBroker) -> DevBroker:
    """A running broker that a test may stop, kill and restart: while the test runs, nobody else uses it. What tests
    before this one wrote is in it, so use topics of your own here, too.
    """
    return _mortal.start()


_numbers = itertools.count(1)


@pytest.fixture
def topic_names() -> Callable[[], str]:
    """Each call gives a pipeline name nobody has used on the shared broker: topics are called after it."""
    return lambda: f"t{next(_numbers)}-{secrets.token_hex(3)}"
