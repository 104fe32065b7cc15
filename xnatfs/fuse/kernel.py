"""What the kernel remembers of a mount's names, and how it is told to forget them.

The kernel answers for names and attributes from memory for ``Limits.kernel_ttl_s``. ``serving``
calls this when somebody asks for a refresh. Nothing here knows archives.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

_DEVICE = "/dev/fuse"

# struct fuse_out_header of linux/fuse.h: length, code, and 0 where no request is answered.
_HEADER = struct.Struct("=IiQ")
# FUSE_NOTIFY_INC_EPOCH, Linux 6.16 on: every name that the kernel remembers is asked for anew.
_INC_EPOCH = 8


def forget_names() -> bool:
    """Let the kernel ask again for every name of this process's mount.

    Returns: False: this kernel cannot be told; it forgets within ``Limits.kernel_ttl_s``.
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == _DEVICE:
                os.write(int(name), _HEADER.pack(_HEADER.size, _INC_EPOCH, 0))
                return True
    return False
