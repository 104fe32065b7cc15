"""The look-alike XNAT server. It imports nothing of the client (docs/ARCHITECTURE.md)."""
