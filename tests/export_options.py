# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of exports(5) for tests, and what they mean."""

from __future__ import annotations

from ansible_collections.clusterkit.storage.plugins.module_utils import _export_options
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect, Meaning
from hypothesis import strategies as st

FLAGS = st.sampled_from(sorted(_export_options.FLAG_OPTIONS))
VALUES = st.sampled_from(
    [
        *("anonuid=0", "anonuid=-2", "anongid=1000", "fsid=0", "fsid=77", "fsid=12345678-1234-1234-1234-123456789abc"),
        *("mountpoint", "mountpoint=/srv", "refer=/a@b+c:/d@e", "replicas=/x@y"),
        *("sec=sys", "sec=krb5:krb5p", "sec=none", "xprtsec=tls:mtls"),
    ]
)
options_lists = st.lists(st.one_of(FLAGS, VALUES), max_size=8)


def meaning(options: str, dialect: Dialect = _export_options.NEWEST) -> Meaning:
    found, problem = _export_options.read_options(options, dialect)
    assert problem is None, problem
    return found
