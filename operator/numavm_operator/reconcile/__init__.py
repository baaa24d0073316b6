"""What becomes of a NumaVM: observe, decide, act, report."""
