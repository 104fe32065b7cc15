"""What the documents tell their readers to type works, and shows what they show."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import PIP, Session, blocks, unaccounted
from tests.mount.desk import BIN
from xnatfs.demo.server import DemoServer
from xnatfs.fuse import mounts

TOP = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("docker/*.md")]
    if path.name not in ("ARCHITECTURE.md", "XNAT.md", "CHANGELOG.md")
)


def name(document: Path) -> str:
    return str(document.relative_to(TOP))


def having(kind: str) -> list[Path]:
    """The documents with a block of this kind."""
    return [
        path for path in DOCUMENTS if kind in {block.kind for block in blocks(path.read_text())}
    ]


def free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


@pytest.fixture
def reader(fuse: None, server: DemoServer, tmp_path: Path) -> Iterator[Session]:
    """Somebody with a login in a home folder that is otherwise fresh, and a clone in it."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "xnatfs").symlink_to(TOP)
    (home / ".netrc").touch(mode=0o600)
    address = server.url.removeprefix("http://")
    (home / ".netrc").write_text(f"machine {address} login admin password admin\n")
    yield Session(
        home,
        PIP
        | {
            "HOME": str(home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(tmp_path),
            "USER": "jdoe",
        },
        {
            "https://xnat.example.edu": server.url,
            "/scratch": str(tmp_path / "scratch"),
            "8094": str(free_port()),
        },
    )
    left = [each.mountpoint for each in mounts.mounted() if str(home) in each.mountpoint]
    for place in left:
        mounts.unmount(Path(place), lazy=True)
    assert left == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_is_run_or_said_not_to_be(document: Path) -> None:
    assert unaccounted(document.read_text()) == []


@pytest.mark.parametrize("document", having(""), ids=name)
def test_what_is_typed_does_what_is_said(document: Path, reader: Session) -> None:
    assert reader.follow(document, {""}) == ""


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("document", having("long"), ids=name)
def test_with_what_takes_long(document: Path, reader: Session) -> None:
    subprocess.run([BIN / "python3", "-m", "venv", reader.home / ".venvs/xnatfs"], check=True)
    reader.timeout = 300
    assert reader.follow(document, {"", "long"}) == ""


# Changes to the machine last as long as the namespace. $1: a folder, $2: where xnatfs is.
MACHINE = """
mount -t tmpfs none "$1"
for place in etc mnt opt usr/local usr/sbin; do
    mkdir -p "$1/$place/upper" "$1/$place/work"
    mount -t overlay none -o "lowerdir=/$place,upperdir=$1/$place/upper,workdir=$1/$place/work" \\
        "/$place"
done
ln -s "$2" /opt/xnatfs
install -D -m 600 "$3" /etc/xnatfs/login
echo 'PRUNEFS="nfs fuse.sshfs"' >/etc/updatedb.conf
shift 3
exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root does it")
@pytest.mark.parametrize("document", having("root"), ids=name)
def test_what_root_types(document: Path, reader: Session, tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    reader.enter = [
        "unshare", "--mount", "--propagation", "private", "sh", "-euc", MACHINE, "machine",
        str(tmp_path / "machine"), str(BIN.parent), str(reader.home / ".netrc"),
    ]  # fmt: skip
    assert reader.follow(document, {"root"}) == ""


# -- the runner itself can fail


DOCUMENT = """
# A tour

{block}

## By hand (not run by our tests)

```sh
rm -rf "$ARCHIVE"
```
"""


def what_is_wrong_with(block: str, reader: Session, folder: Path) -> str:
    document = folder / "tour.md"
    document.write_text(DOCUMENT.format(block=block))
    assert unaccounted(document.read_text()) == []
    return reader.follow(document, {""})


@pytest.mark.parametrize(
    "block",
    [
        "```console run\n$ echo one; echo two\none\ntwo\n```",
        "```console run\n$ echo one; echo two; echo three\none\n…\n```",
        "```console run\n$ echo is 17 bytes after 12.5 s\nis … bytes after 3 s\n```",
        "```console run\n$ cd /usr\n$ pwd\n/usr\n$ echo \\\n> more\nmore\n```",
        "```console run\n$ false # status 1\n```",
        "```console run\n$ echo $HOME\n~\n```",
        "```sh run\nfor i in 1 2; do\n    echo $i\ndone\n```",
        "```python run\nprint('one')\n```",
        "```text file=~/there\none\n```\n```console run\n$ cat there\none\n```",
        "```console run=background\n$ sh -c 'echo here; exec sleep 9'\nhere\n```\n"
        "```sh run\ntrue\n```",
    ],
)
def test_what_agrees_passes(block: str, reader: Session, tmp_path: Path) -> None:
    assert what_is_wrong_with(block, reader, tmp_path) == ""


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("```console run\n$ echo one; echo two\none\n```", "`echo one; echo two` says:\none\ntwo"),
        ("```console run\n$ true\none\n```", "`true` says:\n"),
        ("```console run\n$ echo 17\n18\n```", "`echo 17` says:\n17"),
        ("```console run\n$ false\n```", "`false` ended with 1"),
        ("```console run\n$ true # status 75\n```", "ended with 0"),
        ("```console run\n$ exit 0\n$ true\n```", "`exit 0` did not come to its end"),
        ("```sh run\nfalse\ntrue\n```", "did not come to its end"),
        ("```python run\nimport nothing.of.the.kind\n```", "ended with 1"),
    ],
)
def test_what_does_not_agree_fails(block: str, told: str, reader: Session, tmp_path: Path) -> None:
    assert told in what_is_wrong_with(block, reader, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```sh\ntrue\n```",
        "```console\n$ true\n```",
        "```text\nxnatfs status\n```",
        "Do\n\n    xnatfs status\n",
        "## By hand (not run by our tests)\n\n## Later\n\n```sh\ntrue\n```",
    ],
)
def test_commands_that_nobody_runs_are_found(text: str) -> None:
    assert len(unaccounted(text)) == 1
