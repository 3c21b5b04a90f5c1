"""The same work in Quix Streams, one message at a time: a stateful LSTM(64) step and a linear head, exactly once.

Runs in an environment of its own (`bench.quix_environment`) and imports nothing of this repository. Written to be as
fast as one can without leaving the library's public ways: h and c as one value of raw bytes, the functional form of
LSTMCell without a module call, one matrix product for the whole head, no gradients, one thread. It does less than
ours: no scaler, no missing values, and a score that is a mean instead of a likelihood.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from quixstreams import Application, message_context  # type: ignore[import-not-found]

HIDDEN = 64
ZEROS = bytes(2 * HIDDEN * 4)


def step_of(features: int) -> Any:
    """The function that is applied to every message."""
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(features, HIDDEN)
    head = torch.nn.Linear(HIDDEN, 3 * features)  # y, lo, hi
    weights = [weight.detach() for weight in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
    head_weight, head_bias = head.weight.detach(), head.bias.detach()
    lstm_cell, linear = torch.lstm_cell, torch.nn.functional.linear
    tensor, frombuffer, float32 = torch.tensor, torch.frombuffer, torch.float32

    def step(value: Any, key: bytes, timestamp: int, headers: Any, state: Any) -> dict[str, Any]:
        x = value["x"]
        hc = frombuffer(state.get_bytes("hc", ZEROS), dtype=float32).view(2, 1, HIDDEN).unbind()
        h, c = lstm_cell(tensor([x]), hc, *weights)
        state.set_bytes("hc", h.numpy().tobytes() + c.numpy().tobytes())
        out = linear(h, head_weight, head_bias).view(3, features).tolist()
        context = message_context()
        return {
            "v": 1,
            "stream": key.decode(),
            "at": value["at"],
            "partition": context.partition,
            "offset": context.offset,
            "model": "quix-streams",
            "y": out[0],
            "lo": out[1],
            "hi": out[2],
            "score": sum(x) / features,
            "flags": [],
        }

    return step


def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "group", "readings", "predictions", "state"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--features", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    app = Application(
        broker_address=given.bootstrap,
        consumer_group=given.group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=given.state,
        loglevel="WARNING",
    )
    readings = app.topic(given.readings, key_deserializer="bytes", value_deserializer="json")
    predictions = app.topic(given.predictions, key_serializer="bytes", value_serializer="json")
    stepped = app.dataframe(readings).apply(step_of(given.features), stateful=True, metadata=True)
    stepped.to_topic(predictions)
    with torch.inference_mode():
        app.run()


if __name__ == "__main__":
    main()
