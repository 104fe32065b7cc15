"""The file system, free of FUSE: what an archive looks like as files."""
