# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the server's code that need no lab: everything below imports the collection by its name."""

from tests.import_name import register

register()
