#!/bin/busybox sh
# The only program of the witness guest: says on the serial console what the guest's kernel sees, whenever that changes.
# One line each time, `NUMAVM-WITNESS {json}`. Where the console takes input: report, touch MIB, online-cpus, poweroff.
# Options on the kernel's command line:
#   numavm.report=N         report every N seconds, changed or not
#   numavm.touch=64M        write to so much memory; 1:64M on node 1 only; more, separated by commas
#   numavm.write=0:16M,1:16M  write so much random data on each node, over and over, and compare it each time; the
#                           first rounds, 48M in all, go to memory that was not touched before
#   numavm.pace=N           wait N milliseconds between two such rounds, not 500
#   numavm.hotplug=online_kernel  how memory that is plugged in later comes into use: online_movable if left out
#   numavm.online=manual    leave CPUs that are plugged in later offline until online-cpus is asked for
# Files are read with `read`, which starts no process: on emulated CPUs each process costs milliseconds.
PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
echo 1 >/proc/sys/kernel/printk # kernel messages would tear the report's line

sequence=0
touched=0
uuid=
read -r command_line </proc/cmdline

option() { # NAME: the last value given for it
	value=
	for word in $command_line; do
		case $word in "$1="*) value=${word#*=} ;; esac
	done
	echo "$value"
}

load_modules() {
	for module in /modules/*.ko; do
		insmod "$module" 2>/dev/null
	done
}

escape() { # TEXT: for use in a JSON string
	printf %s "$1" | sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g'
}

read_file() { # FILE DEFAULT -> $text
	text=$2
	[ -r "$1" ] && read -r text <"$1"
}

list_cpus() { # -> $list
	list=
	# The lists of CPUs are binary attributes, of which `read` gets nothing.
	set -- $(cat /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list)
	for directory in /sys/devices/system/cpu/cpu[0-9]*; do
		topology=$directory/topology
		[ -r "$topology/core_id" ] || continue
		siblings=$1
		shift
		read -r package <"$topology/physical_package_id"
		read_file "$topology/die_id" 0 && die=$text
		read -r core <"$topology/core_id"
		list="$list,{\"id\":${directory##*cpu},\"package\":$package,\"die\":$die,\"core\":$core,\"siblings\":\"$siblings\"}"
	done
}

list_hugepages() { # NODE-DIRECTORY -> $pages
	pages=
	for size in "$1"/hugepages/hugepages-*; do
		[ -r "$size/nr_hugepages" ] || continue
		read -r count <"$size/nr_hugepages"
		kib=${size##*hugepages-}
		pages="$pages,\"${kib%kB}\":$count"
	done
}

list_access() { # NODE-DIRECTORY -> $access: what HMAT says of the node's memory, from its best initiators
	access=null
	initiators=$1/access0/initiators
	[ -r "$initiators/read_latency" ] || return
	nodes=
	for initiator in "$initiators"/node[0-9]*; do
		[ -e "$initiator" ] && nodes="$nodes,${initiator##*node}"
	done
	access="\"initiators\":[${nodes#,}]"
	for name in read_latency write_latency read_bandwidth write_bandwidth; do
		read_file "$initiators/$name" 0
		case $name in
		read_latency) key=readLatency ;;
		write_latency) key=writeLatency ;;
		read_bandwidth) key=readBandwidth ;;
		*) key=writeBandwidth ;;
		esac
		access="$access,\"$key\":$text"
	done
	access="{$access}"
}

list_caches() { # NODE-DIRECTORY -> $caches
	caches=
	for cache in "$1"/memory_side_cache/index[0-9]*; do
		[ -r "$cache/size" ] || continue
		read -r size <"$cache/size"
		read -r line <"$cache/line_size"
		read -r indexing <"$cache/indexing"
		read -r policy <"$cache/write_policy"
		caches="$caches,{\"level\":${cache##*index},\"size\":$size,\"lineSize\":$line,\"indexing\":$indexing,\"writePolicy\":$policy}"
	done
}

list_nodes() { # -> $list
	list=
	for node in /sys/devices/system/node/node[0-9]*; do
		cpus=$(cat "$node/cpulist")
		read -r distances <"$node/distance"
		while read -r _ _ key size _; do
			[ "$key" = MemTotal: ] && memory=$size && break
		done <"$node/meminfo"
		list_hugepages "$node"
		list_access "$node"
		list_caches "$node"
		list="$list,{\"id\":${node##*node},\"cpus\":\"$cpus\",\"memoryKib\":$memory,\"distances\":[$(echo $distances | tr ' ' ,)],\"hugepages\":{${pages#,}},\"access\":$access,\"caches\":[${caches#,}]}"
	done
}

list_disks() { # -> $list
	list=
	for disk in /sys/block/*; do
		[ -e "$disk/device" ] || continue
		read -r sectors <"$disk/size"
		read_file "$disk/device/../numa_node" -1
		list="$list,{\"name\":\"${disk##*/}\",\"bytes\":$((sectors * 512)),\"node\":$text}"
	done
}

list_nics() { # -> $list
	list=
	for nic in /sys/class/net/*; do
		[ -e "$nic/device" ] || continue
		read -r mac <"$nic/address"
		read_file "$nic/device/../numa_node" -1
		list="$list,{\"name\":\"${nic##*/}\",\"mac\":\"$mac\",\"node\":$text}"
	done
}

list_pci() { # -> $list
	list=
	for device in /sys/bus/pci/devices/*; do
		[ -r "$device/vendor" ] || continue
		read -r vendor <"$device/vendor"
		read -r product <"$device/device"
		read_file "$device/numa_node" -1
		list="$list,{\"address\":\"${device##*/}\",\"vendor\":\"${vendor#0x}\",\"device\":\"${product#0x}\",\"node\":$text}"
	done
}

