"""timm knows our models: whichever is imported first, and in its own scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("first", ["nasattn, timm", "timm, nasattn"])
def test_the_models_are_registered_in_either_order(first: str) -> None:
    code = f"import {first}; print(*timm.list_models())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    models = {"nasattn_resnet18", "nasattn_regnety_008", "nasattn_efficientnet_b0", "nasattn_convnext_tiny"}
    models |= {
        *(f"van_b{n}" for n in range(7)),
        *(f"boat_{kind}_{size}" for kind in ("swin", "cswin") for size in ("tiny", "small", "base")),
    }
    assert models <= set(done.stdout.split())


def test_a_script_runs_with_our_models_known(tmp_path: Path) -> None:
    script = tmp_path / "count.py"
    script.write_text("import sys, timm\nprint(sys.argv[1:], timm.list_models('nasattn_resnet50'), __name__)")
    done = subprocess.run([sys.executable, "-m", "nasattn.timm", str(script), "--a", "b"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['--a', 'b'] ['nasattn_resnet50'] __main__"


def test_a_missing_script_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "nasattn.timm", "absent.py"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "'absent.py', which is no file" in done.stderr
