#!/bin/sh
# Ends a lab host in order: guests first, as a real host's shutdown would.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo stopping >/run/lab/state
virsh -c qemu:///system list --name 2>/dev/null | while read -r domain; do
	[ -z "$domain" ] || virsh -c qemu:///system destroy "$domain" >/dev/null
done
