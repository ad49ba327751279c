"""A person's way to the cluster: the kubeconfig with everything it may hold, and errors in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config

from twinkle_operator import strip
from twinkle_operator.errors import OperatorError
from twinkle_operator.observed import Stack
from twinkle_operator.resources import STACKS, Manifest

DEADLINE_S = 20


class Access:
    """Calls with the rights of whom the kubeconfig names; `namespace` is the one asked for, else the context's."""

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        try:
            self.api = config.new_client_from_config(context=context)
            contexts, active = config.list_kube_config_contexts()
        except (config.ConfigException, OSError) as error:
            raise OperatorError(f"the kubeconfig cannot be used: {error}") from error
        chosen = next((each for each in contexts if each["name"] == context), active)
        self.namespace = namespace or chosen.get("context", {}).get("namespace") or "default"
        self.core = client.CoreV1Api(self.api)

    def stack(self, name: str) -> tuple[Stack, Manifest]:
        """A stack, decoded and as it is.

        Raises:
            OperatorError: there is none, or it may not be read.
        """
        custom = client.CustomObjectsApi(self.api)
        with asked(f"TrainingStack {self.namespace}/{name}"):
            raw: Any = custom.get_namespaced_custom_object(
                STACKS.group, STACKS.version, self.namespace, STACKS.plural, name, _request_timeout=DEADLINE_S
            )
        return strip.stack(raw), raw

    def pods(self, selector: str) -> list[Manifest]:
        """The pods that a label selector names."""
        with asked(f"pods of {self.namespace}"):
            found = self.core.list_namespaced_pod(self.namespace, label_selector=selector, _request_timeout=DEADLINE_S)
        plain: list[Manifest] = self.api.sanitize_for_serialization(found.items)
        return plain


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Turn what the client raises into one sentence about `what`."""
    try:
        yield
    except client.ApiException as error:
        if not error.status:  # of a WebSocket that was not opened
            raise OperatorError(f"{what}: the API server does not answer ({error.reason})") from error
        reasons = {401: "the kubeconfig's login is not valid", 403: "you may not do that", 404: "there is none"}
        why = reasons.get(error.status, f"the API server answered {error.status} {error.reason}")
        raise OperatorError(f"{what}: {why}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise OperatorError(f"{what}: the API server does not answer ({type(error).__name__}: {error})") from error
