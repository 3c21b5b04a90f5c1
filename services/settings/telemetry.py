"""Settings of the port with the page and the metrics, and of traces. A part of the tree."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from services.settings.model_lifecycle import Section


def _stream(name: str) -> str:
    if not 0 < len(name.encode()) <= 256:
        raise ValueError("a stream's key: 1 to 256 bytes of UTF-8")
    return name


def _hostname(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name):
        raise ValueError("a host's name without scheme and port, such as pumps.example.org")
    return name.lower().rstrip(".")


def _names(given: Any) -> Any:
    """A list, also where it comes as text."""
    if not isinstance(given, str):
        return given
    try:
        parsed = json.loads(given)
    except ValueError:
        parsed = None
    if isinstance(parsed, list):
        return parsed
    return [name.strip(" '\"") for name in given.strip("[] ").split(",")]


def _once(streams: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(streams)) < len(streams):
        raise ValueError("a list that names each stream once")
    return streams


def _address(url: str | None) -> str | None:
    if url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
        raise ValueError("a URL such as http://HOST:4318/v1/traces")
    return url


Name = Annotated[str, AfterValidator(_hostname)]
Stream = Annotated[str, AfterValidator(_stream)]


class TelemetrySettings(Section):
    """The port with the page, /metrics, /healthz and /readyz."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on. 0.0.0.0 lets Prometheus in another container or machine scrape; there is no "
        "authentication. Counts, model names and the values of the spotlight's streams are all that can be read.",
    )
    port: int = Field(9464, ge=0, le=65_535, description="TCP port to listen on. 0: any free one, named in the log.")
    names: Annotated[tuple[Name, ...], BeforeValidator(_names), NoDecode] = Field(
        (),
        max_length=100,
        description="Further names under which the port is reached, such as an ingress's. Requests for others are "
        "refused, so that no page of another site reads it by a name of its own (DNS rebinding). Always right: "
        "addresses, `host`, localhost, and names without a dot.",
    )
    spotlight: Annotated[tuple[Stream, ...], BeforeValidator(_names), AfterValidator(_once), NoDecode] = Field(
        (),
        max_length=20,
        description="Streams whose values, forecasts, bands and scores are shown on the page and as metrics, by their "
        "keys; at most 20. In the environment and in flags: a,b,c or a JSON list.",
    )
    traces: Annotated[str | None, AfterValidator(_address)] = Field(
        None,
        description="Where a span of each epoch is posted to, a collector of OpenTelemetry (OTLP over HTTP): "
        "http://HOST:4318/v1/traces. Needs pip install 'streamrnn[traces]'. null: nothing is traced.",
    )
    traces_share: float = Field(1.0, gt=0, le=1, description="With `traces`: of the epochs, how many are traced.")
