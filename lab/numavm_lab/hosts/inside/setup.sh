# Part of the first process of a lab host: devices, cgroups, identity, network, huge pages, all below /sysroot.
share=/sysroot/run/lab
. $share/boot/host # name, machine_id, kvm
echo setup >$share/state

# What udev does elsewhere.
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
if [ "$kvm" = yes ]; then
	for module in /modules-kvm/*.ko; do
		insmod "$module"
	done
	chown "0:$(sed -n 's/^kvm:[^:]*:\([0-9]*\):.*/\1/p' /sysroot/etc/group)" /dev/kvm
	chmod 660 /dev/kvm
fi

mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
echo '+cpuset +cpu +io +memory +hugetlb +pids' >/sys/fs/cgroup/cgroup.subtree_control

hostname "$name"
echo "$name" >/sysroot/etc/hostname
printf '127.0.0.1 localhost %s\n10.0.2.2 outer\n' "$name" >/sysroot/etc/hosts
rm -f /sysroot/etc/machine-id /sysroot/etc/resolv.conf
echo "$machine_id" >/sysroot/etc/machine-id
: >/sysroot/etc/resolv.conf
cp $share/boot/inittab /sysroot/etc/inittab

# root's home is fresh: the outer one is read-only here, and its keys are not ours.
sed -i 's|^root:[^:]*:0:0:[^:]*:.*|root:*:0:0:root:/run/root:/bin/bash|' /sysroot/etc/passwd
mkdir -p /sysroot/run/lock /sysroot/run/root/.ssh
cp $share/boot/ssh-user-key.pub /sysroot/run/root/.ssh/authorized_keys
chmod -R go= /sysroot/run/root

# Nothing of this machine's own libvirt is seen inside: no domains, networks, hooks, state.
for directory in etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt; do
	mkdir -p "/sysroot/$directory"
	mount -t tmpfs -o mode=755 tmpfs "/sysroot/$directory"
done
mkdir -p /sysroot/run/libvirt /sysroot/var/log/libvirt/qemu /sysroot/var/lib/libvirt/qemu
mkdir -p /sysroot/var/cache/libvirt/qemu
cp -r $share/boot/capabilities /sysroot/var/cache/libvirt/qemu/capabilities

# libvirt asks every QEMU it finds what it can, which takes seconds: one is enough.
if [ -e /sysroot/usr/bin/qemu-system-i386 ]; then
	mount --bind /dev/null /sysroot/usr/bin/qemu-system-i386
fi

ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2

while read -r cell size count; do
	file=/sys/devices/system/node/node$cell/hugepages/hugepages-${size}kB/nr_hugepages
	echo "$count" >"$file"
	read -r got <"$file"
	if [ "$got" -ne "$count" ]; then
		echo "failed: cell $cell gave $got of $count huge pages of $size KiB: give it more memory" >$share/state
	fi
done <$share/boot/hugepages
