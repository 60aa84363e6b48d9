#!/bin/sh
# qemu.sh FOLDER KERNEL-TESTS SHAPER [WORDS]: runs the test binary in Debian's cloud kernel under qemu, from an
# initramfs that holds nothing but what the tests need. FOLDER/kernel is kernel.sh's. The console is
# standard output, the keyboard standard input: Ctrl-A b and Ctrl-A c are qemu's. Emulated (tcg): no /dev/kvm
# is needed, and everything is some ten times slower.
#
# LAB_BOOT in the environment, 1 unless set: from the second boot of a test on, after one that hung, one thread
# emulates both processors in turn, and from the third on there is one processor. SHAPER_LAB there: what the tests
# inside are told that this is, qemu unless set.
#
# Machine q35, not microvm: it has an HPET. microvm offers only the PIT, against which an emulated CPU
# on a busy machine cannot be calibrated; the kernel then hangs while it boots, or counts jiffies.
set -eu
here=$(dirname "$0")
. "$here/modules.sh"
folder=$1 tests=$2 shaper=$3
shift 3
if [ ! -e "$folder/kernel/vmlinuz" ]; then
    echo "qemu.sh: no kernel in $folder/kernel; tests/lab/kernel.sh gets one" >&2
    exit 1
fi
stage=$(mktemp -d "$folder/qemu.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM
root=$stage/root
mkdir -p "$root/var" "$root/lab/ko" "$root/bin" "$root/sbin" "$root/usr/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/run" "$root/dev"

# add FILE AS: a program and the shared libraries that it names.
add() {
    mkdir -p "$root$(dirname "$2")"
    cp -L "$1" "$root$2"
    ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; }
    done
}
add "$tests" /lab/kernel-tests
[ -z "$shaper" ] || add "$shaper" /lab/shaper
add "$(command -v busybox)" /bin/busybox
ln -s busybox "$root/bin/sh"
ln -s ../run "$root/var/run"
for program in tc ip wg ping ss iptables-legacy ovsdb-tool ovsdb-server ovs-vswitchd ovs-vsctl; do
    add "$(command -v $program)" /sbin/$program
done
# Of iptables' own libraries those that the tests' rules need; of the switch's files its schema.
for library in /usr/lib/*/xtables; do
    for name in libxt_tcp libxt_standard libipt_MASQUERADE libxt_MASQUERADE libipt_DNAT libipt_SNAT libxt_DNAT libxt_NAT; do
        [ ! -e "$library/$name.so" ] || add "$library/$name.so" "$library/$name.so"
    done
done
add /usr/share/openvswitch/vswitch.ovsschema /usr/share/openvswitch/vswitch.ovsschema
[ ! -d /etc/iproute2 ] || cp -rL /etc/iproute2 "$root/etc/"
for file in passwd group subuid; do : >"$root/etc/$file"; done
printf 'passwd: files\ngroup: files\n' >"$root/etc/nsswitch.conf"
# stage_modules MODULE...: copies them and what they need; says their paths there.
stage_modules() {
    modules_in_order "$folder/kernel/modules" "$@" | while read -r module; do
        cp "$folder/kernel/modules/$module" "$root/lab/ko/"
        echo "/lab/ko/$(basename "$module")"
    done
}
stage_modules $lab_modules >"$root/lab/modules"
stage_modules $lab_carriers >"$root/lab/carriers"
echo "$@" >"$root/lab/words"
cp "$here/init.sh" "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$stage/initrd"
processors=2 thread=multi
case ${LAB_BOOT:-1} in
1) ;;
2) thread=single ;;
*) thread=single processors=1 ;;
esac
qemu-system-x86_64 -machine q35 -accel "tcg,thread=$thread" -smp "$processors" -cpu max -m 2G \
    -nographic -net none -no-reboot -kernel "$folder/kernel/vmlinuz" -initrd "$stage/initrd" \
    -append "console=ttyS0 panic=-1 sysrq_always_enabled=1 lab_stage=/lab SHAPER_LAB=${SHAPER_LAB:-qemu}"
