"""The command line, numavm and kubectl-numavm."""
