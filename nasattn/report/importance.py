"""How much each stage's choice decides, by Optuna's importances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nasattn.report.choices import Choices
from nasattn.store import EvaluationRecord

FEWEST = 10  # completed trials
TREES = 32
OBJECTIVES = {"accuracy": 0, "latency": 1}


def importances(choices: Choices, trials: Sequence[EvaluationRecord]) -> dict[str, list[float]]:
    """For ``accuracy`` and ``latency`` each stage's share of what its choice explains (fANOVA), summing to 1; empty for too few trials.

    Args:
        choices: The grid; a stage's choice is its whole token, options included.
        trials: Completed ones with a latency.
    """
    done = [t for t in trials if t.latency and t.accuracy is not None and choices.point(t.placement) is not None]
    if len(done) < FEWEST:
        return {}
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    names = [f"stage {n}" for n in range(1, len(choices.tokens) + 1)]
    used = {n: tokens for n, tokens in zip(names, choices.tokens, strict=True) if len(tokens) > 1}
    distributions: dict[str, BaseDistribution] = {n: CategoricalDistribution(tokens) for n, tokens in used.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(directions=["maximize", "minimize"])
        study.add_trials([_trial(t, names, distributions) for t in done])
        found = {}
        for objective, index in OBJECTIVES.items():
            if len({t.values[index] for t in study.trials}) < 2:
                continue
            evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=0)
            shares = get_param_importances(study, evaluator=evaluator, target=lambda t, i=index: t.values[i])  # type: ignore[misc]
            found[objective] = [float(shares.get(n, 0.0)) for n in names]
    finally:
        optuna.logging.set_verbosity(verbosity)
    return found


def _trial(record: EvaluationRecord, names: Sequence[str], distributions: dict[str, Any]) -> Any:
    from optuna.trial import create_trial

    tokens = zip(names, record.placement.split(","), strict=True)
    assert record.latency is not None
    values = [float(record.accuracy or 0.0), record.latency.ratio]
    return create_trial(params={n: t for n, t in tokens if n in distributions}, distributions=distributions, values=values)
