"""Export: a placement of a study as a folder that timm loads, with a recipe for timm's train.py and a model card."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from nasattn._callable_module import call_through
from nasattn.errors import NasattnError, UsageError
from nasattn.front import FrontMember
from nasattn.hosts import get_host
from nasattn.report.markdown import code
from nasattn.store import EvaluationRecord, StudyRecord
from nasattn.tasks import TaskRequest, load_task

PROOF_SECONDS = 300
WRITTEN = ("config.json", "model.safetensors", "train.yaml", "README.md")  # in the folder; no name is taken from a study
call_through(__name__, "export")


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: Where to.
        placement: What.
        snippet: Python lines that load it.
        train: Command that trains it with timm's train.py.
    """

    folder: Path
    placement: str
    snippet: str
    train: str


def export_placement(study: StudyRecord, trial: EvaluationRecord, figures: FrontMember | None, out: Path, force: bool = False) -> Exported:
    """Write the full-size host with the trial's placement to *out*, and prove in a clean process that timm reads it back.

    The weights are freshly initialised from the study's seed: a search trains proxies, not the host.

    Args:
        study: The study.
        trial: The trial whose placement is exported.
        figures: The trial as a member of the front, or None when it is not on it.
        out: Folder, created if needed.
        force: Write into a folder that is not empty.

    Raises:
        UsageError: *out* is not empty or not writable.
        NasattnError: There is no room for it, or the clean process did not get the same model back.
    """
    out = _prepare(out, force)
    classes = _classes(study.config)
    torch.manual_seed(study.seed)
    host = get_host(study.config["space"]["host"])
    model = host.build(trial.placement, num_classes=len(classes))
    provenance = _provenance(study, trial, figures)
    config = {"label_names": list(classes), "pretrained_cfg": {"tag": "untrained"}, "nasattn": provenance}
    exported = Exported(
        folder=out,
        placement=trial.placement,
        snippet=f"import nasattn, timm\nmodel = timm.create_model({json.dumps(f'local-dir:{out}')}, pretrained=True)",
        train=f"python -m nasattn.timm train.py --config {shlex.quote(str(out / 'train.yaml'))} --data-dir DATA",
    )
    train = _train_yaml(host.name, trial.placement, len(classes), host.resolution)
    _write(out, model, config, {"train.yaml": train, "README.md": _card(study, trial, figures, exported)})
    _prove(model, out, host.resolution)
    return exported


def _write(out: Path, model: torch.nn.Module, config: dict[str, Any], texts: dict[str, str]) -> None:
    """Write everything, or leave nothing of it behind. Raises NasattnError where the disk does not take it."""
    from safetensors import SafetensorError
    from timm.models import save_for_hf

    try:
        with tempfile.TemporaryDirectory(prefix=".part", dir=out) as part:  # an older export stays until this one is whole
            save_for_hf(model, part, model_config=config, safe_serialization=True)
            for name, text in texts.items():
                Path(part, name).write_text(text)
            for written in Path(part).iterdir():
                os.replace(written, out / written.name)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # it holds other files
            out.rmdir()
        cause = getattr(error, "strerror", None) or str(error)
        raise NasattnError(f"the export cannot be written to {out}: {cause}; make room there, or give another folder by --out") from None


def _prepare(out: Path, force: bool) -> Path:
    """The folder as an absolute path, made if need be. Raises UsageError where it cannot be written to."""
    try:
        out = out.resolve()
    except (ValueError, OSError, RuntimeError) as error:  # such as a NUL in it, or links in a circle
        raise UsageError(f"--out {str(out)!r} is no path: {error}; give a folder") from None
    if os.path.exists(out) and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder")
    if os.path.isdir(out) and any(out.iterdir()) and not force:
        raise UsageError(f"--out {out} is not empty: give another folder, or --force to write into it")
    for name in WRITTEN:
        if os.path.islink(out / name):  # it would be followed, out of the folder
            raise UsageError(f"--out {out}: {name} in it is a link: remove it, or give another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be created: {error.strerror}; give another folder") from None
    return out


def _classes(config: dict[str, Any]) -> tuple[str, ...]:
    fidelity = config["fidelity"]
    return load_task(config["task"], TaskRequest(fidelity["resolution"], 1, 1, config["seed"])).classes


