#!/bin/sh
# Debian packages for Kubernetes tests; does nothing where their commands are already there.
#
#   sh e2e/apt.sh promtool DIR   puts promtool, out of the package prometheus, into DIR; nothing is installed (any user)
#   sh e2e/apt.sh node           installs what a node needs (root)
set -eu

NODE_PACKAGES="containerd runc containernetworking-plugins iptables conntrack ethtool socat iproute2 debootstrap zstd"
NODE_COMMANDS="containerd ctr runc iptables conntrack ethtool socat ip debootstrap zstd"

missing() {
    for command in "$@"; do PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || printf '%s ' "$command"; done
}

case ${1:-} in
promtool)
    [ -z "$(missing promtool)" ] || [ -x "$2/promtool" ] && exit
    command -v apt-get >/dev/null || { echo "No promtool, and this is not Debian: its tests are skipped." >&2; exit 0; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    apt-get download -qq prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download -qq prometheus; }
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    mkdir -p "$2" && mv usr/bin/promtool "$2/promtool"
    ;;
node)
    absent=$(missing $NODE_COMMANDS)
    [ -n "$absent" ] || [ ! -d /usr/lib/cni ] || exit 0
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || {
        echo "A node needs ${absent:-/usr/lib/cni}: install Debian's $NODE_PACKAGES, or run this as root on Debian." >&2
        exit 2
    }
    apt-get update -qq
    # The services of these packages stay off: the cluster starts its own containerd.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $NODE_PACKAGES >/dev/null
    ;;
*)
    echo "usage: sh e2e/apt.sh promtool DIR | node" >&2
    exit 2
    ;;
esac
