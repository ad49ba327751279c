"""The configuration files of a node's programs, written below `CONFIG`."""

from __future__ import annotations

import json
from typing import Any

from e2e import environment
from e2e.settings import (
    CONFIG,
    CONTAINERD_SOCKET,
    DNS_IP,
    NODE,
    NODE_IP,
    PAUSE_IMAGE,
    PKI,
    POD_BRIDGE,
    POD_CIDR,
    WORK,
)

# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower a score, and no sandbox would start.
CONTAINERD = f"""
version = 2
root = "{WORK}/containerd"
state = "{WORK}/containerd-state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{WORK}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{CONFIG}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "{CONFIG}/container.json"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def write_all(containers: dict[str, Any]) -> None:
    """Write every file. kube-proxy ends when its file changes under it, so: only while nothing runs.

    Args:
        containers: containerd's default specification of a container.
    """
    (CONFIG / "cni").mkdir(parents=True)
    (CONFIG / "containerd.toml").write_text(CONTAINERD)
    (CONFIG / "resolv.conf").write_text("")
    contents = {
        "container.json": container(containers),
        "cni/10-pods.conflist": pod_network(),
        "kubelet.yaml": kubelet(),
        "proxy.yaml": proxy(),
    }
    for name, content in contents.items():
        (CONFIG / name).write_text(json.dumps(content, indent=1))  # JSON is YAML, too


def container(default: dict[str, Any]) -> dict[str, Any]:
    """What every container begins with: containerd's own default and what the host lends.

    Without the default's limit of 1024 open files, which containers have only when such a file is given.
    """
    process = {key: value for key, value in default["process"].items() if key != "rlimits"}
    return {**default, "process": process, "mounts": [*default["mounts"], *environment.mounts()]}


def pod_network() -> dict[str, Any]:
    """Pods reach each other, services and the node; nothing masks their addresses on the way to anywhere else."""
    addresses = {
        "type": "host-local",
        "dataDir": f"{WORK}/pod-addresses",
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": POD_BRIDGE, "isGateway": True, "ipMasq": False, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": addresses}, ports]}


def kubelet() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "cgroupDriver": "cgroupfs",
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "failCgroupV1": False,
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{CONFIG}/resolv.conf",
        "podLogsDir": f"{WORK}/pod-logs",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{PKI}/kubelet-serving.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet-serving.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "imageGCHighThresholdPercent": 100,  # an image that is collected cannot be pulled again
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
        "shutdownGracePeriod": "0s",
    }


def proxy() -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "oomScoreAdj": 0,
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "nodePortAddresses": [f"{NODE_IP}/32"],
        "clientConnection": {"kubeconfig": f"{WORK}/proxy.conf"},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
