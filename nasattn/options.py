"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasattn import completion
from nasattn.search.samplers import SAMPLERS

StorageOption = Annotated[str | None, typer.Option("--storage", help="Database URL. Default: NASATTN_STORAGE, else sqlite:///nasattn.db.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StudyArgument = Annotated[str, typer.Argument(help="Name of the study (`nasattn studies` lists them).", autocompletion=completion.studies)]
SpaceOption = Annotated[
    str | None, typer.Option("--space", help="A shipped space (`nasattn spaces`) or a YAML file.", autocompletion=completion.spaces)
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="Instead of --space: a host, or timm's name of it (resnet26d); its space is made by itself.",
        autocompletion=completion.hosts,
    ),
]
StudyOption = Annotated[
    str | None,
    typer.Option(
        "--study", help="Name of the study; an existing one is continued. Default: SPACE-TASK-sSEED.", autocompletion=completion.studies
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="cued_digits, digits, pathfinder, torch/NAME, hfds/NAME, or a folder of class folders.",
        autocompletion=completion.tasks,
    ),
]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A recipe file: how proxies are reduced and trained (`nasattn tune-proxy` writes one).")
]
TrialsOption = Annotated[int | None, typer.Option("--trials", help="Trainings in the study that begin, all in all. Default: 24.")]
TimeOption = Annotated[str | None, typer.Option("--time-budget", help="Begin no trial after this time: 90s, 30m, 2h.")]
ComputeOption = Annotated[
    str | None, typer.Option("--compute-budget", help="Begin no trial once all trainings of the study together took this: 30m, 2h.")
]
PlateauOption = Annotated[
    int | None, typer.Option("--plateau", help="End when the front has not grown in so many trials. Default: never.", min=1)
]
CertifyOption = Annotated[
    float | None,
    typer.Option("--certify", help="Share of the trials that train the front again, with other seeds: 0 to 0.5. Default: 0.2."),
]
FailuresOption = Annotated[
    float | None, typer.Option("--max-failures", help="End once a larger share of the trials has failed (of 10 or more). Default: 0.5.")
]
ProgressOption = Annotated[
    str | None,
    typer.Option("--progress-timeout", help="End a trial that reports nothing for so long: 10m. Default: by how long reports took so far."),
]
HalvingOption = Annotated[
    bool | None,
    typer.Option(
        "--halving/--no-halving",
        help="Stop trainings for which better ones of their latency are known. Default: with the samplers auto and placement.",
    ),
]
SamplerOption = Annotated[
    str | None, typer.Option("--sampler", help=f"{', '.join(SAMPLERS)}. Default: auto.", autocompletion=completion.samplers)
]
LimitOption = Annotated[str | None, typer.Option("--max-latency", help="Train nothing slower: 1.3x the plain host, or 12ms.")]
ParamsOption = Annotated[str | None, typer.Option("--max-params", help="Train nothing larger: 1.1x the plain host, or 30M.")]
MacsOption = Annotated[str | None, typer.Option("--max-macs", help="Train nothing with more multiply-accumulates: 1.1x, or 5G.")]
MemoryOption = Annotated[
    str | None, typer.Option("--max-memory", help="Train nothing that needs more memory at inference: 1.2x, or 200MB.")
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="What will run the model: eager, compile, cudagraph, onnxruntime. Default: eager.",
        autocompletion=completion.runtimes,
    ),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT. Default: start Ray here.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Proxies trained at once. Default: as many as CPUs or GPUs have room for.")
]
GpusOption = Annotated[float | None, typer.Option("--gpus-per-trial", help="Share of a GPU that a trial takes. Default: 1.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda. Default: cpu.", autocompletion=completion.devices)]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Of sampler, initialisation, data and data order. Default: 0.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Begin another study (NAME-2, ...) if this one exists; nothing is deleted.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Build every choice, say what it costs, how long and how much disk a search takes; train nothing.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing while searching.")]

# of `front`
KeyOption = Annotated[
    str | None, typer.Option("--device", help="Another device key, or a part that fits one alone: the front of the same proxies there.")
]

# of `spaces`
YamlHostOption = Annotated[
    str | None, typer.Option("--host", help="Print the space of this host as a YAML file, to edit and to search by --space.")
]

# of `latency`
HostArgument = Annotated[str | None, typer.Argument(help="A host, such as nasattn_resnet50.", autocompletion=completion.hosts)]
PlacementArgument = Annotated[str | None, typer.Argument(help="Such as none,sge_g32,ela_l,none.")]
InsteadSpaceOption = Annotated[
    str | None,
    typer.Option("--space", help="Instead: what every attention of this space costs in every stage.", autocompletion=completion.spaces),
]
LatencyDeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.", autocompletion=completion.devices)]
RuntimesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime", help="eager, compile, cudagraph or onnxruntime; may be repeated. Default: eager.", autocompletion=completion.runtimes
    ),
]
BatchOption = Annotated[int, typer.Option("--batch", help="Images at once.", min=1)]
ResolutionOption = Annotated[int | None, typer.Option("--resolution", help="Side of the images in pixels. Default: the host's.", min=1)]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32; on cuda also float16 or bfloat16.")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="CPU threads of one forward.", min=1)]
ChannelsLastOption = Annotated[bool, typer.Option("--channels-last", help="Keep weights and images in channels-last memory format.")]
HeldOutOption = Annotated[
    int, typer.Option("--held-out", help="With --space: placements measured end to end, for the table's error.", min=0)
]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="With --space: draw it into this file (.png, .svg, .pdf).")]
LatencyStorageOption = Annotated[
    str | None, typer.Option("--storage", help="Database to record in. Default with --space: NASATTN_STORAGE, else sqlite:///nasattn.db.")
]
