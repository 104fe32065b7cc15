"""Mounts of ordinary users: who gets in, and every way in which fusermount says no."""

from __future__ import annotations

import os

import pytest

from tests.mount.desk import Desk
from tests.mount.nobody import as_nobody
from xnatfs.demo.server import DemoServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

_START = 'eval "$AS_NOBODY"'

# Programs and files of the machine, otherwise for this namespace. /mnt is first in PATH.
_FUSERMOUNT = (
    'cp "$(readlink -f /usr/bin/fusermount3)" /mnt/fusermount\n'
    "chown root:{group} /mnt/fusermount; chmod {mode} /mnt/fusermount\n"
)
_FUSE_CONF = 'echo "{line}" > /mnt/fuse.conf; mount --bind /mnt/fuse.conf /etc/fuse.conf\n'
_NO_NEW_PRIVS = 'AS_NOBODY=$(echo "$AS_NOBODY" | sed "s/setpriv/& --no-new-privs/")\n'

WAYS = {
    "not setuid": (
        _FUSERMOUNT.format(mode=755, group="root") + _START, "",
        "/mnt/fusermount may not mount: run `chmod u+s /mnt/fusermount` as root",
    ),
    "for a group": (
        _FUSERMOUNT.format(mode=4750, group="mail") + _START, "",
        "/mnt/fusermount may not be run by this user: the administrator runs "
        "`usermod -aG mail nobody`",
    ),
    "for nobody": (
        _FUSERMOUNT.format(mode=4750, group="root") + _START, "",
        "/mnt/fusermount may not be run by this user: the administrator runs "
        "`chmod 4755 /mnt/fusermount`",
    ),
    "no new privileges": (
        _NO_NEW_PRIVS + _START, "",
        "this process runs with no_new_privs",
    ),
    "others": (
        _FUSE_CONF.format(line="#user_allow_other") + _START, "--allow-other",
        "--allow-other is not allowed here: the administrator adds the line user_allow_other",
    ),
    "too many": (
        _FUSE_CONF.format(line="mount_max = 0") + _START, "",
        "the kernel refused the mount: libfuse ended with status 1 (",
    ),
    "not mine": (
        "mkdir /mnt/home/xnat\n" + _START, "",
        "only who may write into a folder may mount there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_no_has_its_words(desk: Desk, server: DemoServer, way: str) -> None:
    root, options, said = WAYS[way]
    job = f'mkdir -p xnat run; xnatfs mount {options} xnat || echo "status $?"\n'
    done = as_nobody(desk, job, root=root)
    code = 5 if way == "not mine" else 6
    assert (done.returncode, done.stdout) == (0, f"status {code}\n"), done.stderr
    assert done.stderr.startswith("xnatfs: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    if way == "too many":
        assert "mount_max" in done.stderr


_LET_IN = r"""
mkdir xnat run
xnatfs mount --allow-other xnat
touch ready; while [ ! -e go ]; do sleep 0.1; done
xnatfs umount xnat
"""

_OTHERS = r"""
eval "$AS_NOBODY" &
job=$!
while [ ! -e /mnt/home/ready ] && kill -0 $job 2> /dev/null; do sleep 0.1; done
chmod 755 /mnt/home
grep -q " /mnt/home/xnat fuse.xnatfs .*default_permissions,allow_other" /proc/mounts && echo shown
cat > /mnt/other <<'END'
cat "/mnt/home/xnat/$SESSION/resources/NAMES/files/plain.txt"
cd "/mnt/home/xnat/$SESSION/resources/QC/files"
for verb in "touch new" "rm qc.csv" "mkdir sub" "mv qc.csv other" "truncate -s 0 qc.csv"; do
    $verb 2> /dev/null && echo "$verb: done"
done
echo x 2> /dev/null > qc.csv && echo "written"
END
setpriv --reuid 65533 --regid 65533 --clear-groups sh /mnt/other || true
touch /mnt/home/go
wait $job
"""


def test_others_are_let_in_to_look_and_not_to_write(desk: Desk, server: DemoServer) -> None:
    conf = _FUSE_CONF.format(line="user_allow_other")
    done = as_nobody(desk, _LET_IN, root=conf + _OTHERS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["shown", "plain"]
    assert [entry for entry in server.log if entry.verb not in ("GET", "HEAD")] == []


# mount(8) is setuid: it drops what could mislead it, so the helper brings its own.
_FSTAB = r"""
mkdir /mnt/sbin /mnt/home/xnat; chown 65534 /mnt/home/xnat
cat > /mnt/sbin/mount.xnatfs <<END
#!/bin/sh
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH HOME=/mnt/home XDG_RUNTIME_DIR=/mnt/home/run
exec "$PYTHON" -c "import sys
sys.path += '$PLACES'.split(':')
from xnatfs.cli.mount_helper import main
sys.exit(main(sys.argv[1:]))" "\$@"
END
chmod 755 /mnt/sbin/mount.xnatfs
mount -t overlay none -o lowerdir=/mnt/sbin:/usr/sbin /usr/sbin
echo "$XNAT_HOST /mnt/home/xnat xnatfs user,noauto,_netdev,netrc=/mnt/home/login 0 0" > /mnt/fstab
mount --bind /mnt/fstab /etc/fstab
eval "$AS_NOBODY"
"""

_BY_USER = r"""
umask 077; mkdir run
echo "machine ${XNAT_HOST#http://} login member password member" > login
unset XNAT_USER XNAT_PASS
mount xnat
grep -c " /mnt/home/xnat fuse.xnatfs .*user_id=65534" /proc/mounts
cat "xnat/$SESSION/resources/NAMES/files/plain.txt"
umount xnat
ls -A xnat
"""


def test_a_line_of_fstab_for_users(desk: Desk) -> None:
    done = as_nobody(desk, _BY_USER, root=_FSTAB)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\nplain\n", "")
