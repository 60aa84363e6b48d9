#!/bin/sh
# tools.sh PACKAGE...: installs the Debian packages that are missing. Says so, and how to do it by hand, when
# this is not root's shell or not Debian.
set -eu
if [ "$(id -u)" != 0 ]; then
    echo "This needs root: it makes network namespaces and cgroups of its own, and touches no link" >&2
    echo "outside them. Try: sudo make" >&2
    exit 1
fi
missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $status in ii*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "These are missing, under their Debian names:$missing" >&2
    exit 1
fi
echo "Installing what is missing:$missing"
export DEBIAN_FRONTEND=noninteractive
# Tests start servers themselves, in cells. Installed, dockerd would start on this machine and change its firewall.
# (policy-rc.d: /usr/share/doc/sysv-rc/README.policy-rc.d; what the machine itself has there is left alone.)
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
# Nor are they to be started by the next boot.
servers="docker.service docker.socket containerd.service prometheus.service prometheus-node-exporter.service"
servers="$servers podman.socket podman.service podman-restart.service podman-auto-update.service"
servers="$servers podman-auto-update.timer lxc.service lxc-net.service lxc-monitord.service"
servers="$servers openvswitch-switch.service ovs-vswitchd.service ovsdb-server.service"
servers="$servers ovs-record-hostname.service"
new=
for unit in $servers; do
    [ -e "/lib/systemd/system/$unit" ] || new="$new $unit"
done
# The lists of a fresh machine are empty or old: get them only when they are needed.
apt-get install -qq --no-install-recommends $missing >/dev/null 2>&1 || {
    apt-get update -qq
    apt-get install -qq --no-install-recommends $missing >/dev/null
}
# From Debian 13 on the client is a package of its own.
case " $missing " in
*" docker.io "*) command -v docker >/dev/null || apt-get install -qq --no-install-recommends docker-cli >/dev/null ;;
esac
for unit in $new; do
    [ ! -e "/lib/systemd/system/$unit" ] || systemctl --root=/ --quiet disable "$unit"
done
