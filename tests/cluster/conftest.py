"""One Kubernetes for all tests of this folder, with the image of this checkout, and a namespace for each file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import binaries
import image
import pytest
from charts import CRDS
from installed import Trial
from one_node import OneNode, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """The node, with our image imported. Fails where it cannot be: `make test-cluster` sets all of it up.
    STREAMRNN_NODE names the folder of one that is up already and stays.
    """
    if why := missing():
        pytest.fail(why)
    binaries.helm4()
    if there := os.environ.get("STREAMRNN_NODE"):
        yield OneNode(Path(there))
        return
    with OneNode(tmp_path_factory.mktemp("node"), [image.built()], CRDS if CRDS.is_dir() else None) as running:
        yield running


@pytest.fixture(scope="module")
def trial(node: OneNode, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A namespace of this file's own."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    made = Trial(node, name, tmp_path_factory.mktemp(name))
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def until(node: OneNode) -> Callable[..., Any]:
    """OneNode.until."""
    return node.until
