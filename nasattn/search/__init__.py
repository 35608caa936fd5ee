"""The search: a driver on Ray Tune, the bridge to Optuna, and the samplers."""
