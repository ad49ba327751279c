"""What a node changes on its machine outside `WORK`, and how all of it is undone: network, rules, mounts, cgroups.

Undoing looks at the machine and not at a record of what was done, so it works after any crash. It takes every chain of
kube-proxy and of CNI for the node's: one machine, one kubelet.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.settings import BRIDGE, NODE_IP, POD_BRIDGE, POD_CIDR, WORK

CGROUPS = Path("/sys/fs/cgroup")
NAMESPACES = Path("/run/netns")
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGES_ASK_IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
ELSEWHERE = ("/var/log/containers", "/var/lib/cni", "/run/containerd", "/var/lib/kubelet")
CHAINS = re.compile(r"\b(KUBE|CNI)-")
GONE_WITHIN_S = 20


def connect() -> None:
    """Give the node its address, let pods be routed, and keep them from leaving the machine."""
    (WORK / "ip_forward").write_text(FORWARD.read_text())
    (WORK / "absent").write_text("\n".join(place for place in ELSEWHERE if not Path(place).exists()))
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{NODE_IP}/32", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    FORWARD.write_text("1")
    if BRIDGES_ASK_IPTABLES.exists():
        BRIDGES_ASK_IPTABLES.write_text("1")
    for interface in outward():
        _run("iptables", "-I", "FORWARD", "-s", POD_CIDR, "-o", interface, "-j", "REJECT")


def outward() -> list[str]:
    """The interfaces of the default routes."""
    routes = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"\bdev (\S+)", routes)))


def disconnect() -> None:
    """End every container and take back whatever `connect`, kubelet, kube-proxy and CNI did."""
    end_containers()
    for table in ("nat", "mangle", "filter"):
        for family in ("iptables", "ip6tables"):
            _forget_chains(family, table)
    for point in sorted(_mounts(), reverse=True):
        _run("umount", "--lazy", point, check=False)
    for namespace in NAMESPACES.glob("cni-*"):
        namespace.unlink()
    for bridge in (POD_BRIDGE, BRIDGE):
        _run("ip", "link", "delete", bridge, check=False)
    if (WORK / "ip_forward").exists():
        FORWARD.write_text((WORK / "ip_forward").read_text())
    for place in (WORK / "absent").read_text().split() if (WORK / "absent").exists() else []:
        shutil.rmtree(place, ignore_errors=True)


def end_containers() -> None:
    """SIGKILL whatever runs in a cgroup of a pod, and the shims of this containerd; wait until they are gone.

    Raises:
        TimeoutError: one lives on.
    """
    end = time.monotonic() + GONE_WITHIN_S
    while remaining := [*_shims(), *_in_pods()]:
        if time.monotonic() > end:
            raise TimeoutError(f"processes {remaining} of the node live {GONE_WITHIN_S} s after SIGKILL")
        for pid in remaining:
            kill(pid)
        time.sleep(0.05)
    for folder in sorted(_pod_cgroups(), reverse=True):
        folder.rmdir()


def leftovers() -> list[str]:
    """What is still there of a node that is down; empty when `disconnect` did all."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout.splitlines()
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [
        *(rule for rule in rules if _is_ours(rule)),
        *(link for link in links if link.startswith((BRIDGE, POD_BRIDGE, "veth"))),
        *_mounts(),
        *(str(place) for place in (*NAMESPACES.glob("cni-*"), *_pod_cgroups(), WORK) if place.exists()),
        *(f"process {pid}" for pid in _shims()),
    ]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _is_ours(rule: str) -> bool:
    return bool(CHAINS.search(rule)) or POD_CIDR in rule


def _forget_chains(family: str, table: str) -> None:
    """Write a table back without the rules and chains of kube-proxy and CNI, at once and not rule by rule."""
    saved = subprocess.run([f"{family}-save", "-t", table], capture_output=True, text=True, check=False).stdout
    kept = [rule for rule in saved.splitlines() if not _is_ours(rule)]
    if kept != saved.splitlines():
        restore = [f"{family}-restore", "-T", table]
        subprocess.run(restore, input="\n".join([*kept, ""]), text=True, check=True, capture_output=True)


def _mounts() -> list[str]:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [point for point in points if point.startswith((f"{WORK}/", f"{NAMESPACES}/cni-"))]


def _pod_cgroups() -> list[Path]:
    """The cgroups of all pods, of every hierarchy of cgroup v1 and of v2."""
    roots = [*CGROUPS.glob("*/kubepods"), *CGROUPS.glob("kubepods")]
    return [Path(folder) for root in roots for folder, _, _ in os.walk(root)]


def _in_pods() -> Iterator[int]:
    for folder in _pod_cgroups():
        yield from map(int, (folder / "cgroup.procs").read_text().split())


def _shims() -> Iterator[int]:
    """Each container's parent; it names the socket of its containerd."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"containerd-shim" in words[0] and any(word.startswith(bytes(WORK)) for word in words):
            yield int(process.name)


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True, text=True)
