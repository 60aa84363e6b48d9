#!/bin/busybox sh
# The first process of the emulated machine, of an initramfs: mounts the root, lays what is tried over it, at the first
# boot, and leaves the machine to systemd there.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b dmesg -n 4
for module in $($b cat /modules); do
    $b insmod "$module" || echo "boot: insmod $module failed"
done
until $b mount -t ext4 "${lab_disk:-/dev/vda}" /root; do $b sleep 0.2; done
[ -e /root/laid ] || { $b cp -a /over/. /root/ && : >/root/laid; }
[ ! -e /beside ] || . /beside
echo "lab: $($b uname -r) has its root after $($b cut -d' ' -f1 /proc/uptime) s"
exec $b switch_root /root /lib/systemd/systemd