def _provenance(study: StudyRecord, trial: EvaluationRecord, figures: FrontMember | None) -> dict[str, Any]:
    latency = trial.latency
    return {
        "study": study.name,
        "trial": trial.trial,
        "placement": trial.placement,
        "host": study.config["space"]["host"],
        "task": study.config["task"],
        "proxy_accuracy": trial.accuracy,
        "latency_ms": latency.ms if latency else None,
        "latency_ratio": [latency.ratio, latency.ratio_low, latency.ratio_high] if latency else None,
        "tier": figures.tier if figures else "dominated",
        "seed": study.seed,
        "versions": study.versions,
    }


def _train_yaml(host: str, placement: str, num_classes: int, resolution: int) -> str:
    recipe = {
        "model": host,
        "model_kwargs": {"attn": placement},
        "device_modules": ["nasattn"],
        "num_classes": num_classes,
        "img_size": resolution,
        "epochs": 100,
        "batch_size": 128,
        "opt": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.05,
        "sched": "cosine",
        "warmup_epochs": 5,
        "smoothing": 0.1,
    }
    return "# for timm's train.py: --config train.yaml --data-dir DATA\n" + yaml.safe_dump(recipe, sort_keys=False)


def _card(study: StudyRecord, trial: EvaluationRecord, figures: FrontMember | None, exported: Exported) -> str:
    latency = trial.latency
    rows = [
        ("placement", code(trial.placement)),
        ("host", code(study.config["space"]["host"])),
        ("parameters (1,000 classes)", f"{trial.params:,}"),
        ("multiply-accumulates", f"{trial.macs / 1e9:.3f} G"),
        ("proxy accuracy", f"{trial.accuracy:.4f} on {code(study.config['task'])} ({trial.val_samples} validation images, seed {trial.seed})" if trial.accuracy is not None else "not trained"),
        ("latency", f"{latency.ms:.2f} ms, {latency.ratio:.3f}x the plain host (95 % interval {latency.ratio_low:.3f} to {latency.ratio_high:.3f})" if latency else "not measured"),
        ("front", f"{figures.tier}, probability of membership {figures.p_member:.2f}" if figures else "dominated"),
        ("study", f"{code(study.name)}, trial {trial.trial}"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    versions = code(", ".join(f"{k} {v}" for k, v in study.versions.items()))
    return f"""---
library_name: timm
tags: [image-classification, timm, nasattn]
---
# {study.config["space"]["host"]} with {trial.placement}

Chosen by nasattn, which searches which attention, in which stage, is worth its latency.

**The weights are freshly initialised**: the search trained a reduced proxy, not this model. Train it before use.

| | |
|---|---|
{table}

```python
{exported.snippet}
```

Train it with timm's `train.py`:

```bash
{exported.train}
```

Proxy: {code(json.dumps(study.config["fidelity"]))}, recipe: {code(json.dumps(study.config["recipe"]))}. Made with {versions}.
"""


_PROOF = """
import sys
import nasattn, timm, torch
from safetensors.torch import load_file, save_file
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
case = load_file(sys.argv[2])
with torch.inference_mode():
    save_file({"output": model(case["images"]), **{"w." + k: v for k, v in model.state_dict().items()}}, sys.argv[3])
"""


def _prove(model: torch.nn.Module, out: Path, resolution: int) -> None:
    """Load the folder by `timm.create_model` in a clean process: every weight and the outputs must be the same."""
    from safetensors.torch import load_file, save_file

    images = torch.randn(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.inference_mode():
        expected = model(images)
    with tempfile.TemporaryDirectory() as folder:
        case, answer = Path(folder) / "case.safetensors", Path(folder) / "answer.safetensors"
        save_file({"images": images}, case)
        try:
            subprocess.run(
                [sys.executable, "-c", _PROOF, str(out), str(case), str(answer)],
                check=True,
                capture_output=True,
                text=True,
                timeout=PROOF_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise NasattnError(f"the exported folder {out} did not load in a clean process within {PROOF_SECONDS} s; try again") from None
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().splitlines()[-1:] or ["no message"]
            raise NasattnError(f"the exported folder {out} cannot be loaded in a clean process: {last[0]}") from None
        got = load_file(answer)
    different = [k for k, v in model.state_dict().items() if not torch.equal(v, got["w." + k])]
    if different:
        raise NasattnError(f"the exported folder {out} gives other weights in a clean process: {', '.join(different[:3])}")
    if not torch.allclose(expected, got["output"], rtol=1e-4, atol=1e-5):
        raise NasattnError(
            f"the exported folder {out} gives other outputs in a clean process: off by {(expected - got['output']).abs().max():.2g}"
        )
