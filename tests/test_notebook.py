"""The notebook in `examples/`, executed from its first cell to its last as a reader would."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "search_and_export.ipynb"
LONGEST = 900  # seconds of a cell, on a machine with much else to do


def test_it_is_kept_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    for name in ("NASATTN_STORAGE", "NASATTN_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kernel = AsyncKernelManager(kernel_name="python3")
    # whatever kernel the machine's Jupyter calls python3: this interpreter
    kernel.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    NotebookClient(notebook, km=kernel, timeout=LONGEST, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(o.text for o in shown if o.output_type == "stream" and o.name == "stdout")
    pages = [o.data["text/html"] for o in shown if "text/html" in o.get("data", {})]
    for text in ("Ended: ", "[6/6] trial ", "timm.create_model(", "(1, 10) [(1, 64, 112, 112)"):
        assert text in printed, f"{text!r} is not in: {printed}"
    assert "<h4>notebook</h4>" in pages[0] and "nasattn_resnet18" in pages[0] and "none,none,none,none" in pages[1]
    assert any("application/vnd.plotly.v1+json" in o.get("data", {}) for o in shown)
    assert (tmp_path / "notebook.db").is_file() and (tmp_path / "model" / "config.json").is_file()
