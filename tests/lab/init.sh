#!/bin/busybox sh
# The lab kernel's first process, in both kernels: makes the machine usable, runs the tests, then those that
# need macvlan and ipvlan, says the verdict on the console, switches off. The kernel command line sets these in
# its environment:
#   lab_stage    the folder with kernel-tests, shaper, modules and carriers (lists) and words (for the harness)
#   SHAPER_LAB   which kernel this is: uml or qemu
b=/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TMPDIR=/run SHAPER_LAB
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t tmpfs -o mode=755 tmpfs /run
# Some kernels mount it themselves.
$b grep -q ' /dev devtmpfs ' /proc/mounts || $b mount -t devtmpfs devtmpfs /dev
load() {
    for module in $($b cat "$lab_stage/$1"); do
        # The other list may have needed it too.
        loaded=$($b basename "$module" .ko | $b tr - _)
        [ -e "/sys/module/$loaded" ] || $b insmod "$module" || echo "lab: insmod $module failed"
    done
}
tests() {
    SHAPER="$lab_stage/shaper" "$lab_stage/kernel-tests" "$@" $($b cat "$lab_stage/words")
}
# Errors only: a word of the kernel's amid a line of the tests would hide that.
$b dmesg -n 4
# A device of each kind of tunnel is made in this network namespace alone, and in no test's.
$b echo 1 >/proc/sys/net/core/fb_tunnels_only_for_init_net
load modules
clock=$($b cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
echo "lab: $($b uname -r) is up after $($b cut -d' ' -f1 /proc/uptime) s, by its clock $clock"
tests
verdict=$?
load carriers
tests --with-carriers
echo "lab verdict: $((verdict + $?))"
$b sync
$b poweroff -f
