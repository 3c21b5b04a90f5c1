"""One Ray for the tests of a module: servers in this process find it and leave it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.fleet.ray_runtime import join_or_start, prepare


@pytest.fixture(scope="module", autouse=True)
def on_ray() -> Iterator[None]:
    prepare()
    join_or_start(None, 2, 0)
    yield
    import ray

    ray.shutdown()
