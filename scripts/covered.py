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
# Conversations with the API server or with the tools of a host. They are tried on the real ones, in processes of their
# own that are not measured: tests/integration/cluster, tests/exportfs.
TRIED_ELSEWHERE = ["_expand_run", "_listing", "_pod_set", "_reclaim_run", "_volume_set", "_export_mounts", "_firewall"]


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    left_out = [f"*/module_utils/{name}.py" for name in TRIED_ELSEWHERE]
    with tempfile.TemporaryDirectory() as folder:
        measured.json_report(outfile=f"{folder}/coverage.json", omit=left_out)
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
        measured.report(file=text, show_missing=True, skip_covered=True, omit=left_out)
        print(text.getvalue() + f"coverage: less than {LEAST:g} % of the {' and of the '.join(short)}")
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
