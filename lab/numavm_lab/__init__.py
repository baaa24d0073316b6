"""Real control planes and multi-NUMA hosts on one machine, for trying and for testing."""
