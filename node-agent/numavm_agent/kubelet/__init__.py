"""The kubelet behind the port `Kubelet`."""
