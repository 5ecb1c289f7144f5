#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images in a registry of one's own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_mirror
short_description: Copy container images to a registry, and prove that they can be pulled from it
version_added: 0.1.0
description:
  - Copies what the registry does not have, with all architectures, and pulls each image back at the end, also those
    that were there already.
  - In the registry an image has the name that C(k8s_storage_image_registry) of the role
    P(clusterkit.storage.k8s_storage#role) makes of it.
extends_documentation_fragment:
  - clusterkit.storage.attributes
attributes:
  check_mode:
    support: full
    details:
      - Looks at both registries. Nothing is copied or pulled.
  diff_mode:
    support: full
    details:
      - The images that are in the registry, before and after.
  idempotent:
    support: full
  platform:
    support: full
    platforms: posix
options:
  images:
    description:
      - The images, such as V(registry.k8s.io/sig-storage/nfs-subdir-external-provisioner:v4.0.2).
    type: list
    elements: str
    required: true
  registry:
    description:
      - The registry, with a path if need be, such as V(registry.example.org:5000/mirror).
    type: str
    required: true
  refresh:
    description:
      - Whether an image is copied again when the one in the registry has another digest than its source. By default
        the source of an image that is there is not asked.
    type: bool
    default: false
  authfile:
    description:
      - A file with credentials for the registry, as C(skopeo login) writes it. By default the one of this user.
    type: path
  username:
    description:
      - User in the registry, instead of O(authfile).
    type: str
  password:
    description:
      - Its password. It is never an argument of a program.
    type: str
  tls_verify:
    description:
      - Whether the registry must have a certificate that this host trusts. V(false) also takes plain HTTP.
    type: bool
    default: true
  source_authfile:
    description:
      - A file with credentials for the registries where the images come from.
    type: path
  source_tls_verify:
    description:
      - As O(tls_verify), for where the images come from.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that one image may take.
    type: int
    default: 600
author:
  - The clusterkit.storage authors (@clusterkit)
requirements:
  - skopeo
seealso:
  - name: skopeo
    description: The program that copies.
    link: https://github.com/containers/skopeo
"""

EXAMPLES = r"""
- name: Have the provisioner in a registry of our own
  clusterkit.storage.image_mirror:
    images:
      - registry.k8s.io/sig-storage/nfs-subdir-external-provisioner:v4.0.2
      - docker.io/library/busybox:1.36
    registry: registry.example.org:5000/mirror
    username: mirror
    password: "{{ vault_mirror_password }}"
"""

RETURN = r"""
images:
  description: Each image, also when some of them failed.
  returned: always, once skopeo was found
  type: list
  elements: dict
  contains:
    image: {description: Where it comes from., type: str, sample: "docker.io/library/busybox:1.36"}
    target:
      description: What it is called in the registry.
      type: str
      sample: "registry.example.org:5000/mirror/library/busybox:1.36"
    state: {description: "V(present), V(copied) or V(failed).", type: str, sample: copied}
    digest: {description: Digest of what was pulled back., type: str, sample: "sha256:0f2b"}
    reason: {description: Why it failed., type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _image_mirror


def main() -> None:
    module = AnsibleModule(_image_mirror.ARGUMENTS, supports_check_mode=True)
    try:
        found = _image_mirror.mirror(module.params, check_mode=module.check_mode)
    except ValueError as error:
        module.fail_json(msg=str(error))
    problems = found.pop("problems")
    there = [one["target"] for one in found["images"] if one["state"] == "present"]
    after = [one["target"] for one in found["images"] if one["state"] != "failed"]
    diff = {"before": "\n".join([*there, ""]), "after": "\n".join([*after, ""])}
    if problems:
        count = f"{len(problems)} of {len(found['images'])} images are not in the registry"
        module.fail_json(msg=f"{count}: {'; '.join(problems)}", diff=diff, **found)
    module.exit_json(diff=diff, **found)


if __name__ == "__main__":
    main()
