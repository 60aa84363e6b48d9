#!/bin/sh
# packages.sh: both packages in a clean Debian root, which is made below target/ once and copied: installed, run,
# upgraded, removed, purged; the rpm unpacked, and its scripts run. As root, with mmdebstrap and rpm2cpio.
set -eu
cd "$(dirname "$0")/.."
deb=$(ls -t target/debian/shaper_*.deb | head -n 1)
rpm=$(ls -t target/generate-rpm/shaper-*.rpm | head -n 1)
base=target/package-base.tar
[ -f $base ] || mmdebstrap --quiet --variant=apt --include=man-db,bash-completion "$(. /etc/os-release && echo "$VERSION_CODENAME")" $base
root=$(mktemp -d "$PWD/target/package-root.XXXXXX")
# What is shaped in the root is seen below this directory of net_cls alone, by the cgroup namespace.
tree=$(mktemp -d)
mount -t cgroup -o net_cls net_cls "$tree"
mkdir "$tree/packages.$$"
leave() {
    find "$tree/packages.$$" -depth -type d -exec rmdir {} +
    umount "$tree" && rmdir "$tree"
    rm -rf "$root"
}
trap leave EXIT
trap 'exit 1' INT TERM
tar -C "$root" -xf $base

# A root of its own with a link of its own, and an empty /run. Afterwards the link is as it was at first.
inside() {
    sh -ec '
        echo $$ >"$3/cgroup.procs"
        exec unshare --cgroup --net --mount --pid --ipc --fork --mount-proc="$1/proc" sh -ec "
            mount -t sysfs sysfs $1/sys
            mount -t tmpfs tmpfs $1/run
            ip link add up0 type veth peer name far0
            ip link set far0 up
            ip link set up0 up
            ip address add 10.9.0.1/24 dev up0
            ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev up0
            chroot $1 /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 sh -ec \"\$2\"
            [ ! -f $1/root/removed ] || ! tc qdisc show dev up0 | grep htb
        " inside "$1" "$2"
    ' inside "$root" "$1" "$tree/packages.$$"
}
say() { echo "packages: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

say "$deb is installed"
cp "$deb" "$root/root/shaper.deb"
inside 'dpkg -i /root/shaper.deb >/dev/null'
inside 'shaper --version; test ! -e /etc/systemd/system/multi-user.target.wants/shaper.service'
for unit in shaper.service shaper-apply.service shaper-apply.timer run-shaper-net_cls.mount; do
    [ -f "$root/usr/lib/systemd/system/$unit" ] || fail "no $unit"
    ! grep -q /usr/local "$root/usr/lib/systemd/system/$unit" || fail "$unit is for another place"
done
for page in shaper.1 shaper-apply.1 shaper-watch.1 shaper.yaml.5; do
    inside "man --warnings=w $page 2>&1 >/dev/null" | grep . && fail "man $page complains"
    inside "man -P cat $page | grep -q ." || fail "no page $page"
done
inside 'bash -n /usr/share/bash-completion/completions/shaper'
inside 'for policy in /usr/share/doc/shaper/examples/policies/*.yaml /usr/share/doc/shaper/examples/policies/recipes/*.yaml; do shaper check -q --offline $policy; done'

say "run"
inside 'shaper init >/etc/shaper/policies.yaml && shaper check -q --offline'
inside 'printf "version: 1\nlinks: {up0: {rate: 1gbit}}\nusers: {root-too: {uids: 0, ceil: 1mbit}}\n" >/etc/shaper/policies.yaml
    printf "users: {backup: 2mbit}\n" >/etc/shaper/policies.d/backup.yaml
    shaper check --offline | grep -q "2 users"'

# A user's packets are in his class, and the removal takes everything away that was made.
capped='shaper apply -q >/dev/null
    setpriv --reuid=4711 --regid=4711 --clear-groups bash -c "for n in 1 2 3; do head -c 1000 /dev/zero >/dev/udp/10.9.0.2/9; done"
    shaper status ann --json | tr , "\n" | grep -qx "\"sent_packets\":3"
    shaper apply | grep -qx "in sync"'
inside 'printf "version: 1\nlinks: {up0: {rate: 1gbit}}\nusers: {ann: {uids: 4711, ceil: 2mbit}}\n" >/etc/shaper/policies.yaml'
inside "$capped; shaper clear -q"

say "upgraded: the policy stays"
before=$(cat "$root/etc/shaper/policies.yaml" "$root/etc/shaper/policies.d/backup.yaml" | sha256sum)
inside 'mkdir /root/next && dpkg-deb -R /root/shaper.deb /root/next &&
    sed -i "s/^Version: .*/Version: 999/" /root/next/DEBIAN/control && dpkg-deb -b /root/next /root/next.deb >/dev/null &&
    dpkg -i /root/next.deb >/dev/null && dpkg-query -W -f "\${Version}" shaper | grep -qx 999'
[ "$before" = "$(cat "$root/etc/shaper/policies.yaml" "$root/etc/shaper/policies.d/backup.yaml" | sha256sum)" ] || fail "an upgrade changed the policy"

say "removed, and purged"
inside "$capped; dpkg -r shaper >/dev/null; touch /root/removed"
rm "$root/root/removed"
[ -f "$root/etc/shaper/policies.yaml" ] || fail "a removal took the policy"
inside 'dpkg -P shaper >/dev/null'
left=$(find "$root/etc" "$root/usr" "$root/var" -name '*shaper*' ! -path '*/dpkg/*' ! -path '*/cache/*')
[ -z "$left" ] || fail "a purge left $left"

say "$rpm is unpacked, and its scripts run"
(cd "$root" && rpm2cpio "$OLDPWD/$rpm" | cpio -idmu --quiet)
inside 'shaper --version; man -P cat shaper | grep -q .'
for script in post:1 post:2 preun:1 preun:0 postun:0; do
    cp "packaging/rpm/${script%:*}" "$root/root/script"
    inside "sh -eu /root/script ${script#*:}" || fail "$script failed"
done
say "good"
