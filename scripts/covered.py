# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold the coverage that pytest has just measured to 95 % of the lines and 95 % of the branches, each for itself."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

import coverage

LEAST = 95.0


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        measured.json_report(outfile=f"{folder}/coverage.json")
        totals = json.loads(Path(folder, "coverage.json").read_text())["totals"]
    shares = {
        "lines": 100 * totals["covered_lines"] / totals["num_statements"],
        "branches": 100 * totals["covered_branches"] / totals["num_branches"],
    }
    told = ", ".join(f"{share:.1f} % of the {what}" for what, share in shares.items())
    print(f"coverage of module_utils by unit tests: {told}")
    short = [what for what, share in shares.items() if share < LEAST]
    if short:
        text = io.StringIO()
        measured.report(file=text, show_missing=True, skip_covered=True)
        print(text.getvalue() + f"coverage: less than {LEAST:g} % of the {' and of the '.join(short)}")
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
