# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx: the guides, and the documentation of modules, filters and roles that antsibull-docs writes beside them."""

from __future__ import annotations

project = "clusterkit.storage"
author = project_copyright = "The clusterkit.storage authors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "clusterkit.storage"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
smartquotes = False  # options begin with two dashes
# Labels of Ansible's own documentation and of other collections: they become links online only. References within
# this collection are checked by antsibull-docs, the finished pages by scripts/dead_links.py.
suppress_warnings = ["ref.ref"]
