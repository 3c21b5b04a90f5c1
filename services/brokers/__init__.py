"""Adapters of the outside world to the predictor's ports, one a file, and the development broker.

Lives here: everything that knows Kafka. May not import: `services.fleet`, `services.trainer`, `services.cli`.
Importing this package imports no adapter and no third party.
"""
