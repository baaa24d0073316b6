"""The operator: places NumaVMs and writes what only it may write."""
