# cases.sh: what is asserted in the booted machine, case by case; run by lab.service as root, with the console as its
# output. /lab/words names the cases; a case that boots the machine again is gone on with afterwards.
export LC_ALL=C.UTF-8
policy=/etc/shaper/policies.yaml
[ -e /lab/good ] || cp $policy /lab/good
good=$(cat /lab/good)

# soon SECONDS COMMAND...: waits until the command succeeds.
soon() {
    local until=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        [ $SECONDS -lt $until ] || { echo "not in time: $*: $said"; return 1; }
        sleep 0.2
    done
}
# says WORDS COMMAND...: the command's output, or its errors, have the words.
says() {
    local words=$1 said
    shift
    said=$("$@" 2>&1)
    grep -qF -- "$words" <<<"$said" || { echo "no \"$words\" in: $said"; return 1; }
}
# is WANTED FOUND
is() { [ "$1" = "$2" ] || { echo "wanted $1, found $2"; return 1; }; }
unit() { systemctl show -P "$1" "${2:-shaper.service}"; }
# How many packets a user's class has sent.
sent() { shaper status "$1" --json | tr , '\n' | sed -n 's/^.*"sent_packets"://p' | head -n 1; }
has_sent() { [ "$(sent "$1")" = "$2" ]; }
# All that both sent as soon as they could, and nobody else's.
all_bursts() {
    soon 120 has_sent ann 20 && soon 120 has_sent bob 20 && sleep 1 && is "20 20" "$(sent ann) $(sent bob)"
}
running() { [ "$(unit ActiveState)" = active ]; }
has_tree() { tc qdisc show dev "${1:-up0}" | grep -q '^qdisc htb 1: root'; }
in_force() { says "the daemon" shaper status && says "is idle" shaper status; }
# The policy with these links, and more users before the others.
policy_is() { sed "s/^links:.*/$1/; s/^users: {/users: {$2/" <<<"$good" >$policy; }
restore() { echo "$good" >$policy && soon 120 in_force; }
ann_may() { sed "s/5mbit/$1/" <<<"$good" >$policy; }
class_of() { shaper status "$1" --json | grep -o '"classid":"[^"]*"' | head -n 1; }
ann_has() { tc class show dev up0 | grep -q "ceil $1"; }
as_ann() { setpriv --reuid=ann --regid=ann --clear-groups bash /lab/burst; }
# The machine boots again, and the case is called once more: `booted` holds there.
booted() { [ -e /lab/booted ]; }
boot_again() {
    : >/lab/booted
    return 99
}

# Before anybody's first packet, and in time: sessions waited for the daemon, not for the network.
case_first() {
    is active "$(unit ActiveState)" &&
        all_bursts && in_force &&
        [ "$(unit ActiveEnterTimestampMonotonic)" -le "$(unit InactiveExitTimestampMonotonic systemd-user-sessions.service)" ] &&
        is "" "$(systemctl --failed --plain --no-legend)" &&
        is "" "$(journalctl -b --no-pager | grep -i 'ordering cycle')"
}

# A file that was broken before the boot: what was in force is in force, loudly.
case_broken() {
    if ! booted; then
        echo "users: [" >>$policy
        boot_again
        return
    fi
    running && has_tree && all_bursts &&
        says "last good one (/var/lib/shaper/" journalctl -b -u shaper --no-pager &&
        says "refus" systemctl status --no-pager shaper &&
        says "is refusing" shaper status &&
        ! systemctl reload shaper 2>/dev/null &&
        restore
}

# A link that is absent at boot is waited for by nobody, and shaped as it comes.
case_link() {
    policy_is 'links: {up0: {rate: 100mbit}, late0: {rate: 10mbit}}' &&
        systemctl restart shaper && running && has_tree && says "late0" journalctl -b -u shaper --no-pager &&
        ip link add late0 type dummy && ip link set late0 up && soon 120 has_tree late0 && soon 120 in_force &&
        restore && ip link del late0
}

# The same of the way out that `auto` means.
case_auto() {
    ip route del default && policy_is 'links: {auto: {rate: 100mbit}}' && shaper clear --despite-daemon -q &&
        systemctl restart shaper && running && ! has_tree &&
        ip route add default via 10.9.0.2 dev up0 && soon 120 has_tree && restore
}

# A directory of accounts that never answers holds nobody up for long.
case_directory() {
    if ! booted; then
        printf 'passwd: files hangs\ngroup: files hangs\nshadow: files\nhosts: files\n' >/etc/nsswitch.conf
        policy_is 'links: {up0: {rate: 100mbit}, late0: {rate: 10mbit}}' 'dave: {ceil: 3mbit}, '
        boot_again
        return
    fi
    running && has_tree && all_bursts &&
        says "dave" journalctl -b -u shaper --no-pager &&
        printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files\n' >/etc/nsswitch.conf && restore
}

