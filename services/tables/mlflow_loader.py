"""What MLflow's pyfunc calls for an exported model: a table in, predictions out, by the engine that serves.

Imports torch and pandas, when a model is loaded and when it predicts. Named by `services.registry.mlflow_folder`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


class Predictor:
    """A loaded model. `predict` is stateless: every call begins its streams anew."""

    def __init__(self, folder: Path) -> None:
        from rnn.io import weights

        self._network, self.card = weights.load(folder)

    def predict(self, table: Any, params: Any = None) -> Any:
        """Of a data frame with the model's features as columns (or `symbol`), predictions as `streamrnn predict` gives
        them. Where there are columns `stream`, `at` (ms since 1970) and `end` that are no features, they say what the
        same columns say there. Raises WrongTable.
        """
        import pandas as pd

        from services.settings.training import DataSection
        from services.tables.predicting import predicted
        from services.tables.table_dataset import material

        config = self._network.config
        reads = ("symbol",) if config.symbolic else config.features
        has = {name: name for name in ("stream", "end") if name in table.columns and name not in reads}
        if "at" in table.columns and "at" not in reads:
            has["time"] = "at"
        named: dict[str, Any] = {"symbol": "symbol"} if config.symbolic else {"features": config.features}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "table.csv")
            table.to_csv(file, index=False)
            found = material(DataSection(**named, **has), {"interval_s": config.interval_s}, file, config)
        return pd.concat([one.to_pandas() for one in predicted(self._network, found)], ignore_index=True)


def _load_pyfunc(path: str, model_config: Any = None) -> Predictor:
    return Predictor(Path(path))
