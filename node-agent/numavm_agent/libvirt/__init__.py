"""libvirt behind the port `Hypervisor`."""
