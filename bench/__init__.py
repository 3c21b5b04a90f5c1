"""Benchmarks: `python -m bench` (`make bench`). Not installed with the package, and imported by nothing in it.

__main__            what runs, in which order, and what is printed
stage               broker, topics, model, readings: what the pipeline's benchmarks play on
children, serve_one, sender     the processes they start
pipeline            readings/s beside Quix Streams (quix_app, in an environment made by quix_environment)
latency, memory     Kafka to Kafka at a steady rate; resident memory with many streams
engine, wire_codecs the step and the codecs alone
report              versions, the table, bench/results/latest.json
"""
