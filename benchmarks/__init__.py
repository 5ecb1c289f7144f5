# SPDX-License-Identifier: GPL-3.0-or-later
"""Run as `python -m benchmarks.NAME` from the root of the repository; README.md lists them."""

from tests.import_name import register

register()
