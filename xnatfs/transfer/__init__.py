"""Whole files from and to the archive, without FUSE: prefetch, get, put, verify."""
