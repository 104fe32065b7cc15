"""Bytes on disk: the block store, its layout and its eviction. It knows no HTTP."""
