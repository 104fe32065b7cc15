"""A shell script as an ordinary user of this machine, started by root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.mount.desk import SESSION, Desk

# Everything in a mount and process namespace of its own: with its first process all others end
# and all mounts go. The clone and the interpreter may lie where only root may look.
_SET_UP = r"""
mount -t tmpfs -o mode=755 none /mnt
mknod /mnt/fuse c 10 229; chmod 666 /mnt/fuse; mount --bind /mnt/fuse /dev/fuse
number=0; count=$#; path=
for place in "$@"; do
    number=$((number + 1)); mkdir "/mnt/$number"; mount --bind "$place" "/mnt/$number"
    [ $number -gt $((count - 1)) ] || path=$path:/mnt/$number
done
mkdir -m 700 /mnt/home; chown 65534:65534 /mnt/home
cat > /mnt/xnatfs <<'END'
#!/bin/sh
# Behind the standard library, where site-packages belong: PYTHONPATH would come before it.
exec "$PYTHON" -c "import os, runpy, sys
sys.path += os.environ['PLACES'].split(':')
runpy.run_module('xnatfs', run_name='__main__')" "$@"
END
chmod 755 /mnt/xnatfs
export PLACES="${path#:}" HOME=/mnt/home XDG_RUNTIME_DIR=/mnt/home/run PATH="/mnt:$PATH"
unset XDG_STATE_HOME XDG_CACHE_HOME XDG_CONFIG_HOME
export LD_LIBRARY_PATH=/mnt/$count/lib
cat > /mnt/job
cd /mnt
AS_NOBODY="setpriv --reuid 65534 --regid 65534 --clear-groups sh -euc 'cd; . /mnt/job'"
"""


def as_nobody(
    desk: Desk, job: str, *, root: str = 'eval "$AS_NOBODY"', **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a shell script as user 65534, who is ``member`` at the server.

    The script finds ``xnatfs`` and starts in an empty home folder.

    Args:
        desk: whose server.
        job: the script.
        root: what root does in its place: a script that evaluates ``$AS_NOBODY``.
        variables: of the environment.
    """
    places = [path for path in sys.path if path and Path(path).is_dir()]
    clone = str(Path(__file__).parents[2])
    bound = [clone, *(it for it in places if it != clone and "site-packages" in it)]
    python = Path(sys.executable).resolve().relative_to(sys.base_prefix)
    bound.append(sys.base_prefix)
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "--propagation", "private", "sh", "-euc", _SET_UP + root, "sh", *bound],
        env=desk.variables | {
            "XNAT_HOST": desk.url, "SESSION": SESSION,
            "PYTHON": f"/mnt/{len(bound)}/{python}", "CLONE": "/mnt/1",
            "PYTHONDONTWRITEBYTECODE": "1", "XNAT_USER": "member", "XNAT_PASS": "member",
        } | variables,
        input=job, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
