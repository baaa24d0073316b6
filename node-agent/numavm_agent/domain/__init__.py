"""From a spec and a claim to a libvirt domain: pure, no I/O."""
