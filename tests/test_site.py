"""The documentation site: it builds without a warning, and its pages ask nothing of another server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preload|preconnect|dns-prefetch))[^>]*?\bhref=[\"']?([^\"'\s>]+)")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=570, env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = [p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")]
    assert all((site / page).is_file() for page in pages)
    assert "--compute-budget" in (site / "reference/cli.html").read_text()
    assert 'id="nasattn.api.search"' in (site / "reference/api.html").read_text()


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    loaded = {page: ["".join(found) for found in LOADED.findall(page.read_text())] for page in pages}
    assert all(any(each.endswith(".css") for each in found) for found in loaded.values())
    assert [(page.name, each) for page, found in loaded.items() for each in found if re.match(r"(\w+:)?//", each)] == []
    styles = [style.read_text() for style in site.rglob("*.css")]
    assert not any(re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style) for style in styles)


def test_links_between_pages_hold(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target in re.findall(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"#:]+)(?:#[^\"]*)?\"", page.read_text()):
            assert target.startswith("/") or (page.parent / target).exists(), f"{page.name}: {target}"
