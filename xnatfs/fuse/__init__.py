"""The adapter between the kernel and the file system: the only package that knows FUSE and errno."""
