#!/bin/sh
# kernel.sh FOLDER [newest]: gets Debian's cloud kernel into FOLDER/kernel (vmlinuz and modules), without installing
# it: the release's own, or the newest that apt knows (of backports, unsigned).
set -eu
folder=$1 which=${2:-stable}
[ ! -e "$folder/kernel/vmlinuz" ] || exit 0
mkdir -p "$folder"
cd "$folder"
newest() {
    if [ "$which" = newest ]; then
        apt-cache search --names-only '^linux-image-.*-cloud-amd64-unsigned$' | awk '{print $1}' | sort -V | tail -n 1
        return
    fi
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}'
}
# The lists of a fresh machine are empty, and old ones name what is no longer there.
package=$(newest)
[ -n "$package" ] || { apt-get update -qq && package=$(newest); }
if [ -z "$package" ]; then
    echo "kernel.sh: apt knows no cloud kernel ($which)" >&2
    exit 1
fi
ls "$package"_*.deb >/dev/null 2>&1 || apt-get download -q "$package" || {
    apt-get update -qq
    package=$(newest)
    apt-get download -q "$package"
}
rm -rf unpacked kernel.new
dpkg -x "$(ls "$package"_*.deb | sort -V | tail -n 1)" unpacked
release=${package#linux-image-}
release=${release%-unsigned}
# Newer packages have compressed modules, which busybox cannot load.
find unpacked -name '*.ko.xz' -exec xz -d {} +
mkdir kernel.new
mv "unpacked/boot/vmlinuz-$release" kernel.new/vmlinuz
mv "$(find unpacked -type d -path "*/lib/modules/$release")" kernel.new/modules
# Without depmod's list there is no order: the package makes it when it is installed.
[ -e kernel.new/modules/modules.dep ] || {
    mkdir -p "unpacked/lib/modules"
    mv kernel.new/modules "unpacked/lib/modules/$release"
    depmod -b unpacked "$release"
    mv "unpacked/lib/modules/$release" kernel.new/modules
}
rm -rf unpacked
mv kernel.new kernel
