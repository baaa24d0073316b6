"""The host's kernel and files behind the port `HostReader`."""
