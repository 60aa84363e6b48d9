# neighbours.sh: who lives beside a shaped host that has cgroup v2 alone, and whom a mounted net_cls disturbs; run by
# lab.service as root. /lab/words names the cases, each of which begins where the one before ended.
export LC_ALL=C.UTF-8
policy=/lab/policies.yaml

says() {
    local words=$1 said
    shift
    said=$("$@" 2>&1)
    grep -qF -- "$words" <<<"$said" || { echo "no \"$words\" in: $said"; return 1; }
}
soon() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || { echo "not in time: $*"; "$@"; return 1; }
        sleep 0.5
    done
}
is() { [ "$1" = "$2" ] || { echo "wanted $1, found $2"; return 1; }; }

# shaped CLASSIFIER: applies the policy, and twenty datagrams of ann's are in her class.
shaped() {
    local before
    printf 'version: 1\nlinks: {up0: {rate: 100mbit, classifier: %s}}\nusers: {ann: {ceil: 50mbit}}\n' "$1" >$policy
    shaper apply -q $policy || return
    before=$(sent)
    setpriv --reuid=ann --regid=ann --clear-groups bash -c '
        exec 3>/dev/udp/10.9.0.2/9
        for _ in {1..20}; do head -c 1000 /dev/zero >&3; done'
    is $((before + 20)) "$(sent)"
}
sent() { shaper status ann --json | tr , '\n' | sed -n 's/^.*"sent_packets"://p' | head -n 1; }
mounted_at() { is "$1" "$(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .* - cgroup .*net_cls.*/\1/p' /proc/self/mountinfo)"; }
doctor_says() { says "$1" shaper doctor --json $policy; }

# What `systemctl status` shows as the machine's tree.
tree_is_right() {
    local tree
    tree=$(systemctl status --no-pager -n 0)
    grep -q '─init.scope' <<<"$tree" && grep -q '─system.slice' <<<"$tree" || { echo "a wrong tree: $tree"; return 1; }
}
# A container of LXC's, with cgroups of its own.
lxc_runs() {
    local started
    lxc-start -P /run/lab-lxc -n box -o /run/lab-lxc.log 2>&1
    started=$(lxc-info -P /run/lab-lxc -n box -s 2>&1)
    lxc-stop -k -P /run/lab-lxc -n box 2>/dev/null
    grep -q RUNNING <<<"$started" || { echo "$started"; return 1; }
}
as_ann() {
    systemd-run -q --pipe --wait -p User=ann -p PAMName=login -E XDG_RUNTIME_DIR=/run/user/4100 \
        -E DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/4100/bus bash -c "cd && $1"
}
podman="podman --storage-driver vfs"
# A container that she starts by hand, in a session.
podman_runs() { says "it runs" as_ann "$podman run --rm --network none busybox /bin/busybox echo it runs"; }
# One that is a service of hers, as Quadlet writes it.
manager() { systemctl --machine=ann@.host --user "$@"; }
podman_serves() {
    local state
    systemd-run -q --machine=ann@.host --user --unit=web -p Type=notify -p NotifyAccess=all -p Delegate=yes \
        -p TimeoutStopSec=2 $podman run --rm --replace --name web --cgroups=split --sdnotify=conmon -d --network none \
        busybox /bin/busybox sleep 300 2>&1
    sleep 3
    state=$(manager show -P ActiveState web)
    manager stop web 2>/dev/null
    manager reset-failed web 2>/dev/null
    pkill -KILL -u ann conmon
    is active "$state"
}
podman_is_old() {
    local version
    version=$(podman --version | sed 's/.* //')
    [ "$(printf '%s\n5.3\n' "$version" | sort -V | head -n 1)" != 5.3 ]
}

# The neighbours alone: none of them fails for another reason.
case_alone() { mounted_at "" && tree_is_right && lxc_runs && podman_runs && podman_serves; }

# What auto chooses disturbs none of them.
case_auto() {
    shaped auto && tree_is_right && lxc_runs && podman_runs && podman_serves || return
    ! podman_is_old || { mounted_at "" && doctor_says "Podman before 5.3"; }
}

# net_cls at shaper's own place disturbs an old Podman, as doctor says, and nobody else.
case_own() {
    shaped bpf && mounted_at /run/shaper/net_cls && tree_is_right && lxc_runs && podman_runs || return
    if podman_is_old; then
        doctor_says "Podman before 5.3" && ! podman_serves
    else
        podman_serves
    fi
}

# Nobody, once it is gone again.
case_uid() { shaped uid && mounted_at "" && tree_is_right && lxc_runs && podman_runs && podman_serves; }

# Where somebody mounts it below cgroup v2, doctor says what no longer works.
case_below() {
    mkdir -p /sys/fs/cgroup/net_cls && mount -t cgroup -o net_cls net_cls /sys/fs/cgroup/net_cls &&
        shaped auto && mounted_at /sys/fs/cgroup/net_cls &&
        doctor_says "in a directory of cgroup v2: containers of LXC, Incus and LXD do not start" &&
        ! lxc_runs && ! tree_is_right || return
    shaper clear -q && umount /sys/fs/cgroup/net_cls && rmdir /sys/fs/cgroup/net_cls && lxc_runs && tree_is_right
}

prepared() {
    sed -n '/^Package: podman$/,/^$/p' /host/var/lib/dpkg/status >>/var/lib/dpkg/status
    ip link add up0 type veth peer name far0 && ip addr add 10.9.0.1/24 dev up0 && ip link set far0 up && ip link set up0 up &&
        ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev up0 || return
    local root=/run/lab-lxc/box/rootfs
    mkdir -p $root/bin $root/proc $root/sys $root/dev $root/etc $root/tmp && cp /host/bin/busybox $root/bin/
    printf 'lxc.uts.name = box\nlxc.rootfs.path = dir:%s\nlxc.net.0.type = none\nlxc.mount.auto = proc:rw sys:ro cgroup:rw:force\n' \
        $root >/run/lab-lxc/box/config
    printf 'lxc.apparmor.profile = unconfined\nlxc.init.cmd = /bin/busybox sleep 300\n' >>/run/lab-lxc/box/config
    mount -t tmpfs -o mode=755 tmpfs /home/ann && chown ann:ann /home/ann && mkdir -p /home/ann/image/bin &&
        cp /host/bin/busybox /home/ann/image/bin/ && tar -C /home/ann/image -cf /home/ann/image.tar . &&
        soon 60 test -S /run/user/4100/bus && as_ann "$podman import -q image.tar busybox"
}

log() { echo "$*" >/dev/console; }
main() {
    local word verdict=0 start=$SECONDS
    log "lab: $(systemctl --version | head -n 1) is up after $(cut -d' ' -f1 /proc/uptime) s"
    prepared >/run/lab.said 2>&1 || { log "$(cat /run/lab.said)"; verdict=1; }
    for word in $(sed 's/ -.*//' /lab/words); do
        if "case_$word" >/run/lab.said 2>&1; then
            log "test neighbours::$word ... ok ($((SECONDS - start)) s)"
        else
            log "$(cat /run/lab.said)"
            log "$(journalctl -b --no-pager -n 20)"
            log "test neighbours::$word ... FAILED ($((SECONDS - start)) s)"
            verdict=1
        fi
        start=$SECONDS
    done
    log "lab verdict: $verdict"
    systemctl poweroff --force --force
}
main
