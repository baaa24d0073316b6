#!/usr/bin/env bash
# Installs the Debian packages (12 or 13) that NumaVM's lab and tests need and that are missing.
# Asks dpkg only where nothing is missing. Needs root or sudo; works with and without systemd.
set -euo pipefail

wanted=(
    # a Python environment, with libvirt-python built from source
    python3 python3-venv python3-dev gcc libc6-dev pkg-config libvirt-dev
    # the control plane
    etcd-server etcd-client ca-certificates
    # virtual machines, here and inside the lab hosts
    libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
    # metrics and alerts
    prometheus
    # images, and a whole node for the Helm chart
    buildah mmdebstrap containerd runc containernetworking-plugins
    # the lab hosts and the witness guest
    busybox-static dropbear-bin openssh-client iproute2 kmod numactl zstd
)

cache=${NUMAVM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/numavm}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

debian_major() {
    # shellcheck source=/dev/null
    (. /etc/os-release && echo "${VERSION_ID%%.*}")
}

# virtiofsd, the one written in Rust: a package since Debian 13. Before, it is built by cargo, and
# Debian 12's own cargo is too old for it, its cargo-web is not.
virtiofsd_packages() {
    if [ -x /usr/libexec/virtiofsd ] || command -v virtiofsd >/dev/null ||
        compgen -G "$cache/virtiofsd/*/bin/virtiofsd" >/dev/null; then
        return
    fi
    if [ "$(debian_major)" -ge 13 ]; then
        echo virtiofsd
        return
    fi
    echo libcap-ng-dev libseccomp-dev
    command -v cargo >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] || echo cargo-web
}

# Any installed kernel with its modules will do; only a machine without one (a container) gets one.
kernel_packages() {
    local image
    for image in /boot/vmlinuz-*; do
        [ -e "/lib/modules/${image#/boot/vmlinuz-}/modules.dep" ] && return
    done
    echo linux-image-cloud-amd64
}

# The lab and the tests start etcd, Prometheus and containerd themselves: the packages' services are neither started nor enabled.
install_packages() {
    local policy=/usr/sbin/policy-rc.d ours=no status=0
    if [ ! -e $policy ]; then
        ours=yes
        printf '#!/bin/sh\ncase "$1" in etcd*|prometheus*|containerd*) exit 101;; esac\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod 755 $policy
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" || status=$?
    [ $ours = no ] || "${as_root[@]}" rm -f $policy
    [ -d /run/systemd/system ] || return $status
    local package
    for package in "$@"; do
        case $package in # some versions ship no unit
        etcd-server) "${as_root[@]}" systemctl --quiet disable etcd.service || true ;;
        prometheus | containerd) "${as_root[@]}" systemctl --quiet disable "$package.service" || true ;;
        esac
    done
    return $status
}

if ! command -v dpkg-query >/dev/null; then
    echo "hack/debian.sh: not a Debian system; these must be there: ${wanted[*]}" >&2
    exit 0
fi

missing=()
for package in "${wanted[@]}" $(virtiofsd_packages) $(kernel_packages); do
    installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "hack/debian.sh: neither root nor sudo; as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

echo "Installing Debian packages: ${missing[*]}"
"${as_root[@]}" apt-get update --quiet -o DPkg::Lock::Timeout=300
install_packages "${missing[@]}"
