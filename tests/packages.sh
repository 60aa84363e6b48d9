#!/bin/sh
# packages.sh: both packages in a clean Debian root, which is made below target/ once and copied: installed, run,
# upgraded, removed, purged; the rpm unpacked, and its scripts run. As root, with mmdebstrap and rpm2cpio.
# packages.sh quick PROGRAM: the deb's files and scripts alone, with this program, packed by dpkg-deb. The root is
# this machine's own, seen through an overlay that takes all that is written; in a mount namespace of its own.
set -eu
cd "$(dirname "$0")/.."
say() { echo "packages: $*"; }
fail() {
    say "$*" >&2
    exit 1
}
quick=
install='dpkg -i'
mkdir -p target
root=$(mktemp -d "$PWD/target/package-root.XXXXXX")
made=$root
# What is shaped in the root is seen below this directory of net_cls alone, by the cgroup namespace.
tree=$(mktemp -d)
mount -t cgroup -o net_cls net_cls "$tree"
mkdir "$tree/packages.$$"
leave() {
    # What is still busy keeps nothing else.
    find "$tree/packages.$$" -depth -type d -exec rmdir {} + || :
    umount "$tree" && rmdir "$tree" || :
    [ -z "$quick" ] || umount -R "$made"
    rm -rf "$made"
}
trap leave EXIT
trap 'exit 1' INT TERM

# pack PROGRAM DEB: what stage.sh makes with a program, and the scripts.
pack() {
    stage=$root/stage
    BUILT=$1 sh packaging/stage.sh "$stage"
    install -D -t "$stage/DEBIAN" packaging/deb/*
    printf 'Package: shaper\nVersion: 1\nArchitecture: %s\nMaintainer: a test\nDescription: a test\n' \
        "$(dpkg --print-architecture)" >"$stage/DEBIAN/control"
    dpkg-deb --build --root-owner-group -Znone "$stage" "$2" >/dev/null
    rm -r "$stage"
}
if [ "${1:-}" = quick ]; then
    mount -t tmpfs tmpfs "$root"
    quick=yes
    # Triggers would look at all manual pages of this machine. In images of containers dpkg leaves out documents.
    install='dpkg --no-triggers --path-include=/usr/share/* -i'
    deb=$root/shaper.deb
    pack "$2" "$deb"
    root=$made/seen
    mkdir "$made/written" "$made/work" "$root"
    # An overlay shows what is in the file system below it, and not what is mounted there: that has its own.
    for place in / /usr /usr/share /usr/local /var /var/lib /var/cache /etc; do
        [ "$place" = / ] || mountpoint -q "$place" || continue
        name=root$(echo "$place" | tr / .)
        mkdir "$made/written/$name" "$made/work/$name"
        mount -t overlay -o "lowerdir=$place,upperdir=$made/written/$name,workdir=$made/work/$name" overlay "$root$place"
    done
    mount --bind /dev "$root/dev"
    # What this machine has of shaper goes, and dpkg is told what it is told in images of containers.
    rm -rf "$root/etc/shaper" "$root/var/lib/shaper"
    rm -f "$root/etc/systemd/system/multi-user.target.wants/shaper.service"
    mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
    printf 'path-exclude=/usr/share/%s/*\n' doc man >"$root/etc/dpkg/dpkg.cfg.d/slim"
else
    deb=$(ls -t target/debian/shaper_*.deb | head -n 1)
    rpm=$(ls -t target/generate-rpm/shaper-*.rpm | head -n 1)
    base=target/package-base.tar
    [ -f $base ] || mmdebstrap --quiet --variant=apt --include=man-db,bash-completion \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" $base
    tar -C "$root" -xf $base
fi

# A root of its own with a link of its own, and an empty /run. Afterwards the link is as it was at first.
inside() {
    sh -ec '
        echo $$ >"$3/cgroup.procs"
        exec unshare --cgroup --net --mount --pid --ipc --fork --mount-proc="$1/proc" sh -ec "
            # The first process of a pid namespace is only told of signals that it handles.
            trap \"exit 1\" INT TERM
            mount -t sysfs sysfs $1/sys
            mount -t tmpfs tmpfs $1/run
            ip link add up0 type veth peer name far0
            ip link set far0 up
            ip link set up0 up
            ip address add 10.9.0.1/24 dev up0
            # Another network namespace, with a link too.
            unshare --net sleep 1000 >/dev/null 2>&1 &
            echo \$! >$1/run/elsewhere
            ip link add other0 type veth peer name far1
            while ip link show dev other0 >/dev/null 2>&1; do
                ip link set other0 netns \$! 2>/dev/null || :
                sleep 0.05
            done
            ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev up0
            chroot $1 /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 sh -ec \"\$2\"
            if [ -f $1/root/removed ]; then
                ! tc qdisc show | grep htb || exit 1
                ! nsenter --net=$1/proc/\$(cat $1/run/elsewhere)/ns/net tc qdisc show | grep htb || exit 1
            fi
        " inside "$1" "$2"
    ' inside "$root" "$1" "$tree/packages.$$"
}
say "$deb is installed"
cp "$deb" "$root/root/shaper.deb"
inside "$install /root/shaper.deb >/dev/null"
inside 'shaper --version; test ! -e /etc/systemd/system/multi-user.target.wants/shaper.service'
for unit in shaper.service shaper-apply.service shaper-apply.timer run-shaper-net_cls.mount; do
    [ -f "$root/usr/lib/systemd/system/$unit" ] || fail "no $unit"
    ! grep -q /usr/local "$root/usr/lib/systemd/system/$unit" || fail "$unit is for another place"
done
for file in shaper/policy.schema.json shaper/drop-in.schema.json bash-completion/completions/shaper doc/shaper/LICENSE-MIT \
    doc/shaper/LICENSE-APACHE doc/shaper/SECURITY.md doc/shaper/changelog.gz doc/shaper/examples/pam \
    doc/shaper/examples/shaper.cron doc/shaper/examples/netns.conf \
    doc/shaper/examples/prometheus/shaper.rules.yml doc/shaper/examples/ansible/shaper/tasks/main.yml; do
    [ -s "$root/usr/share/$file" ] || fail "no $file"
done
# Links of its documents, which are not all where they are in the source.
lost=$(find "$root/usr/share/doc/shaper" -name '*.md' | while read -r document; do
    sed '/^ *```/,/^ *```/d' "$document" | grep -o '](\([^)]*\))' | sed 's/^](//; s/)$//; s/#.*//' | sort -u |
        while read -r target; do
            case $target in '' | *://*) continue ;; esac
            [ -e "$(dirname "$document")/$target" ] || echo "${document##*/}: $target"
        done
done)
[ -z "$lost" ] || fail "links that lead nowhere: $lost"
strange=$(dpkg-deb -c "$deb" | awk '($2 != "root/root" && $2 != "0/0") || $1 ~ /^.....w|^........w|[sS]/ { print }')
[ -z "$strange" ] || fail "not as a package's files are: $strange"
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

