"""Random operations on a few files of one folder, each compared with a copy in memory.

    python fsx.py FOLDER [--operations N] [--seed S] [--files N] [--largest BYTES]

Reads, writes, appends, truncates (by descriptor and by path), reads and stores through mappings,
reopenings, O_TRUNC, fsync, renames over another file, removals while open. Every difference ends
it with exit status 1 and the last operations; at the end it prints as JSON what each file holds,
so that whoever started it can compare that with the server. It runs on any file system and knows
nothing of xnatfs: that it is right is seen on a local disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KEPT_OPERATIONS = 40


class Wrong(Exception):
    """The file system holds something else than was written."""


@dataclass
class File:
    """One file of the model; ``name`` "" once it was removed."""

    name: str
    content: bytearray = field(default_factory=bytearray)


@dataclass
class Descriptor:
    number: int
    file: File


class Exerciser:
    """Does one random operation after the other.

    Args:
        folder: where; empty.
        seed: of all choices.
        files: how many names there are.
        largest: no file grows beyond, in bytes.
    """

    def __init__(self, folder: Path, seed: int, files: int, largest: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.names = [f"f{number}.bin" for number in range(files)]
        self.largest = largest
        self.files: dict[str, File] = {}
        self.descriptors: list[Descriptor] = []
        self.done: Counter[str] = Counter()
        self.last: deque[str] = deque(maxlen=KEPT_OPERATIONS)
        # How often each is chosen, relative to the others.
        self.verbs: dict[Callable[[], None], int] = {
            self.write: 24, self.read: 20, self.append: 8, self.truncate: 8,
            self.truncate_by_path: 3, self.map_read: 10, self.map_write: 10, self.map_keep: 3,
            self.fsync: 4, self.open: 9, self.close: 8, self.open_empty: 3, self.rename: 4,
            self.remove: 2, self.look: 6,
        }  # fmt: skip

    def step(self) -> None:
        """One operation."""
        if not self.descriptors:
            verb: Callable[[], None] = self.open
        else:
            (verb,) = self.random.choices(list(self.verbs), list(self.verbs.values()))
        self.done[verb.__name__] += 1
        verb()

    # -- operations

    def note(self, verb: str, *words: object) -> None:
        self.last.append(f"{verb} {' '.join(map(str, words))}")

    def some(self) -> Descriptor:
        return self.random.choice(self.descriptors)

    def place(self, content: bytearray) -> tuple[int, int]:
        """A random piece of what the file may hold: offset and length, at least one byte."""
        offset = self.random.randrange(min(self.largest, len(content) + 20_000))
        length = self.random.choice((1, 100, 4096, 10_000, 70_000))
        return offset, min(self.random.randint(1, length), self.largest - offset)

    def bytes(self, length: int) -> bytes:
        return self.random.randbytes(length)

    def open(self) -> None:
        if len(self.descriptors) >= 6:
            return self.close()
        name = self.random.choice(self.names)
        self.note("open", name)
        number = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        file = self.files.setdefault(name, File(name))
        self.descriptors.append(Descriptor(number, file))
        return None

    def open_empty(self) -> None:
        """What is rewritten from its start: O_TRUNC, some writes, close."""
        name = self.random.choice(self.names)
        pieces = [self.bytes(self.random.randint(1, 30_000)) for _ in range(3)]
        self.note("open_empty", name, *map(len, pieces))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        number = os.open(self.folder / name, flags, 0o644)
        file = self.files.setdefault(name, File(name))
        del file.content[:]
        for piece in pieces:
            os.write(number, piece)
            file.content += piece
        os.close(number)

    def close(self) -> None:
        descriptor = self.some()
        self.note("close", descriptor.file.name, descriptor.number)
        self.descriptors.remove(descriptor)
        os.close(descriptor.number)

    def write(self) -> None:
        descriptor = self.some()
        offset, length = self.place(descriptor.file.content)
        self.note("write", descriptor.file.name, offset, length)
        self.put(descriptor.file.content, offset, piece := self.bytes(length))
        if os.pwrite(descriptor.number, piece, offset) != length:
            raise Wrong(f"{descriptor.file.name}: a short write")

    def append(self) -> None:
        descriptor = self.some()
        content = descriptor.file.content
        length = min(self.random.randint(1, 5000), self.largest - len(content))
        if length <= 0 or not descriptor.file.name:
            return
        self.note("append", descriptor.file.name, length)
        number = os.open(self.folder / descriptor.file.name, os.O_WRONLY | os.O_APPEND)
        os.write(number, piece := self.bytes(length))
        os.close(number)
        content += piece

    def read(self) -> None:
        descriptor = self.some()
        offset, length = self.place(descriptor.file.content)
        self.note("read", descriptor.file.name, offset, length)
        self.same(descriptor.file, offset, length, os.pread(descriptor.number, length, offset))

    def truncate(self) -> None:
        descriptor = self.some()
        length = self.new_length(descriptor.file)
        self.note("truncate", descriptor.file.name, length)
        os.ftruncate(descriptor.number, length)
        self.cut(descriptor.file.content, length)

    def truncate_by_path(self) -> None:
        if not self.files:
            return
        file = self.random.choice(list(self.files.values()))
        length = self.new_length(file)
        self.note("truncate_by_path", file.name, length)
        os.truncate(self.folder / file.name, length)
        self.cut(file.content, length)

    def map_read(self) -> None:
        descriptor = self.some()
        content = descriptor.file.content
        if not content:
            return
        offset, length = self.place(content)
        self.note("map_read", descriptor.file.name, offset, length)
        with mmap.mmap(descriptor.number, len(content), prot=mmap.PROT_READ) as mapping:
            self.same(descriptor.file, offset, length, mapping[offset : offset + length])

    def map_write(self) -> None:
        descriptor = self.some()
        content = descriptor.file.content
        if not content:
            return
        offset = self.random.randrange(len(content))
        length = min(self.random.randint(1, 9000), len(content) - offset)
        self.note("map_write", descriptor.file.name, offset, length)
        with mmap.mmap(descriptor.number, len(content)) as mapping:
            mapping[offset : offset + length] = piece = self.bytes(length)
            if self.random.random() < 0.5:
                mapping.flush()
        self.put(content, offset, piece)

    def map_keep(self) -> None:
        """Stores through a mapping whose descriptor is closed already."""
        if not self.files:
            return
        file = self.random.choice(list(self.files.values()))
        if not file.content:
            return
        self.note("map_keep", file.name)
        number = os.open(self.folder / file.name, os.O_RDWR)
        mapping = mmap.mmap(number, len(file.content))
        os.close(number)
        for _ in range(3):
            offset = self.random.randrange(len(file.content))
            length = min(self.random.randint(1, 5000), len(file.content) - offset)
            mapping[offset : offset + length] = piece = self.bytes(length)
            self.put(file.content, offset, piece)
        mapping.flush()
        mapping.close()

    def fsync(self) -> None:
        descriptor = self.some()
        self.note("fsync", descriptor.file.name)
        os.fsync(descriptor.number)

    def rename(self) -> None:
        if not self.files:
            return
        old = self.random.choice(list(self.files))
        new = self.random.choice(self.names)
        self.note("rename", old, new)
        os.rename(self.folder / old, self.folder / new)
        if old != new:
            if (replaced := self.files.get(new)) is not None:
                replaced.name = ""
            self.files[new] = self.files.pop(old)
            self.files[new].name = new

    def remove(self) -> None:
        if not self.files:
            return
        name = self.random.choice(list(self.files))
        self.note("remove", name)
        os.unlink(self.folder / name)
        self.files.pop(name).name = ""

    def look(self) -> None:
        """Names, sizes and whole content, through a fresh descriptor."""
        # libfuse, as NFS, keeps a removed file that is still open under a hidden name.
        names = os.listdir(self.folder)
        there = sorted(name for name in names if not name.startswith(".fuse_hidden"))
        self.note("look", *there)
        if there != sorted(self.files):
            raise Wrong(f"there are {there}, and should be {sorted(self.files)}")
        for name, file in self.files.items():
            size = os.stat(self.folder / name).st_size
            if size != len(file.content):
                raise Wrong(f"{name} has {size} bytes, and should have {len(file.content)}")
        if self.files:
            file = self.random.choice(list(self.files.values()))
            self.same(file, 0, self.largest, (self.folder / file.name).read_bytes())

    # -- the model

    def new_length(self, file: File) -> int:
        return self.random.choice(
            (0, self.random.randint(0, self.largest), max(0, len(file.content) - 5), 4096)
        )

    @staticmethod
    def put(content: bytearray, offset: int, piece: bytes) -> None:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(piece)] = piece

    @staticmethod
    def cut(content: bytearray, length: int) -> None:
        content.extend(bytes(max(0, length - len(content))))
        del content[length:]

    @staticmethod
    def same(file: File, offset: int, length: int, got: bytes) -> None:
        wanted = bytes(file.content[offset : offset + length])
        if got == wanted:
            return
        at = next(
            (at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b),
            min(len(got), len(wanted)),
        )
        raise Wrong(
            f"{file.name}: {len(got)} bytes for {len(wanted)} at {offset}, "
            f"different from byte {offset + at}: {got[at : at + 8].hex()} for "
            f"{wanted[at : at + 8].hex()}"
        )

    def finish(self) -> None:
        """Close everything; then every file is read once more."""
        while self.descriptors:
            self.close()
        self.look()
        for name, file in self.files.items():
            self.same(file, 0, self.largest, (self.folder / name).read_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--largest", type=int, default=300_000)
    args = parser.parse_args()
    exerciser = Exerciser(args.folder, args.seed, args.files, args.largest)
    try:
        for _ in range(args.operations):
            exerciser.step()
        exerciser.finish()
    except (Wrong, OSError) as problem:
        print(f"seed {args.seed}, operation {exerciser.done.total()}: {problem!r}", file=sys.stderr)
        print("the last operations:", *exerciser.last, sep="\n  ", file=sys.stderr)
        return 1
    held = {name: hashlib.md5(file.content).hexdigest() for name, file in exerciser.files.items()}
    print(json.dumps({"seed": args.seed, "operations": dict(exerciser.done), "files": held}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
