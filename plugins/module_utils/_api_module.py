# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnsibleModule of modules that talk to the Kubernetes API: access as in kubernetes.core, and no secret told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.clusterkit.storage.plugins.module_utils import _changes
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api, Patience
from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import HAS_KUBERNETES, Access
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._files import replace_lines
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_MAP, AUTH_ARG_SPEC

try:
    import kubernetes
    import urllib3
except ImportError:
    pass

API_ARGUMENTS: dict[str, Any] = {
    "request_timeout": {"type": "int", "default": 30},
    "retry_timeout": {"type": "int", "default": 120},
}
_SECRET_KEYS = {
    "token", "password", "client-key-data", "client-certificate-data", "certificate-authority-data", "api_key",
    "access-token", "refresh-token", "id-token", "client-secret",
}  # fmt: skip
_HEADERS = {"impersonate_user": "Impersonate-User", "impersonate_groups": "Impersonate-Group"}


class ApiModule(AnsibleModule):  # type: ignore[misc] # ansible-core has no types
    """Adds the arguments of access to the module's own; C(client()) gives the API."""

    def __init__(self, argument_spec: Mapping[str, Any], **options: Any) -> None:
        super().__init__(argument_spec={**AUTH_ARG_SPEC, **API_ARGUMENTS, **argument_spec}, **options)
        if not HAS_KUBERNETES:
            self.fail_json(msg=missing_required_lib("kubernetes"))

    def _load_params(self) -> None:
        # Before the arguments are judged: what a failure tells of them must not hold the secrets of a kubeconfig.
        super()._load_params()
        self.no_log_values.update(secrets_of(self.params.get("kubeconfig")))

    def client(self) -> Api:
        """Raises ApiError when the access is wrong."""
        try:
            configuration, secrets = configuration_of(access_arguments(self.params))
        except Exception as error:
            # The loaders of kubeconfigs, exec plugins and clouds raise what they like.
            raise ApiError(f"the access to the API cannot be read: {type(error).__name__}: {error}") from error
        access = Access.of(configuration, headers_of(self.params), self.no_log_values)
        self.no_log_values.update(secrets)
        access.headers()
        patience = Patience(self.params["request_timeout"], self.params["retry_timeout"])
        return Api(access, patience, dry_run=self.check_mode)

    def carry_out(self, kind: str, do: Callable[..., Outcome], dest: str | None) -> None:
        """End with what C(do) tells of each item, or with the error that kept it from beginning.

        C(kind) of the items is C(volume) or C(claim). C(dest) gets all of them as lines of JSON, outside of check mode.
        Of those that are unchanged the result has the names: there may be tens of thousands, and the controller reads
        them all.
        """
        try:
            done = do(self.client(), self.params, check_mode=self.check_mode, diff=self._diff)
        except (ApiError, ValueError) as error:
            self.fail_json(msg=str(error))
        told = [one for one in done.items if one["state"] != "unchanged"]
        unchanged = [one[_changes.KEYS[kind]] for one in done.items if one["state"] == "unchanged"]
        result: dict[str, Any] = {"changed": done.changed, f"{kind}s": told, "unchanged": unchanged, **done.more}
        problems = [done.problem] if done.problem else []
        if dest and not self.check_mode:
            try:
                replace_lines(dest, (json.dumps(one, sort_keys=True) for one in done.items))
                result["dest"] = dest
            except OSError as error:
                problems.append(f"{dest} cannot be written: {error}")
        if done.plan_id:
            result["plan_id"] = done.plan_id
        if done.diffs:
            result["diff"] = done.diffs
        if problems:
            self.fail_json(msg="; ".join(problems), **result)
        self.exit_json(**result)


def access_arguments(parameters: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Arguments by the names of the client library; from K8S_AUTH_* where they are not given, as in kubernetes.core."""
    environment = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    for target, name in AUTH_ARG_MAP.items():
        value = parameters.get(name)
        if value is None and name == "proxy_headers":
            options = AUTH_ARG_SPEC[name]["options"]
            value = {key: environment.get(f"K8S_AUTH_PROXY_HEADERS_{key.upper()}") for key in options}
            value = {key: text for key, text in value.items() if text is not None} or None
        elif value is None:
            value = environment.get(f"K8S_AUTH_{name.upper()}") or environment.get(f"K8S_AUTH_{target.upper()}")
            if value is not None and AUTH_ARG_SPEC[name].get("type") == "bool":
                value = value.lower() not in ("0", "false", "no")
        if value is not None:
            found[target] = value
    return found


def headers_of(parameters: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Headers with all their values: the API wants one Impersonate-Group for each group."""
    environment = os.environ if environment is None else environment
    found = {}
    for name, header in _HEADERS.items():
        value = parameters.get(name) or environment.get(f"K8S_AUTH_{name.upper()}") or []
        if isinstance(value, str):
            value = [one for one in value.split(",") if one] if name == "impersonate_groups" else [value]
        if value:
            found[header] = list(value)
    return found


def configuration_of(access: dict[str, Any]) -> tuple[Any, set[str]]:
    """The client library's configuration, by the same order of sources as kubernetes.core, and the secrets in it."""
    given = {name for name, value in access.items() if value}
    direct = "host" in given and (
        {"username", "password"} <= given or "api_key" in given or {"cert_file", "key_file"} <= given
    )
    if not direct:
        _load(access, given)
    configuration = kubernetes.client.Configuration.get_default_copy()
    secrets = secrets_of(access.get("kubeconfig"))
    for name, value in access.items():
        if name == "host":
            configuration.host = value.rstrip("/")
        elif name == "api_key":
            configuration.api_key = {"authorization": f"Bearer {value}"}
        elif name == "proxy_headers":
            configuration.proxy_headers = urllib3.util.make_headers(**value)
        elif name not in ("kubeconfig", "context", "persist_config"):
            setattr(configuration, name, value)
    secrets |= {text for text in (access.get("api_key"), access.get("password")) if text}
    return configuration, secrets


def _load(access: Mapping[str, Any], given: set[str]) -> None:
    options = {"context": access.get("context")}
    if access.get("persist_config") is not None:
        options["persist_config"] = access["persist_config"]
    if not given & {"kubeconfig", "context"}:
        try:
            kubernetes.config.load_incluster_config()
        except kubernetes.config.ConfigException:
            kubernetes.config.load_kube_config(**options)
    elif isinstance(access.get("kubeconfig"), dict):
        kubernetes.config.load_kube_config_from_dict(config_dict=access["kubeconfig"], **options)
    else:
        kubernetes.config.load_kube_config(config_file=access.get("kubeconfig"), **options)


def secrets_of(kubeconfig: Any) -> set[str]:
    """Values that must not be told, of a kubeconfig given as data."""
    if isinstance(kubeconfig, Mapping):
        found: set[str] = set()
        for key, value in kubeconfig.items():
            if key in _SECRET_KEYS and isinstance(value, str) and value:
                found.add(value)
            else:
                found |= secrets_of(value)
        return found
    if isinstance(kubeconfig, (list, tuple)):
        return set().union(*map(secrets_of, kubeconfig)) if kubeconfig else set()
    return set()
