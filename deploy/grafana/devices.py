"""Ray and GPU: the ground that shards stand on. Metrics called ray_* are Ray's own, of its nodes' metrics port."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.board import SHARD, TARGET, board, graph


def devices() -> Dashboard:
    """The dashboard of nodes, actors and devices."""
    made = board("ray", "The ground that shards stand on: Ray's nodes and actors, CPUs, memory, GPUs.", shard=True)

    def node(metric: str) -> str:
        return f"max by (ip) ({metric}{{{TARGET}}})"

    return (
        made.with_row(Row("Shards"))
        .with_panel(
            graph(
                "Shards up", "1: the shard's actor answers; 0: it is being replaced.", "short",
                {"shard {{shard}}": f"max by (shard) (streamrnn_shard_up{{{SHARD}}})"},
                most=1, alerts=["StreamrnnShardDown", "StreamrnnShardRestarting"],
            )
        )
        .with_panel(
            graph(
                "Age of actors", "Since the shard's actor began. It falls to 0 with each restart.", "s",
                {"shard {{shard}}": f"time() - max by (shard) (streamrnn_shard_start_timestamp_seconds{{{SHARD}}})"},
                alerts=["StreamrnnShardRestarting"],
            )
        )
        .with_row(Row("GPU"))
        .with_panel(
            graph(
                "GPU memory by shard", "What each shard has reserved.", "bytes",
                {"shard {{shard}}": f"max by (shard) (streamrnn_gpu_memory_shard_bytes{{{SHARD}}})"},
                alerts=["StreamrnnGpuMemory"],
            )
        )
        .with_panel(
            graph(
                "GPU memory that is free", "Share of the GPU that a shard runs on, free for anyone.", "percentunit",
                {"shard {{shard}}": f"min by (shard) (streamrnn:shard_gpu_memory_free:ratio{{{SHARD}}})"},
                most=1, alerts=["StreamrnnGpuMemory"],
            )
        )
        .with_panel(
            graph(
                "GPU load", "As Ray's nodes report it.", "percent",
                {"{{ip}} GPU {{GpuIndex}}": f"max by (ip, GpuIndex) (ray_node_gpus_utilization{{{TARGET}}})"}, most=100,
            )
        )
        .with_panel(
            graph(
                "GPU memory in use", "As Ray's nodes report it, of everyone on the GPU.", "decmbytes",
                {"{{ip}} GPU {{GpuIndex}}": f"max by (ip, GpuIndex) (ray_node_gram_used{{{TARGET}}})"},
                alerts=["StreamrnnGpuMemory"],
            )
        )
        .with_row(Row("Ray's nodes"))
        .with_panel(
            graph("CPU", "Load of each node.", "percent", {"{{ip}}": node("ray_node_cpu_utilization")}, most=100)
        )
        .with_panel(
            graph(
                "Memory", "In use, of what the node has.", "percentunit",
                {"{{ip}}": f"{node('ray_node_mem_used')} / {node('ray_node_mem_total')}"}, most=1,
            )
        )
        .with_panel(
            graph(
                "Actors", "Ray's actors by state: shards, the spare, and those that wait for room.", "short",
                {"{{State}}": f'sum by (State) (ray_actors{{{TARGET},Source="gcs"}}) > 0'},
                alerts=["StreamrnnShardDown"],
            )
        )
        .with_panel(
            graph(
                "Disk", "In use: Ray's session folder, and logs.", "percent",
                {"{{ip}}": node("ray_node_disk_utilization_percentage")}, most=100,
            )
        )
        .with_panel(
            graph(
                "Object store", "In use. Control messages only: readings never pass through it.", "bytes",
                {"used": f"sum(ray_object_store_used_memory{{{TARGET}}})"},
            )
        )
        .with_panel(
            graph(
                "Ray's resources", "CPUs that are reserved, and that are there.", "short",
                {"{{State}}": f'sum by (State) (ray_resources{{{TARGET},Name="CPU"}})'},
            )
        )
    )  # fmt: skip
