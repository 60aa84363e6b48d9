#!/bin/sh
# uml.sh LAB (TEST-BINARY) SHAPER CASES: boots the Debian of qemu.sh, with systemd and cgroup v2 alone, in user-mode
# Linux, which takes seconds; with this machine's programs beside its own, and runs the CASES of neighbours.sh there.
# There are no process events, so no daemon. The disk is LAB/boot.ext4 (root.sh), of which nothing is changed.
set -eu
here=$(dirname "$0")
. "$here/../lab/modules.sh"
lab=$1 shaper=$3
shift 3
[ -e "$lab/boot.ext4" ] || { echo "uml.sh: no $lab/boot.ext4; \`make lab-kernel\` makes it" >&2; exit 1; }
modules=$(echo /usr/lib/uml/modules/*)
stage=$(mktemp -d "$lab/boot.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM
root=$stage/root over=$stage/root/over
mkdir -p "$root/bin" "$root/ko" "$root/proc" "$root/sys" "$root/dev" "$root/root" "$over/lab" "$over/usr/bin"
cp -L "$(command -v busybox)" "$root/bin/busybox"
install -m 755 "$here/init.sh" "$root/init"
modules_in_order "$modules" overlay | while read -r module; do
    cp "$modules/$module" "$root/ko/"
    echo "/ko/$(basename "$module")"
done >"$root/modules"
# Its own programs first.
cat >"$root/beside" <<'END'
$b mkdir -p /root/host
$b mount -t hostfs -o / none /root/host
$b mount -t overlay -o lowerdir=/root/usr:/root/host/usr overlay /root/usr
END
strip -o "$over/usr/bin/shaper" "$shaper"
mkdir -p "$over/usr/lib/modules" "$over/etc/systemd/system/multi-user.target.wants" "$over/var/lib/systemd/linger"
ln -s "/host$modules" "$over/usr/lib/modules/$(basename "$modules")"
cp "$here/files/etc/systemd/system/lab.service" "$over/etc/systemd/system/"
ln -s /etc/systemd/system/lab.service "$over/etc/systemd/system/multi-user.target.wants/lab.service"
cp "$here/neighbours.sh" "$over/lab/cases.sh"
echo "$@" >"$over/lab/words"
# ann's manager starts with the machine, and has a bus, as Debian's dbus-user-session makes it.
: >"$over/var/lib/systemd/linger/ann"
user=$over/etc/systemd/user
mkdir -p "$user/sockets.target.wants"
cat >"$user/dbus.socket" <<'END'
[Socket]
ListenStream=%t/bus
ExecStartPost=-/usr/bin/systemctl --user set-environment DBUS_SESSION_BUS_ADDRESS=unix:path=%t/bus
END
cat >"$user/dbus.service" <<'END'
[Unit]
Requires=dbus.socket
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only
END
ln -s ../dbus.socket "$user/sockets.target.wants/dbus.socket"
# Podman is this machine's, and so is what is known of its version.
mkdir -p "$over/etc/containers"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$over/etc/containers/policy.json"
printf '[engine]\nruntime = "runc"\nevents_logger = "file"\n[containers]\npids_limit = 0\n' >"$over/etc/containers/containers.conf"
for ids in subuid subgid; do
    echo "ann:100000:65536" >"$over/etc/$ids"
done
find "$over" -type d -exec chmod 755 {} +
find "$over/etc" -type f -exec chmod 644 {} +
(cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) >"$stage/initrd"
linux.uml ubd0="$stage/changes,$lab/boot.ext4" initrd="$stage/initrd" lab_disk=/dev/ubda mem=2G quiet con=null con0=fd:0,fd:1 \
    uml_dir="$stage/" umid=lab systemd.show_status=no </dev/zero
