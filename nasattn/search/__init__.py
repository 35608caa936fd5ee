"""The search: a driver on Ray actors, the bridge to Optuna, halving, budgets and the samplers. Calling it searches (see `nasattn.api.search`)."""

from nasattn._callable_module import call_through

call_through(__name__, "search")
