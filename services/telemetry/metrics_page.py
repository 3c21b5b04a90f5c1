"""docs/metrics.md, made of the catalogue of metrics: `python -m services.telemetry.metrics_page > docs/metrics.md`."""

from __future__ import annotations

from services.telemetry.metric_catalog import METRICS, labels


def document() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "All that `/metrics` on `telemetry.port` shows. Made of `services/telemetry/metric_catalog.py` by",
        "`python -m services.telemetry.metrics_page > docs/metrics.md`; `make check` fails when the two differ.",
        "Counters with a label `shard` start at 0 when its actor starts, the others when the server does, so look at",
        "them through `rate` or `increase`. Metrics without it are of all shards. No label ever holds a stream,",
        "but for `stream`: it holds those that `telemetry.spotlight` names, at most 20.",
        "Prometheus adds the labels `cluster` and `pipeline` to the target ([rules](../deploy/prometheus/rules.yaml)).",
        "",
        "| metric | kind | unit | labels | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{m.name}` | {m.kind} | {m.unit or '-'} | {', '.join(f'`{label}`' for label in labels(m))} | {m.help} |"
        for m in METRICS
    ]
    lines += ["", "## What labels can say", ""]
    lines += [f"- `{m.name}`, `{m.label}`: {', '.join(f'`{v}`' for v in m.values)}" for m in METRICS if m.values]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
