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

# The first call makes libvirtd ask QEMU what it can, which takes it seconds unless it knows from an earlier boot.
# A QEMU that never answers is not unheard of on emulated CPUs, so the call is given up and made again.
answers() {
	timeout 90 virsh -c qemu:///system capabilities >/run/lab/capabilities.xml 2>/run/lab/log/virsh.log
}

# What udev and kmod do elsewhere: libvirt gives devices to guests only where /dev/vfio/vfio is there already.
if [ -n "$(ls /sys/kernel/iommu_groups 2>/dev/null)" ]; then
	modprobe vfio-pci
fi

# The kernel patches its own scheduler when its first VM appears and when its last one goes (the key
# preempt_notifier_key). On several emulated CPUs that is a gamble: one of them can go on executing the old
# translation of the patched instruction, and the whole host stands still, seen with KVM's VMs only. A VM without
# CPUs that is held open for ever makes it happen once, before anything else runs. 0xAE01 is KVM_CREATE_VM.
if [ -e /dev/kvm ]; then
	perl -e 'open my $kvm, "+<", "/dev/kvm" or die $!; ioctl $kvm, 0xAE01, 0 or die $!; sleep' 2>/run/lab/log/kvm.log &
fi

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
