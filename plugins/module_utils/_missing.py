# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the directory of a volume is certainly not there: pure.

That it is not in a list proves nothing. The disk may not be mounted, a link may lead to the directory, somebody may
have moved it, or it may be younger than the list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import Place
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

# Clocks of servers and of the API may differ by so much, and the order of two listings is still taken from them.
CLOCKS = 60.0


class Absence:
    """What can be said of the directories that are not in the list of a host.

    C(used): the names of the volumes of all clusters by the directories of this host that they name.
    """

    def __init__(self, found: DirectorySet, listing: Listing, used: Mapping[str, Collection[str]]) -> None:
        self._found = found
        self._listing = listing
        self._used = used
        self._shares = {share["path"]: share for share in found.shares}
        self._there = {record["path"] for record in found.directories}
        self._strangers: dict[str, str] = {}  # directories of no volume, by their last part
        for path in sorted(self._there - set(used)):
            self._strangers.setdefault(_name(path), path)

    def doubt(self, volume: Volume, place: Place) -> str:
        """Why it is not certain that the directory of a volume does not exist; empty if it is."""
        share = self._shares[place.share]
        above, gap = self._deepest(place)
        return (
            self._not_this_disk(share, above)
            or self._not_listed(above, place)
            or self._something_there(share, gap)
            or self._elsewhere(volume, place)
            or self._too_young(volume)
        )

    def _deepest(self, place: Place) -> tuple[str, str]:
        """The last directory on the way that is there, and the path behind it, which is not."""
        above, gap = place.directory, place.directory
        while above != place.share and above not in self._there:
            above, gap = above.rpartition("/")[0] or "/", above
        return above, gap

    def _not_this_disk(self, share: Mapping[str, Any], above: str) -> str:
        if not self._found.complete:
            return f"not everything could be listed: {'; '.join(self._found.problems[:3])}"
        if self._listing.cluster_uid not in share["clusters"]:
            return f"the owner file of {share['path']} does not name this cluster: is its disk mounted?"
        below = f"{above.rstrip('/')}/"
        if not any(path.startswith(below) and path in self._there for path in self._used):
            return f"of the volumes in {above} not one directory is there: is a disk mounted there?"
        return ""

    def _not_listed(self, above: str, place: Place) -> str:
        if above != place.share and above not in self._found.parents:
            return f"{above} was not listed"
        return ""

    @staticmethod
    def _something_there(share: Mapping[str, Any], gap: str) -> str:
        if gap in share["other_paths"]:
            return f"{gap} is there, and is no directory: it may be a link that leads to one"
        if not share["other_paths_complete"]:
            return f"too many files lie in {share['path']} to know whether one of them is a link to it"
        return ""

    def _elsewhere(self, volume: Volume, place: Place) -> str:
        users = self._used.get(place.directory, ())
        if len(users) > 1:
            return f"{place.directory} is the directory of {', '.join(sorted(users))}"
        for record in self._found.quarantined:
            if (record["volume"] or {}).get("uid") == volume.uid or record["directory"] == place.directory:
                return f"{place.directory} is in quarantine, as {record['entry']}: bring it back, or purge it first"
        if any((intent["volume"] or {}).get("uid") == volume.uid for intent in self._found.intents):
            return "an intent is open for it, which has to be settled first"
        stranger = self._strangers.get(_name(place.directory))
        return f"{stranger} has the name of its directory: was it moved there?" if stranger else ""

    def _too_young(self, volume: Volume) -> str:
        listed, asked = seconds_of(self._found.listed_at), seconds_of(self._listing.listed_at)
        if listed > asked + CLOCKS:
            return (
                f"the directories were listed at {self._found.listed_at}, and the API was asked before that, at "
                f"{self._listing.listed_at}, or the clocks differ"
            )
        if volume.released_at and seconds_of(volume.released_at) > listed - CLOCKS:
            return f"it was given back at {volume.released_at}, when the directories were listed; run it again"
        return ""


def _name(path: str) -> str:
    return path.rpartition("/")[2]
