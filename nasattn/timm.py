"""Runs one of timm's scripts with our models known to timm: ``python -m nasattn.timm validate.py ...``.

train.py can import us by itself (``--device-modules nasattn``); validate.py and benchmark.py cannot. The scripts are in
timm's repository, not in its wheel.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run ``arguments[0]`` as a script with the rest as its arguments. Exit code 2 when it is not a file."""
    if not arguments or not Path(arguments[0]).is_file():
        got = f"got {arguments[0]!r}, which is no file" if arguments else "got nothing"
        print(
            f"usage: python -m nasattn.timm SCRIPT [ARGUMENTS]: SCRIPT is the path of timm's train.py, validate.py or another; {got}",
            file=sys.stderr,
        )
        return 2
    import nasattn.hosts  # noqa: F401  (registers our models)

    script = Path(arguments[0]).resolve()
    sys.argv = [str(script), *arguments[1:]]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
