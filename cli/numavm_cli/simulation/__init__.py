"""The placement on a fleet and a stream of VMs that come and go, without a cluster: what `numavm simulate` runs."""
