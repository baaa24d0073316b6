"""etcd and kube-apiserver as plain processes on this machine, and credentials for their clients."""
