"""Bytes <-> records, pure: nothing here does I/O, keeps a clock or knows Kafka. docs/wire.md is the contract.

May import numpy, msgspec, orjson, pyarrow, pydantic and `services.records`. msgspec, orjson and
pyarrow are imported nowhere else.

readings, readings_json, readings_contract, readings_packed, arrow_stream   input records -> Readings and Rejected
predictions, predictions_packed, predictions_read         Predictions -> output records, and back for consumers
state_rows                                                state rows <-> changelog records
dead_letters                                              Rejected -> dead letter records
contract                                                  the JSON contract as pydantic models and JSON Schema
"""
