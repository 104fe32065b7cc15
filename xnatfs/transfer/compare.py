"""A local folder against the archive: by size and MD5, without a download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xnatfs.errors import NotFound
from xnatfs.fs.below import Below
from xnatfs.fs.filesystem import FileSystem
from xnatfs.transfer.get import md5_of
from xnatfs.transfer.tally import Tally
from xnatfs.waiting import Waiter


@dataclass(slots=True)
class Comparison:
    """What was found."""

    same: int = 0
    # Of these, files whose MD5 the server does not have: only the size was compared.
    by_size: int = 0
    # Local paths relative to the folder: not here; here with other content; not in the archive.
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def compare(
    fs: FileSystem,
    folder: Path,
    path: str,
    tally: Tally,
    shown: Callable[[], None],
    waiter: Waiter,
) -> Comparison:
    """Compare what is below a path of the archive with a local folder (or file).

    The folder may have the archive's layout from any level on, or all files side by side.

    Raises: NotFound: nothing is there; DiskFault; what a listing raises.
    """
    if not folder.exists():
        raise NotFound(f"{folder}: no such file or folder")
    files = list(fs.depth.files(path, waiter))
    if not files:
        raise NotFound(f"{path}: no files")
    places = _places(files, folder)
    for place, file in places.items():
        tally.expect(file.row.size or (place.stat().st_size if place.is_file() else 0))
    found = Comparison()
    for place, file in places.items():
        name = str(place.relative_to(folder)) if place != folder else place.name
        if not place.is_file():
            found.missing.append(name)
        elif _same(place, file):
            found.same += 1
            found.by_size += not file.row.digest
            tally.done(before=True)
        else:
            found.different.append(name)
        tally.moved(file.row.size or 0)
        shown()
    if folder.is_dir():
        here = (local for local in sorted(folder.rglob("*")) if local.is_file())
        found.extra = [str(local.relative_to(folder)) for local in here if local not in places]
    return found


def _same(place: Path, file: Below) -> bool:
    if file.row.size is not None and place.stat().st_size != file.row.size:
        return False
    return not file.row.digest or md5_of(place) == file.row.digest


def _places(files: Sequence[Below], folder: Path) -> dict[Path, Below]:
    """Where each file should be: the archive's layout without some of its first folders."""
    if folder.is_file():
        return {folder: files[0]} if len(files) == 1 else {folder / f.place: f for f in files}
    parts = [PurePosixPath(file.place).parts for file in files]
    shared = _shared(parts)
    best: dict[Path, Below] = {}
    most = -1
    for skipped in [*range(shared + 1), None]:
        places = {
            folder.joinpath(*(it[skipped:] if skipped is not None else it[-1:])): file
            for it, file in zip(parts, files, strict=True)
        }
        here = sum(place.is_file() for place in places)
        # Files that would cover each other are no layout.
        if here > most and len(places) == len(files):
            best, most = places, here
    return best


def _shared(parts: Sequence[tuple[str, ...]]) -> int:
    """How many folders all files have in common."""
    depth = 0
    while all(len(it) > depth + 1 and it[depth] == parts[0][depth] for it in parts):
        depth += 1
    return depth
