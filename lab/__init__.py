# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: real Debian machines, real kernel NFS and a real Kubernetes cluster on one computer."""
