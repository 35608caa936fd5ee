"""The rule as a scheduler of Ray Tune's own loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nasattn.search.tune_scheduler import ParetoHalving


def test_rungs_that_do_not_rise() -> None:
    with pytest.raises(ValueError, match=r"rungs must rise, such as \(1, 2, 4\), got \(2, 1\)"):
        ParetoHalving("accuracy", "latency", rungs=(2, 1))


@pytest.mark.slow
def test_tune_pauses_and_resumes(ray_session: None, tmp_path: Path) -> None:
    """Twelve trials of which the more accurate are a little faster: all end, the best is trained to the end, and fewer than all are."""
    from ray import tune

    class Trainable(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.time, self.quality = 0, config["quality"]

        def step(self) -> dict[str, Any]:
            self.time += 1
            return {"accuracy": self.quality * self.time, "latency": 1 - self.quality / 100, "steps": self.time}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "time").write_text(str(self.time))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            self.time = int((Path(checkpoint_dir) / "time").read_text())

    tuner = tune.Tuner(
        Trainable,
        param_space={"quality": tune.grid_search([i * 5 % 12 / 12 for i in range(12)])},
        tune_config=tune.TuneConfig(scheduler=ParetoHalving("accuracy", "latency", rungs=(1, 2, 4)), max_concurrent_trials=4),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    results = list(tuner.fit())
    steps = {result.config["quality"]: result.metrics["steps"] for result in results}
    assert len(steps) == 12 and not any(result.error for result in results)
    assert steps[11 / 12] == 4
    assert sum(steps.values()) < 0.8 * 48