say "upgraded: the policy stays, and each packet that a user sends meanwhile is in his class"
before=$(cat "$root/etc/shaper/policies.yaml" "$root/etc/shaper/policies.d/backup.yaml" | sha256sum)
# Restarts the daemon as systemd does, which is no part of this root.
cat >"$root/root/systemctl" <<'EOF'
#!/bin/sh
[ "$*" = "try-restart shaper.service" ] || exit 0
old=$(cat /run/daemon)
kill "$old"
while [ -e "/proc/$old/exe" ]; do sleep 0.02; done
setsid shaper watch --skip-unknown </dev/null >/run/log 2>&1 &
echo $! >/run/daemon
EOF
cat >"$root/root/upgrade" <<'EOF'
set -eu
# soon CONDITION: within a minute.
soon() {
    for try in $(seq 600); do
        ! "$@" || return 0
        sleep 0.1
    done
    echo "never came: $*" >&2
    cat /run/log >&2
    return 1
}
keeps() { shaper status --json | tr '{,' '\n\n' | grep -qx "\"pid\":$(cat /run/daemon)"; }
counted() { shaper status ann --json | tr , '\n' | sed -n 's/^"sent_packets"://p' | head -n 1; }
sent_some() { [ "$(counted)" -gt "$1" ]; }
all_counted() { [ "$(counted)" = "$(cat /run/sent)" ]; }
install -m 755 /root/systemctl /usr/local/sbin/systemctl
mkdir -p /run/systemd/system
touch /run/sent && chmod 666 /run/sent
setsid shaper watch --skip-unknown </dev/null >/run/log 2>&1 &
echo $! >/run/daemon
soon keeps
first=$(cat /run/daemon)
setpriv --reuid=4711 --regid=4711 --clear-groups bash -c '
    n=0
    while [ ! -e /run/stop ]; do
        head -c 1000 /dev/zero >/dev/udp/10.9.0.2/9
        n=$((n + 1))
        sleep 0.01
    done
    echo $n >/run/sent' &
