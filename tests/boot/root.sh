#!/bin/sh
# root.sh LAB: makes LAB/boot.ext4, once: a small Debian with systemd, and the modules of LAB/kernel (kernel.sh's).
set -eu
lab=$1
here=$(dirname "$0")
# Made anew where what is put into it changes, or the kernel whose modules it has.
made=$(cat "$0" "$here"/../kernel/hangs.c "$lab/kernel/vmlinuz" | sha256sum | cut -c 1-16)
[ "$(cat "$lab/boot.made" 2>/dev/null)" != "$made" ] || exit 0
stage=$(mktemp -d "$lab/boot.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM
packages=kmod,systemd,systemd-sysv,udev,dbus,libpam-systemd,iproute2,cron,procps,network-manager
base=$lab/boot-base-$(echo "$packages" | sha256sum | cut -c 1-8).tar
[ -f "$base" ] || {
    mmdebstrap --quiet --variant=minbase --include=$packages "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$stage/base.tar"
    mv "$stage/base.tar" "$base"
}
root=$stage/root
mkdir "$root"
tar -C "$root" -xf "$base"
release=$(dpkg-deb -f "$(ls "$lab"/linux-image-*.deb | sort -V | tail -n 1)" Package | sed 's/^linux-image-//; s/-unsigned$//')
mkdir -p "$root/usr/lib/modules"
cp -r "$lab/kernel/modules" "$root/usr/lib/modules/$release"
rm -rf "$root/usr/lib/modules/$release"/kernel/sound "$root"/usr/share/doc "$root"/usr/share/locale "$root"/var/cache/apt

for name in ann:4100 bob:4200 carol:4300; do
    chroot "$root" useradd --uid "${name#*:}" --create-home --shell /bin/bash "${name%:*}"
done
# A directory of accounts that never answers, where nsswitch.conf names it.
gcc -Wall -shared -fPIC -o "$root/usr/lib/x86_64-linux-gnu/libnss_hangs.so.2" "$here/../kernel/hangs.c"
chroot "$root" ldconfig

# What a boot does without: it is emulated.
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer \
    systemd-timesyncd.service getty@.service serial-getty@.service systemd-pstore.service systemd-update-utmp.service \
    systemd-binfmt.service keyboard-setup.service console-setup.service man-db.timer logrotate.timer \
    ldconfig.service systemd-journal-catalog-update.service systemd-hwdb-update.service systemd-udev-settle.service \
    systemd-network-generator.service NetworkManager.service NetworkManager-wait-online.service wpa_supplicant.service \
    NetworkManager-dispatcher.service ModemManager.service polkit.service systemd-firstboot.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
echo lab >"$root/etc/hostname"
: >"$root/etc/fstab"
# Not "uninitialized": at a first boot systemd would enable whatever it finds.
printf "%032x\n" 1 >"$root/etc/machine-id"
truncate -s 900M "$stage/boot.ext4"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$stage/boot.ext4"
mv "$stage/boot.ext4" "$lab/boot.ext4"
echo "$made" >"$lab/boot.made"
