"""A look at the Ray that an address names, by whoever does not join it. Imports ray when called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RayFound:
    """What a Ray says of itself. Versions are empty where it does not say."""

    address: str
    ray: str = ""
    python: str = ""
    nodes: int = 0
    room: Mapping[str, float] = field(default_factory=dict)  # CPU, GPU: of all nodes together


def heads_here() -> list[str]:
    """Addresses HOST:PORT of heads of which this machine is a node; what `auto` chooses from."""
    from ray._private import services

    private: Any = services
    return sorted(private.find_gcs_addresses())


def look(address: str, limit_s: float) -> RayFound:
    """Asks the head at HOST:PORT. No node is added, no driver registered. Raises OSError when it does not answer."""
    from ray import _raylet

    private: Any = _raylet  # without types, and private to Ray: a release may move it
    try:
        client = private.GcsClient(address=address)
        told = client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=limit_s)
        nodes = client.get_all_node_info(timeout=limit_s)
    except AttributeError:
        return RayFound(address)
    except Exception as error:  # RpcError, or what else a release raises
        raise OSError(
            f"the Ray head at {address} does not answer: {' '.join(str(error).split())[:200]}. If it wants a token, "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, as on its nodes; otherwise look at its log"
        ) from error
    metadata: dict[str, Any] = {}
    with suppress(ValueError, TypeError):
        metadata = json.loads(told or b"{}")
    live, room = 0, {"CPU": 0.0, "GPU": 0.0}
    with suppress(AttributeError, TypeError):
        for node in nodes.values():
            if node.state == 0:  # alive
                live += 1
                for name in room:
                    room[name] += float(dict(node.resources_total).get(name, 0.0))
    return RayFound(address, str(metadata.get("ray_version", "")), str(metadata.get("python_version", "")), live, room)
