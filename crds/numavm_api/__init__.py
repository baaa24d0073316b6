"""The NumaVM API: the only place where a field is defined."""
