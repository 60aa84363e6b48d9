#!/bin/sh
# qemu.sh LAB (TEST-BINARY) SHAPER CASES: boots a Debian with systemd under qemu, in which `make install` has put SHAPER
# and its units, and runs the CASES of cases.sh there. As tests/lab/qemu.sh: kernel, console, LAB_BOOT. The disk is
# LAB/boot.ext4 (root.sh), of which nothing is changed; the machine may boot again and finds what it wrote.
set -eu
here=$(dirname "$0")
. "$here/../lab/modules.sh"
lab=$1 shaper=$3
shift 3
for file in kernel/vmlinuz boot.ext4; do
    [ -e "$lab/$file" ] || { echo "qemu.sh: no $lab/$file; \`make lab-kernel\` makes it" >&2; exit 1; }
done
stage=$(mktemp -d "$lab/boot.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM
root=$stage/root over=$stage/root/over
mkdir -p "$root/bin" "$root/ko" "$root/proc" "$root/sys" "$root/dev" "$root/root" "$over/lab"
cp -L "$(command -v busybox)" "$root/bin/busybox"
install -m 755 "$here/init.sh" "$root/init"
modules_in_order "$lab/kernel/modules" virtio_pci virtio_blk crc32c_generic ext4 | while read -r module; do
    cp "$lab/kernel/modules/$module" "$root/ko/"
    echo "/ko/$(basename "$module")"
done >"$root/modules"

strip -o "$stage/shaper" "$shaper"
make -s -C "$here/../.." install BUILT="$stage/shaper" DESTDIR="$over" PREFIX=/usr UNITS=/usr/lib/systemd/system >/dev/null 2>&1
cp -r "$here"/files/. "$over/"
cp "$here/../../systemd/"*.conf "$over/lab/"
cp "$here/cases.sh" "$over/lab/"
echo "$@" >"$over/lab/words"
# ann's manager starts with the machine.
mkdir -p "$over/var/lib/systemd/linger"
: >"$over/var/lib/systemd/linger/ann"
find "$over" -type d -exec chmod 755 {} +
find "$over/etc" -type f -exec chmod 644 {} +
# As `systemctl enable` does.
wants=$over/etc/systemd/system/multi-user.target.wants
mkdir -p "$wants"
for unit in shaper.service systemd-networkd.service; do
    ln -s "/usr/lib/systemd/system/$unit" "$wants/$unit"
done
ln -sf /etc/systemd/system/lab.service "$wants/lab.service"
(cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) >"$stage/initrd"
processors=2 thread=multi
case ${LAB_BOOT:-1} in
1) ;;
2) thread=single ;;
*) thread=single processors=1 ;;
esac
qemu-system-x86_64 -machine q35 -accel "tcg,thread=$thread" -smp "$processors" -cpu max -m 1G -nographic -net none \
    -drive "file=$lab/boot.ext4,if=virtio,format=raw,snapshot=on" \
    -kernel "$lab/kernel/vmlinuz" -initrd "$stage/initrd" \
    -append "console=ttyS0 panic=30 sysrq_always_enabled=1 quiet systemd.show_status=no systemd.mask=dev-hugepages.mount ${LAB_APPEND:-}"
