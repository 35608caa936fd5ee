"""The search: a driver on Ray Tune, the bridge to Optuna, and the samplers. Calling it searches (see `nasattn.api.search`)."""

from nasattn._callable_module import call_through

call_through(__name__, "search")
