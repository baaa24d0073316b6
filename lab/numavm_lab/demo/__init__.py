"""The demo: everything on one machine, an example on it, and the proof of where it is."""
