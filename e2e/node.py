"""A Kubernetes of one node on this machine: its own containerd, kubelet and control plane. Linux, as root.

    python -m e2e.node up        start it and wait until the node is Ready and DNS answers (about 20 s)
    python -m e2e.node down      end it and leave nothing: no process, mount, network interface, rule or file
    python -m e2e.node status    what runs

Everything lies in `WORK`; `KUBECONFIG` for it is `WORK/admin.conf`. The node has no way to a registry: its images are
those of `images.py`. Keys are on disk and etcd does not sync: it is for tests, and for one machine at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e import assets, configuration, environment, host, images
from e2e.authority import Authority
from e2e.settings import (
    ADMIN,
    API_URL,
    CONFIG,
    CONTAINERD_SOCKET,
    ETCD_URL,
    KUBERNETES_IP,
    LOGS,
    NODE,
    NODE_IP,
    PKI,
    POD_CIDR,
    SERVICE_CIDR,
    WORK,
)

MANIFESTS = Path(__file__).parent / "manifests"
STOPS_WITHIN_S = 10
MASTERS = ("system:masters",)
# The users that Kubernetes gives the rights of its own programs.
USERS = {
    "admin": ("admin", MASTERS),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "kubelet": (f"system:node:{NODE}", ("system:nodes",)),
    "proxy": ("system:kube-proxy", ()),
}


class NodeError(RuntimeError):
    """The node is not as it should be; the message says what is wrong and where its logs are."""


def kubectl(*arguments: str, stdin: str | None = None, timeout_s: float = 120, check: bool = True) -> str:
    """Run kubectl as the administrator; what it printed.

    Raises:
        NodeError: it failed, unless `check` is False.
    """
    command = [str(assets.program("kubectl")), f"--kubeconfig={ADMIN}", *arguments]
    ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and ended.returncode:
        raise NodeError(f"kubectl {' '.join(arguments)} failed: {ended.stderr.strip()}")
    return ended.stdout if check else ended.stdout + ended.stderr


def up() -> None:
    """Start everything.

    Raises:
        NodeError: one runs already, or a part was not ready in time.
        AssetError: a program or an image cannot be made.
    """
    if os.geteuid() or sys.platform != "linux":
        raise NodeError("a node needs Linux and root")
    if WORK.exists() or list(host.CGROUPS.glob("*/kubepods")):
        raise NodeError(f"{WORK} or a cgroup 'kubepods' exists: a node runs here, end it with 'make cluster-down'")
    if hidden := environment.hidden():
        raise NodeError(f"{hidden[0]} lies in {environment.OF_PODS}, which pods cover: move the checkout elsewhere")
    missing = assets.missing(assets.CLUSTER)
    if missing:
        raise NodeError(f"no {', '.join(missing)}: run 'make cluster-assets'")
    for folder in (WORK, LOGS):
        folder.mkdir(mode=0o700)
    configuration.write_all(json.loads(_ctr("oci", "spec")))
    _write_keys()
    host.connect()
    _start_control_plane()
    _start_node()
    kubectl("apply", f"--filename={MANIFESTS / 'coredns.yaml'}")
    kubectl("--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")


def _write_keys() -> None:
    authority = Authority(PKI)
    parts = ("kubernetes", "default", "svc", "cluster", "local")
    names = [".".join(parts[: length + 1]) for length in range(len(parts))]
    authority.issue("apiserver", "kube-apiserver", hosts=[*names, "localhost", KUBERNETES_IP, NODE_IP, "127.0.0.1"])
    authority.issue("apiserver-kubelet", "apiserver-kubelet", MASTERS)
    authority.issue("kubelet-serving", f"system:node:{NODE}", ("system:nodes",), hosts=[NODE, NODE_IP])
    authority.issue("front-proxy", "front-proxy")
    authority.service_account_keys()
    for file, (user, groups) in USERS.items():
        authority.kubeconfig(WORK / f"{file}.conf", API_URL, user=user, groups=groups)


def _start_control_plane() -> None:
    peers = "http://127.0.0.1:2380"
    urls = [f"--listen-client-urls={ETCD_URL}", f"--advertise-client-urls={ETCD_URL}"]
    urls += [
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]
    _start("etcd", f"--data-dir={WORK}/etcd", "--unsafe-no-fsync", *urls)
    _start("kube-apiserver", *_api_server_arguments())
    _await("the API server", 60, lambda: kubectl("get", "--raw=/readyz"))
    _start(
        "kube-controller-manager",
        *_as("controller-manager"),
        "--use-service-account-credentials=true",
        f"--root-ca-file={PKI}/ca.crt",
        f"--service-account-private-key-file={PKI}/service-accounts.key",
        f"--cluster-cidr={POD_CIDR}",
        "--allocate-node-cidrs=false",
    )
    _start("kube-scheduler", *_as("scheduler"))


def _api_server_arguments() -> list[str]:
    header = "--requestheader"
    return [
        f"--etcd-servers={ETCD_URL}",
        f"--bind-address={NODE_IP}",
        f"--advertise-address={NODE_IP}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={PKI}/ca.crt",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={PKI}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={PKI}/service-accounts.pub",
        f"--service-account-signing-key-file={PKI}/service-accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"{header}-client-ca-file={PKI}/ca.crt",
        f"{header}-allowed-names=front-proxy",
        f"{header}-username-headers=X-Remote-User",
        f"{header}-group-headers=X-Remote-Group",
        f"{header}-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={PKI}/front-proxy.crt",
        f"--proxy-client-key-file={PKI}/front-proxy.key",
    ]


def _as(user: str) -> list[str]:
    file = WORK / f"{user}.conf"
    identity = [
        f"{option}={file}" for option in ("--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig")
    ]
    return [*identity, "--bind-address=127.0.0.1", "--leader-elect=false"]


def _start_node() -> None:
    _start("containerd", f"--config={CONFIG}/containerd.toml", program=_installed("containerd"))
    _await("containerd", 20, lambda: _ctr("version"))
    for archive in images.write_all(WORK):
        _ctr("images", "import", str(archive), timeout_s=120)
        archive.unlink()
    kubelet = [f"--config={CONFIG}/kubelet.yaml", f"--kubeconfig={WORK}/kubelet.conf", f"--root-dir={WORK}/kubelet"]
    _start("kubelet", *kubelet, f"--hostname-override={NODE}", f"--node-ip={NODE_IP}", f"--cert-dir={PKI}")
    _start("kube-proxy", f"--config={CONFIG}/proxy.yaml")
    _await("the node's registration", 60, lambda: kubectl("get", "node", NODE))
    kubectl("wait", f"node/{NODE}", "--for=condition=Ready", "--timeout=60s")
    _await("the service account 'default'", 30, lambda: kubectl("get", "serviceaccount", "default"))


def down() -> None:
    """End everything and delete it, whatever state it is in.

    Raises:
        NodeError: something is left.
    """
    running = {int(file.read_text()): file.stem for file in WORK.glob("*.pid")}
    for pid in running:
        host.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOPS_WITHIN_S
    while time.monotonic() < end and any(_runs(pid) for pid in running):
        time.sleep(0.05)
    for pid in filter(_runs, running):
        host.kill(pid)
    host.disconnect()
    shutil.rmtree(WORK, ignore_errors=True)
    left = host.leftovers()
    if left:
        raise NodeError(f"the node is down, but on this machine are still: {', '.join(left[:10])}")


def status() -> str:
    """One line for each program of the node."""
    files = sorted(WORK.glob("*.pid"))
    lines = [f"{file.stem}: {'runs' if _runs(int(file.read_text())) else 'ended, see ' + str(LOGS)}" for file in files]
    return "\n".join(lines) or "down"


def _start(name: str, *arguments: str, program: Path | None = None) -> None:
    with (LOGS / f"{name}.log").open("ab") as log:
        command = [str(program or assets.program(name)), *arguments]
        process = subprocess.Popen(
            command, cwd=WORK, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (WORK / f"{name}.pid").write_text(f"{process.pid}\n")


def _await(what: str, within_s: float, probe: Callable[[], object]) -> None:
    end = time.monotonic() + within_s
    while True:
        try:
            probe()
            return
        except (NodeError, subprocess.TimeoutExpired) as error:
            if time.monotonic() > end:
                raise NodeError(
                    f"{what} was not ready after {within_s:g} s ({error}); the logs are in {LOGS}"
                ) from None
        time.sleep(0.1)


def _ctr(*arguments: str, timeout_s: float = 3) -> str:
    command = [str(_installed("ctr")), f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if ended.returncode:
        raise NodeError(f"ctr {' '.join(arguments)} failed: {ended.stderr.strip()}")
    return ended.stdout


def _installed(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise NodeError(f"no {name} on this machine: run 'sh e2e/apt.sh node'")
    return Path(found)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("up", "down", "status"):
        print("usage: python -m e2e.node up|down|status", file=sys.stderr)
        return 2
    try:
        if arguments[0] == "status":
            print(status())
        else:
            {"up": up, "down": down}[arguments[0]]()
    except (NodeError, assets.AssetError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
