"""The adapter to the kernel: the only package that knows FUSE and errno."""