# A /var that is read-only from boot on; then one that is empty and read-only, and one that is full.
case_var() {
    if ! booted; then
        echo '/var /var none bind,ro 0 0' >/etc/fstab
        boot_again
        return
    fi
    local options
    ! touch /var/lib/x 2>/dev/null && running && has_tree && all_bursts && in_force &&
        says "cannot be written" journalctl -b -u shaper --no-pager || return
    for options in ro size=64k; do
        mount -t tmpfs -o $options tmpfs /var
        mkdir -p /var/tmp 2>/dev/null
        head -c 1M /dev/zero >/var/full 2>/dev/null
        systemctl restart shaper && running && in_force || return
        umount -l /var
    done
    : >/etc/fstab
    umount -l /var
    systemctl restart shaper
}

# A reload of a good file, of a bad one, and of a mended one.
case_reload() {
    ann_may 7mbit && systemctl reload shaper && soon 120 ann_has 7Mbit || return
    echo "users: [" >>$policy
    ! systemctl reload shaper 2>/dev/null && ann_has 7Mbit && running &&
        says "policies.yaml:5" journalctl -b -u shaper --no-pager && soon 120 says "is refusing" shaper status &&
        restore && systemctl reload shaper && soon 120 in_force && ann_has 5Mbit
}

# Killed, by a person and for its memory: it comes again, and what stands stays meanwhile.
case_kill() {
    local pid before class
    pid=$(unit MainPID) before=$(sent ann) class=$(class_of ann)
    kill -9 "$pid"
    has_tree && as_ann && soon 180 again "$pid" && is "$class" "$(class_of ann)" && is $((before + 20)) "$(sent ann)" &&
        is 1 "$(unit NRestarts)"
}
again() { running && [ "$(unit MainPID)" != "$1" ]; }

case_oom() {
    local pid before
    pid=$(unit MainPID) before=$(sent ann)
    systemctl set-property --runtime shaper.service MemorySwapMax=0 MemoryMax=64K
    kill -HUP "$pid"
    soon 180 says "killed by the OOM killer" journalctl -b -u shaper --no-pager && has_tree && as_ann &&
        systemctl set-property --runtime shaper.service MemoryMax=infinity &&
        soon 180 again "$pid" && is $((before + 20)) "$(sent ann)"
}

# The manager's own reload, and an upgrade as the packages do it: nobody's packet is in another class.
case_upgrade() {
    local pid before
    pid=$(unit MainPID) before=$(sent ann)
    systemctl daemon-reload && is "$pid" "$(unit MainPID)" && running || return
    setpriv --reuid=ann --regid=ann --clear-groups bash -c '
        exec 3>/dev/udp/10.9.0.2/9
        for n in {1..60}; do head -c 1000 /dev/zero >&3; sleep 0.02; done' &
    cp /usr/bin/shaper /usr/bin/shaper.new && mv /usr/bin/shaper.new /usr/bin/shaper
    systemctl daemon-reload && systemctl try-restart shaper && again "$pid" && wait $! && is $((before + 60)) "$(sent ann)"
}

# A daemon that ends again and again is given up, and what it made stays.
case_loop() {
    mkdir -p /run/systemd/system/shaper.service.d
    printf '[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/false\nRestartSec=100ms\n' \
        >/run/systemd/system/shaper.service.d/loop.conf
    systemctl daemon-reload
    systemctl restart shaper 2>/dev/null
    # systemd keeps the first reason, so its result is that of the last start.
    soon 300 says "Start request repeated too quickly" journalctl -b -u shaper --no-pager || return
    is failed "$(unit ActiveState)" && has_tree && as_ann && [ "$(unit NRestarts)" -le 20 ] || return
    rm /run/systemd/system/shaper.service.d/loop.conf
    systemctl daemon-reload && systemctl reset-failed shaper && systemctl start shaper && in_force
}

# The timer ends the daemon, and the daemon the timer; each leaves the tree. With both enabled the daemon runs.
case_timer() {
    if booted; then
        running && in_force && is inactive "$(unit ActiveState shaper-apply.timer)" && systemctl disable shaper-apply.timer 2>/dev/null
        return
    fi
    systemctl start shaper-apply.timer && is inactive "$(unit ActiveState)" && has_tree || return
    # By the hardened unit alone, from nothing.
    shaper clear -q && ! has_tree && systemctl start shaper-apply.service && has_tree || return
    local program before
    program=$(tc filter show dev up0) before=$(sent ann)
    as_ann && is $((before + 20)) "$(sent ann)" && systemctl start shaper-apply.service && is "$program" "$(tc filter show dev up0)" &&
        ! journalctl -b -u shaper-apply --no-pager | grep -i 'denied\|not permitted' &&
        systemctl start shaper && running && is inactive "$(unit ActiveState shaper-apply.timer)" &&
        systemctl enable shaper-apply.timer 2>/dev/null && boot_again
}

