"""Where the cluster of one node lives. Nothing of it listens on, or can leave through, the machine's own network."""

from pathlib import Path

NODE = "node1"
NODE_IP = "10.250.0.1"  # on a bridge without ports: kernels of small machines lack dummy interfaces
BRIDGE = "twinkle-node"
POD_BRIDGE = "twinkle-pods"
POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
API_URL = f"https://{NODE_IP}:6443"
ETCD_URL = "http://127.0.0.1:2379"

WORK = Path("/var/lib/twinkle-e2e")  # everything: state, images, logs, keys; `down` deletes it
CONFIG = WORK / "etc"
PKI = WORK / "pki"
LOGS = WORK / "logs"
ADMIN = WORK / "admin.conf"
CONTAINERD_SOCKET = WORK / "containerd.sock"

PAUSE_IMAGE = "localhost/twinkle-pause:1"
COREDNS_IMAGE = "localhost/twinkle-coredns:1"
KUBERAY_IMAGE = "localhost/twinkle-kuberay:1"
TWINKLE_IMAGE = "localhost/twinkle:latest"  # that of the examples: Debian; its Python packages are lent by the host
