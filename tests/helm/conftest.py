"""Fixtures of the chart's tests; what they give is in tests/support/charts.py."""

from __future__ import annotations

from functools import cache

import pytest
from charts import Helm, Objects, Render, helm_named, profile


@pytest.fixture(scope="session", params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    return helm_named(request.param)


@pytest.fixture(scope="session")
def newest() -> Helm:
    """Helm 4 alone, where both would say the same."""
    return helm_named("helm4")


@pytest.fixture(scope="session")
def render(newest: Helm) -> Render:
    """`render("small", "--set=...")`, each combination once."""

    @cache
    def rendered(name: str, *more: str) -> Objects:
        return Objects(newest.template(*profile(name, *more)))

    return rendered
