"""The node agent: runs on every host and owns its libvirt domains."""
