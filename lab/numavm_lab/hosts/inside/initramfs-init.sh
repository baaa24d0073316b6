#!/bin/busybox sh
# First process of a lab host, in the initial RAM file system: shows this machine's root file system, read-only and
# below fresh /run, /tmp, /etc and /var, sets the host up, and hands over to its init.
# All of it uses the busybox in memory: starting a program from the shared root file system costs a tenth of a second.
set -eu
PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

for module in /modules/*.ko; do
	insmod "$module"
done

mount -t virtiofs -o ro numavm-root /lower
mount --bind /lower /sysroot
mount -t tmpfs -o mode=755 run /sysroot/run
mount -t tmpfs -o mode=1777 tmp /sysroot/tmp
mkdir -p /sysroot/run/lab
mount -t virtiofs numavm-share /sysroot/run/lab

for name in etc var; do
	overlay=/sysroot/run/overlay/$name
	mkdir -p "$overlay/upper" "$overlay/work"
	mount -t overlay -o "xino=off,lowerdir=/lower/$name,upperdir=$overlay/upper,workdir=$overlay/work" \
		"overlay-$name" "/sysroot/$name"
done

# What the fresh directories would hide and the host needs: the repository, say, where it lies in /tmp.
while IFS= read -r path; do
	[ -d "/lower$path" ] || continue
	mkdir -p "/sysroot$path"
	mount --bind "/lower$path" "/sysroot$path"
done </sysroot/run/lab/boot/visible

. /setup.sh

mount --move /proc /sysroot/proc
mount --move /sys /sysroot/sys
mount --move /dev /sysroot/dev
exec switch_root /sysroot "$(cat /sysroot/run/lab/boot/busybox)" init
