"""What the host has: read from sysfs and libvirt at the edge, understood by pure functions."""
