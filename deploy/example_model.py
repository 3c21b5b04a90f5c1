"""Makes helm/streamrnn/files/model: the first model of the small profile, of household power. Run from the checkout:

python -m deploy.example_model     fetches the data once (23 MB), trains for a minute and a half on one core

The demo's model: an LSTM beside a linear path, trained on the first 70 % of the series (services.cli.demo.first_model).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from services.cli.demo.first_model import first_model
from services.datasets.household import household_power
from services.datasets.series import cache_folder

FOLDER = Path(__file__).parents[1] / "helm" / "streamrnn" / "files" / "model"


def main() -> None:
    """Trains it, or finds it in the cache, and copies its two files."""
    made, trained = first_model(
        household_power(), cache_folder(None), lambda said, share: print(f"{share:4.0%} {said}")
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("card.json", "model.safetensors"):
        shutil.copyfile(made / name, FOLDER / name)
    print(f"{'trained' if trained else 'found'} {made.name}; {FOLDER}")


if __name__ == "__main__":
    main()