# With less in its hands, where the tag decides.
case_lesser() {
    mkdir -p /etc/systemd/system/shaper.service.d && cp /lab/no-bpf.conf /etc/systemd/system/shaper.service.d/ &&
        systemctl daemon-reload && policy_is 'links: {up0: {rate: 100mbit, classifier: cgroup}}' || return
    local before since
    since=$(date +%s)
    systemctl restart shaper && running && in_force &&
        systemd-analyze security --no-pager --threshold=29 shaper.service >/dev/null || return
    before=$(sent ann)
    setpriv --reuid=ann --regid=ann --clear-groups bash -c 'sleep 3; . /lab/burst' && is $((before + 20)) "$(sent ann)" &&
        ! journalctl -u shaper --since "@$since" --no-pager | grep -i 'denied\|not permitted' &&
        rm -r /etc/systemd/system/shaper.service.d && systemctl daemon-reload && restore && systemctl restart shaper && in_force
}

# Whether nothing on the link was made again: what ann's class has counted in the kernel.
counted() { tc -s class show dev "$1" | grep -A1 "ceil 5Mbit" | grep -o '[0-9]* pkt' | head -n 1; }
repairs() { journalctl -b -u shaper --no-pager | grep -c " changed what stands on $1;"; }

said_repair() { [ "$(repairs "$1")" -gt 0 ]; }

# What networkd does to a link that it configures: nothing to its queues, unless a file of its own says so.
case_networkd() {
    local how before
    as_ann
    for how in 'networkctl reload' 'networkctl reconfigure up0' 'systemctl restart systemd-networkd' \
        'ip link set up0 down; sleep 1; ip link set up0 up; networkctl reconfigure up0'; do
        before=$(counted up0)
        bash -c "$how"
        sleep 3
        is "$before" "$(counted up0)" || { echo "after $how"; return 1; }
    done
    mkdir -p /etc/systemd/network/10-up0.network.d
    printf '[FairQueueingControlledDelay]\nParent=root\n' >/etc/systemd/network/10-up0.network.d/queue.conf
    networkctl reload && networkctl reconfigure up0
    # It replaces the root, and the daemon puts it back.
    # networkd writes what it does a moment later than it does it.
    soon 120 said_repair up0 && soon 120 has_tree && soon 60 says "queue.conf" shaper doctor || return
    rm -r /etc/systemd/network/10-up0.network.d
    networkctl reload && networkctl reconfigure up0 && soon 120 has_tree && soon 180 in_force
}

# The same of NetworkManager, on links of its own.
case_manager() {
    local how
    rm -f /etc/systemd/system/NetworkManager.service
    mkdir -p /etc/NetworkManager/conf.d
    printf '[keyfile]\nunmanaged-devices=except:interface-name:nm0\n' >/etc/NetworkManager/conf.d/lab.conf
    systemctl daemon-reload && systemctl start NetworkManager || return
    policy_is 'links: {up0: {rate: 100mbit}, nm0: {rate: 100mbit, optional: true}}' && systemctl reload shaper &&
        nmcli connection add type dummy ifname nm0 con-name nm0 ipv4.method manual ipv4.addresses 10.8.0.1/24 ipv6.method disabled &&
        soon 180 has_tree nm0 || return
    for how in 'nmcli device reapply nm0' 'systemctl restart NetworkManager' 'nmcli connection up nm0'; do
        bash -c "$how" || return
        sleep 3
        has_tree nm0 && is 0 "$(repairs nm0)" || { echo "after $how"; return 1; }
    done
    nmcli connection down nm0 && soon 120 test ! -e /sys/class/net/nm0 && nmcli connection up nm0 && soon 120 has_tree nm0 || return
    # A queue that a connection names.
    nmcli connection modify nm0 tc.qdiscs 'root fq_codel' && nmcli connection up nm0
    local verdict=0
    soon 120 said_repair nm0 && soon 120 has_tree nm0 && soon 60 says nm0 shaper doctor || verdict=1
    restore && return $verdict
}

log() { echo "$*" >/dev/console; }
main() {
    [ -e /lab/left ] || tr ' ' '\n' </lab/words >/lab/left
    soon 180 running
    soon 180 systemctl is-system-running --wait >/dev/null
    log "lab: $(systemctl --version | head -n 1) is up after $(cut -d' ' -f1 /proc/uptime) s: $(systemctl is-system-running)"
    local word verdict=0 start=$SECONDS
    [ ! -e /lab/failed ] || verdict=1
    # Not its words for the harness, as --again.
    sed -i '/^-/d' /lab/left
    while word=$(head -n 1 /lab/left) && [ -n "$word" ]; do
        "case_$word" >/run/lab.said 2>&1
        case $? in
        0) log "test boot::$word ... ok ($((SECONDS - start)) s)" ;;
        99)
            log "lab: $word boots again"
            sync
            systemctl reboot
            exit
            ;;
        *)
            log "$(cat /run/lab.said)"
            log "$(journalctl -b -u shaper --no-pager -n 20)"
            log "test boot::$word ... FAILED ($((SECONDS - start)) s)"
            : >/lab/failed
            verdict=1
            ;;
        esac
        rm -f /lab/booted
        sed -i 1d /lab/left
        start=$SECONDS
    done
    log "lab verdict: $verdict"
    sync
    systemctl poweroff --force --force
}
main
