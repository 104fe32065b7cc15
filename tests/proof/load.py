"""A mixed load of one user, who notes before and after each change what is promised.

    python load.py FOLDER --folders NAME… --mark M --seed S      (what there is, as JSON, on stdin)

Files are made, rewritten, appended to, patched, written beside and renamed over, renamed, cut,
removed and read again, in those folders below FOLDER. Every line on stdout is a JSON object:
``{"begun": {path: md5 or null}}``, then ``{"done": {…}}``, or ``{"failed": …, "errno": n}``;
``{"read": …}``, and ``{"wrong": …}`` when it gave something else than was written. It ends when
the file system is gone, or after so many operations.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# The process of the mount is dead, or was unmounted.
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
MOST_FILES = 25


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Load:
    """One worker.

    Args:
        root: the ``resources`` folder of a session; folders: those to work in.
        mark: first letters of its file names; nobody else touches those.
        seed: of its choices.
        there: path below ``root`` → MD5, of its files that are there.
    """

    def __init__(
        self, root: Path, folders: list[str], mark: str, seed: int, there: dict[str, str]
    ) -> None:
        self.root = root
        self.mark = mark
        self.random = random.Random(seed)
        self.folders = folders
        self.sums = dict(there)
        # Contents that were read or written here; the others are read when they are needed.
        self.contents: dict[str, bytes] = {}
        self.number = len(there)

    def step(self) -> None:
        verbs: list[Any] = [self.make, self.make, self.make_beside]
        if self.sums:
            verbs += [self.rewrite, self.append, self.patch, self.replace, self.rename, self.read,
                      self.read, self.cut, self.remove]  # fmt: skip
        if len(self.sums) > MOST_FILES:
            verbs = [self.remove]
        self.random.choice(verbs)()

    # -- operations

    def make(self) -> None:
        path = self.fresh()
        self.change({path: self.bytes()}, lambda new: self.write(path, new[path]))

    def rewrite(self) -> None:
        path = self.some()
        self.change({path: self.bytes()}, lambda new: self.write(path, new[path]))

    def append(self) -> None:
        path, piece = self.some(), self.random.randbytes(self.random.randint(1, 3000))
        old = self.content(path)

        def work(_new: dict[str, bytes | None]) -> None:
            self.put(path, os.O_WRONLY | os.O_APPEND, piece)

        self.change({path: old + piece}, work)

    def patch(self) -> None:
        path = self.some()
        old = bytearray(self.content(path))
        offset = self.random.randrange(len(old) + 10)
        piece = self.random.randbytes(self.random.randint(1, 2000))
        old.extend(bytes(max(0, offset - len(old))))
        old[offset : offset + len(piece)] = piece

        def work(_new: dict[str, bytes | None]) -> None:
            self.put(path, os.O_RDWR, piece, offset)

        self.change({path: bytes(old)}, work)

    def make_beside(self) -> None:
        self.beside(self.fresh())

    def replace(self) -> None:
        self.beside(self.some())

    def beside(self, path: str) -> None:
        """As rsync: under a temporary name, then over the real one."""
        folder, _, name = path.rpartition("/")
        letters = "".join(self.random.choices("abcdefghijkABCDEFGHIJK0123456789", k=6))
        beside = f"{folder}/.{name}.{letters}"

        def work(new: dict[str, bytes | None]) -> None:
            self.write(beside, new[path], os.O_EXCL, 0o600)
            os.rename(self.root / beside, self.root / path)

        self.change({path: self.bytes()}, work)

    def rename(self) -> None:
        old = self.some()
        folder = old.rpartition("/")[0]
        same = [it for it in self.sums if it.startswith(folder + "/") and it != old]
        again = self.random.random() < 0.3
        new = self.random.choice(same) if same and again else self.fresh(folder)
        content = self.content(old)

        def work(_new: dict[str, bytes | None]) -> None:
            os.rename(self.root / old, self.root / new)

        self.change({old: None, new: content}, work)

    def cut(self) -> None:
        path = self.some()
        old = self.content(path)
        length = self.random.randint(1, len(old) + 100)

        def work(_new: dict[str, bytes | None]) -> None:
            os.truncate(self.root / path, length)

        self.change({path: old[:length].ljust(length, b"\0")}, work)

    def remove(self) -> None:
        path = self.some()
        self.change({path: None}, lambda _new: os.unlink(self.root / path))

    def read(self) -> None:
        path = self.some()
        self.contents.pop(path, None)
        self.content(path)

    # -- how

    def change(self, outcome: dict[str, bytes | None], work: Any) -> None:
        sums = {path: None if it is None else md5(it) for path, it in outcome.items()}
        tell(begun=sums)
        try:
            work(outcome)
        except OSError:
            # What there is now is not known: they are left alone.
            for path in outcome:
                self.sums.pop(path, None)
                self.contents.pop(path, None)
            raise
        tell(done=sums)
        for path, content in outcome.items():
            if content is None:
                self.sums.pop(path, None)
                self.contents.pop(path, None)
            else:
                self.sums[path], self.contents[path] = md5(content), content

    def write(self, path: str, content: bytes | None, more: int = 0, mode: int = 0o644) -> None:
        assert content is not None
        flags = os.O_WRONLY | os.O_CREAT | (more or os.O_TRUNC)
        self.put(path, flags, content, mode=mode)

    def put(
        self, path: str, flags: int, content: bytes, offset: int = 0, mode: int = 0o644
    ) -> None:
        number = os.open(self.root / path, flags, mode)
        try:
            if offset:
                os.lseek(number, offset, os.SEEK_SET)
            step = self.random.choice((1000, 40_000, 1 << 20))
            for at in range(0, len(content), step):
                os.write(number, content[at : at + step])
            if self.random.random() < 0.2:
                os.fsync(number)
        except BaseException:
            with suppress(OSError):
                os.close(number)
            raise
        os.close(number)

    def content(self, path: str) -> bytes:
        if path not in self.contents:
            content = (self.root / path).read_bytes()
            tell(read=path)
            if md5(content) != self.sums[path]:
                tell(wrong=f"{path} reads as {md5(content)} and is {self.sums[path]}")
            self.contents[path] = content
        return self.contents[path]

    def bytes(self) -> bytes:
        most = self.random.choice((100, 5000, 60_000, 400_000))
        return self.random.randbytes(self.random.randint(1, most))

    def some(self) -> str:
        return self.random.choice(sorted(self.sums))

    def fresh(self, folder: str = "") -> str:
        self.number += 1
        folder = folder or f"{self.random.choice(self.folders)}/files"
        return f"{folder}/{self.mark}{self.number:05d}-{self.random.randrange(1 << 32):08x}.bin"


def tell(**words: Any) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())


def is_gone(folder: Path) -> bool:
    """Whether it was unmounted: what lies below the mount point is empty."""
    try:
        folder.lstat()
    except OSError as error:
        return error.errno in (errno.ENOENT, *GONE)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folders", nargs="+", required=True)
    parser.add_argument("--mark", default="w")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=1_000_000)
    args = parser.parse_args()
    load = Load(args.folder, args.folders, args.mark, args.seed, json.load(sys.stdin))
    for _ in range(args.operations):
        try:
            load.step()
        except OSError as error:
            tell(failed=str(error), errno=error.errno)
            if error.errno in GONE or is_gone(args.folder):
                return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