observe() { # -> $seen: all but the sequence number and the clock
	read -r online </sys/devices/system/cpu/online
	read -r possible </sys/devices/system/cpu/possible
	read -r nodes </sys/devices/system/node/online
	list_cpus
	seen="\"uuid\":\"$uuid\",\"onlineCpus\":\"$online\",\"possibleCpus\":\"$possible\",\"onlineNodes\":\"$nodes\",\"cpus\":[${list#,}]"
	list_nodes
	seen="$seen,\"nodes\":[${list#,}]"
	list_disks
	seen="$seen,\"disks\":[${list#,}]"
	list_nics
	seen="$seen,\"nics\":[${list#,}]"
	list_pci
	seen="$seen,\"pci\":[${list#,}],\"touchedMib\":$touched,\"commandLine\":\"$escaped_command_line\""
}

report() {
	read -r uptime _ </proc/uptime
	sequence=$((sequence + 1))
	printf 'NUMAVM-WITNESS {"sequence":%d,"uptimeSeconds":%s,%s}\n' "$sequence" "$uptime" "$seen"
	reported=$seen
}

touch_memory() { # [NODE:]SIZE: 64, 64M
	node=any
	size=$1
	case $size in *:*) node=${size%%:*} size=${size#*:} ;; esac
	size=${size%M}
	case $size in '' | *[!0-9]*) echo "witness: touch $1: a number of MiB, or NODE:MiB" && return ;; esac
	directory=/touched/$node
	if [ ! -d "$directory" ]; then
		mkdir -p "$directory"
		policy=
		[ "$node" = any ] || policy=,mpol=bind:$node
		mount -t tmpfs -o "size=100%$policy" touched "$directory" || return
	fi
	number=$((number + 1))
	dd if=/dev/zero of="$directory/$number" bs=1M count="$size" 2>/dev/null && touched=$((touched + size))
}

write_memory() { # NODE:SIZE: never returns
	node=${1%%:*}
	size=${1#*:}
	directory=/written/$node
	mkdir -p "$directory"
	mount -t tmpfs -o "size=100%,mpol=bind:$node" written "$directory" || return
	dd if=/dev/urandom of="$directory/kept" bs=1M count="${size%M}" 2>/dev/null
	sum=$(md5sum <"$directory/kept")
	rounds=0
	bad=0
	pace=$(option numavm.pace)
	while :; do
		copy=$directory/copy$((rounds % (1 + 48 / ${size%M})))
		cp "$directory/kept" "$copy"
		[ "$(md5sum <"$directory/kept")" = "$sum" ] && [ "$(md5sum <"$copy")" = "$sum" ] || bad=$((bad + 1))
		rounds=$((rounds + 1))
		read -r uptime _ </proc/uptime
		echo "NUMAVM-WRITER {\"node\":$node,\"rounds\":$rounds,\"bad\":$bad,\"uptimeSeconds\":$uptime}"
		usleep "${pace:-500}000" # emulated hosts have other work too
	done
}

measure_pauses() { # never returns: says how long it was at most kept from running, by the guest's own clock
	longest=0
	read -r before _ </proc/uptime
	while read -r now _ </proc/uptime; do
		# Hundredths of a second, without the point; 1 before them keeps leading zeros from meaning octal.
		pause=$((1${now#*.} - 1${before#*.} + (${now%.*} - ${before%.*}) * 100))
		before=$now
		if [ "$pause" -gt "$longest" ]; then
			longest=$pause
			echo "NUMAVM-PAUSE {\"longestMilliseconds\":$((longest * 10)),\"uptimeSeconds\":$now}"
		fi
		usleep 50000
	done
}

online_cpus() {
	for file in /sys/devices/system/cpu/cpu[0-9]*/online; do
		read -r state <"$file"
		[ "$state" = 1 ] || echo 1 >"$file"
	done
}

watch_power_button() {
	for event in /sys/class/input/event*; do
		read_file "$event/device/name" ""
		[ "$text" = "Power Button" ] || continue
		(dd if="/dev/input/${event##*/}" of=/dev/null bs=24 count=1 2>/dev/null && poweroff -f) &
	done
}

obey() { # COMMAND ARGUMENT
	case $1 in
	report) report ;;
	touch) touch_memory "$2" ;;
	online-cpus) online_cpus ;;
	poweroff) poweroff -f ;;
	esac
}

load_modules
stty -echo -F /dev/console
# As udev does in ordinary guests: memory and CPUs that are plugged in are taken into use.
hotplug=$(option numavm.hotplug)
echo "${hotplug:-online_movable}" >/sys/devices/system/memory/auto_online_blocks 2>/dev/null
for state in /sys/devices/system/memory/memory[0-9]*/state; do # plugged in while the kernel booted
	read_file "$state" online
	[ "$text" = offline ] && echo "${hotplug:-online_movable}" >"$state"
done
read_file /sys/class/dmi/id/product_uuid "" && uuid=$text
escaped_command_line=$(escape "$command_line")
every=$(option numavm.report)
online_mode=$(option numavm.online)
watch_power_button
observe
report
for amount in $(option numavm.touch | tr , ' '); do
	touch_memory "$amount"
done

for amount in $(option numavm.write | tr , ' '); do
	write_memory "$amount" &
done
[ -z "$(option numavm.write)" ] || measure_pauses &

since=0
while :; do
	if read -r -t 1 command argument </dev/console; then
		obey "$command" "$argument"
	fi
	since=$((since + 1))
	[ "$online_mode" = manual ] || online_cpus
	observe
	if [ "$seen" != "$reported" ] || { [ -n "$every" ] && [ "$since" -ge "$every" ]; }; then
		report
		since=0
	fi
done
