"""The archive for Python without a mount: ``fsspec.open("xnat://projects/…")``.

The entry point ``xnat`` names ``XnatFileSystem``. Options, environment, credentials and store are
those of the command line.
"""

from xnatfs.fsspec.filesystem import XnatFileSystem

__all__ = ["XnatFileSystem"]
