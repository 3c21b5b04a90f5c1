"""Shards' numbers as Prometheus metrics, and the port they are read from. Only this room imports prometheus_client."""
