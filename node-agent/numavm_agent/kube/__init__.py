"""The API server behind the port `Api`."""
