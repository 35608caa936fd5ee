"""Problems whose answer is known: accuracy that saturates, latency that is a sum, conditional options."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

STAGES = 4
GROUPS = (8, 16, 32)
KERNELS, DILATIONS = (7, 21), (2, 3)
NAMES = ("none", "sge", "ela", "lka")


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Per stage an attention, and its options where it has any: 9 tokens a stage."""
    for i in range(STAGES):
        name = trial.suggest_categorical(f"s{i}", NAMES)
        if name == "sge":
            trial.suggest_categorical(f"s{i}.sge.groups", GROUPS)
        if name == "lka":
            trial.suggest_categorical(f"s{i}.lka.kernel", KERNELS)
            trial.suggest_categorical(f"s{i}.lka.dilation", DILATIONS)
    return trial.params


def accuracy(params: dict[str, Any], seed: int = 0) -> float:
    """Between 0.4 and 1: every stage adds to a sum that saturates, adjacent attentions of one name disturb each other."""
    rng = np.random.default_rng(seed)
    worth = {
        (i, n): w for (i, n), w in zip(((i, n) for i in range(STAGES) for n in NAMES[1:]), rng.gamma(0.6, 1.0, 3 * STAGES), strict=True)
    }
    total = 0.0
    for i in range(STAGES):
        name = params[f"s{i}"]
        if name != "none":
            option = {"sge": 0.2 * np.log2(params.get(f"s{i}.sge.groups", 8) / 8), "lka": 0.1 * (params.get(f"s{i}.lka.kernel") == 21)}
            total += worth[i, name] * (1 + option.get(name, 0.0))
        if i and name == params[f"s{i - 1}"] != "none":
            total -= 0.3
    return float(0.4 + 0.6 * (1 - np.exp(-max(total, 0.0))))


def latency(params: dict[str, Any]) -> float:
    """A ratio to no attention at all."""
    added = {"none": 0.0, "sge": 0.03, "ela": 0.05, "lka": 0.2}
    return 1 + sum(added[params[f"s{i}"]] * (1 + i / 4) * (1.5 if params.get(f"s{i}.lka.kernel") == 21 else 1) for i in range(STAGES))


def key(params: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What makes two trials the same."""
    return tuple(sorted(params.items()))


def two_objectives(sampler: optuna.samplers.BaseSampler, trials: int, noise: float = 0.01, seed: int = 0) -> optuna.Study:
    """A finished study of both."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        params = suggest(trial)
        return accuracy(params, seed) + noise * float(rng.standard_normal()), latency(params)

    study.optimize(objective, n_trials=trials)
    return study
