#!/bin/sh
# Starts libvirt in a lab host and says when it answers.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
read -r state </run/lab/state
[ "$state" = setup ] || exit 1 # the set-up has failed and said so

say() { # STATE: whole or not at all, for the reader outside
	echo "$1" >/run/lab/state.new
	mv /run/lab/state.new /run/lab/state
}

start() {
	LIBVIRT_LOG_OUTPUTS=3:file:/run/lab/log/virtlogd.log virtlogd -d
	LIBVIRT_LOG_OUTPUTS=3:file:/run/lab/log/libvirtd.log libvirtd -d
}

# The kernel patches itself when its first VM appears (preempt_notifier_key, in the scheduler), its first cgroup with a
# cpuset (cpusets_enabled_key, in the page allocator) or a quota, and back when the last one goes. On several emulated
# CPUs that is a gamble: QEMU may go on with the old translation of a patched instruction, and a guest, or the whole
# host, stands still. So one of each is there before the other CPUs are, and for ever. 0xAE01 is KVM_CREATE_VM.
patch_while_alone() {
	mkdir /sys/fs/cgroup/held
	echo '1000000 1000000' >/sys/fs/cgroup/held/cpu.max
	if [ -e /dev/kvm ]; then
		perl -e 'open my $kvm, "+<", "/dev/kvm" or die $!; ioctl $kvm, 0xAE01, 0 or die $!; fork and exit; sleep'
	fi
}

bring_up_cpus() { # all but the first: the kernel was started with maxcpus=1
	for online in /sys/devices/system/cpu/cpu[0-9]*/online; do
		echo 1 >"$online"
	done
}

# The first call makes libvirtd ask QEMU what it can, which takes it seconds unless it knows from an earlier boot.
# A QEMU that never answers is not unheard of on emulated CPUs, so the call is given up and made again.
answers() {
	timeout 90 virsh -c qemu:///system capabilities >/run/lab/capabilities.xml 2>/run/lab/log/virsh.log
}

# What udev and kmod do elsewhere: libvirt gives devices to guests only where /dev/vfio/vfio is there already.
if [ -n "$(ls /sys/kernel/iommu_groups 2>/dev/null)" ]; then
	modprobe vfio-pci
fi

patch_while_alone
bring_up_cpus
say libvirt
start
if ! answers; then
	ps -eo pid,ppid,stat,wchan:24,etimes,args >/run/lab/log/libvirt-stuck.log
	kill -9 "$(cat /run/libvirtd.pid)"
	start
	if ! answers; then
		say "failed: libvirt does not answer: $(tr '\n' ' ' </run/lab/log/virsh.log)"
		exit 1
	fi
fi
mkdir -p /run/lab/probed
cp /var/cache/libvirt/qemu/capabilities/*.xml /run/lab/probed/
say ready