sender=$!
soon sent_some 20
PATH=/usr/local/sbin:$PATH $1 /root/next.deb >/dev/null
[ "$(cat /run/daemon)" != "$first" ] || { echo "the daemon was not replaced" >&2; exit 1; }
soon keeps
soon sent_some $(($(counted) + 20))
touch /run/stop
wait $sender
soon all_counted
echo "packages: all $(counted) packets of the user were in his class"
rm /usr/local/sbin/systemctl
EOF
inside 'mkdir /root/next && dpkg-deb -R /root/shaper.deb /root/next &&
    sed -i "s/^Version: .*/Version: 999/" /root/next/DEBIAN/control &&
    dpkg-deb -Znone -b /root/next /root/next.deb >/dev/null'
inside "sh /root/upgrade '$install'"
inside 'dpkg-query -W -f "\${Version}" shaper | grep -qx 999'
[ "$before" = "$(cat "$root/etc/shaper/policies.yaml" "$root/etc/shaper/policies.d/backup.yaml" | sha256sum)" ] ||
    fail "an upgrade changed the policy"

say "removed, though daemons run that were started by hand, and though no systemd runs that would disable units; purged"
cat >"$root/root/remove" <<'EOF'
set -eu
keeps() {
    for try in $(seq 600); do
        ! shaper ${2:-} status --json | grep -q "\"daemon\":{\"pid\":$1[,}]" || return 0
        sleep 0.1
    done
    cat /run/log >&2
    return 1
}
setsid shaper watch --skip-unknown </dev/null >/run/log 2>&1 &
daemon=$!
keeps $daemon
# Another instance, in another network namespace.
printf 'version: 1\nlinks: {other0: {rate: 1gbit}}\n' >/run/other.yaml
elsewhere="--netns /proc/$(cat /run/elsewhere)/ns/net"
setsid shaper $elsewhere watch /run/other.yaml </dev/null >/run/log 2>&1 &
other=$!
keeps $other "$elsewhere"
wants=/etc/systemd/system/multi-user.target.wants
mkdir -p $wants
for unit in shaper.service shaper-apply.timer shaper-metrics.socket shaper-textfile.timer; do
    ln -sf /usr/lib/systemd/system/$unit $wants/$unit
done
$1 >/dev/null
for one in $daemon $other; do
    [ ! -e /proc/$one/exe ] || { echo "a daemon outlives its program" >&2; exit 1; }
done
if ls $wants | grep shaper >&2; then exit 1; fi
EOF
inside "$capped; sh /root/remove 'dpkg -r shaper'; touch /root/removed"
rm "$root/root/removed"
[ -f "$root/etc/shaper/policies.yaml" ] || fail "a removal took the policy"
for left in "$root/etc/shaper/.policies.yaml.edit" "$root/etc/shaper/policies.d/.backup.yaml.edit"; do
    mkdir "$left"
    touch "$left/lock"
done
inside 'dpkg -P shaper >/dev/null 2>&1'
[ ! -e "$root/etc/shaper/policies.yaml" ] || fail "a purge left the policy"
# What others have put beside the policy stays.
rm "$root/etc/shaper/policies.d/backup.yaml"
rmdir "$root/etc/shaper/policies.d" "$root/etc/shaper"
left=$(
    if [ -n "$quick" ]; then
        cd "$made/written"
        set -- root.*
    else
        cd "$root"
        set -- etc usr var
    fi
    find "$@" -name '*shaper*' ! -type c ! -path '*/dpkg/*' ! -path '*/cache/*' ! -path 'root./root/*' ! -path 'root./tmp/*'
)
[ -z "$left" ] || fail "a purge left $left"
if [ -n "$quick" ]; then
    say good
    exit
fi

say "$rpm is unpacked, and its scripts run"
(cd "$root" && rpm2cpio "$OLDPWD/$rpm" | cpio -idmu --quiet)
inside 'shaper --version; man -P cat shaper | grep -q .'
for script in post:1 post:2 preun:1 preun:0 postun:0; do
    cp "packaging/rpm/${script%:*}" "$root/root/script"
    inside "sh -eu /root/script ${script#*:}" || fail "$script failed"
done
cp packaging/rpm/preun "$root/root/script"
inside 'mkdir -p /etc/shaper; printf "version: 1\nlinks: {up0: {rate: 1gbit}}\n" >/etc/shaper/policies.yaml'
inside "shaper apply -q >/dev/null; sh /root/remove 'sh -eu /root/script 0'; touch /root/removed"
say "good"
