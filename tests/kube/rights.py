"""Who the operator is in tests: a user that has exactly the rights of `twinkle_operator.permissions`."""

from __future__ import annotations

from pathlib import Path

from kubernetes import client

from tests.kube.cluster import ApiServer
from twinkle_operator import permissions

RBAC = "rbac.authorization.k8s.io"


def operator_user(server: ApiServer, name: str, namespaces: tuple[str, ...] = ()) -> Path:
    """A kubeconfig of a new user with the operator's rights, in these namespaces or (none) the whole cluster."""
    rbac = client.RbacAuthorizationV1Api(server.client())
    subject = {"kind": "User", "name": name, "apiGroup": RBAC}
    kind = "Role" if namespaces else "ClusterRole"
    role = {"metadata": {"name": name}, "rules": permissions.manifest()}
    binding = {
        "metadata": {"name": name},
        "subjects": [subject],
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
    }
    for namespace in namespaces:
        rbac.create_namespaced_role(namespace, role)
        rbac.create_namespaced_role_binding(namespace, binding)
    if not namespaces:
        rbac.create_cluster_role(role)
        rbac.create_cluster_role_binding(binding)
    return server.kubeconfig(name)
