"""xnatfs: an XNAT imaging archive as a folder."""

__version__ = "1.0.0.dev0"
