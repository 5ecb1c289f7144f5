# SPDX-License-Identifier: GPL-3.0-or-later
"""A typo is answered with the word that was meant, nonsense with nothing."""

from __future__ import annotations

from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean, nearest


def test_typo_finds_the_word_that_was_meant() -> None:
    assert nearest("rww", ["ro", "rw", "sync"]) == "rw"
    assert nearest("No_Root_Squash", ["root_squash", "no_root_squash"]) == "no_root_squash"
    assert did_you_mean("asnyc", ["sync", "async"]) == '; did you mean "async"?'


def test_nonsense_finds_nothing() -> None:
    assert nearest("xyzzy", ["ro", "rw"]) is None
    assert did_you_mean("xyzzy", ["ro", "rw"]) == ""
