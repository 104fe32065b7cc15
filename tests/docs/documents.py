"""Runs what documents tell their readers to type.

A fenced block says after its language what is done with it::

    ```console run      a transcript: each `$ command` must end with 0 (or as a comment says:
                        `# status 75`) and print what is shown; `…` stands for any text,
                        alone on a line for any lines
    ```sh run           commands; all must end with 0
    ```python run       a program; must end with 0
    ```text file=PATH   the content of a file; written, with mode 0600
    run=background      goes on until the document ends; the next block waits for its output
    run=long            with the long tests only
    run=root, =slurm    by root, on a machine that may be changed; on a Slurm node

All blocks of a document are one session, as of one person reading from top to bottom: one shell,
one home folder. Blocks of commands without such a word are found by ``unaccounted``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What a reader would paste into a terminal.
COMMANDS = {"sh", "bash", "console", "shell"}
NOT_RUN = "not run by our tests"

# How pip reaches its packages from this machine; a reader has that in the environment, too.
PIP = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

# The run that a test belongs to cannot be started by it.
ITSELF = "script/test"

_FENCE = re.compile(r"^( *)```(.*)$")
_HEADING = re.compile(r"^(#+) (.*)$")
_DURATION = re.compile(r"\b\d+(\.\d+)? (ms|s|min)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it is, and under which headings."""

    line: int
    language: str
    words: dict[str, str]
    text: str
    headings: tuple[str, ...]

    @property
    def kind(self) -> str | None:
        """How it is run: "" plainly; None: not at all."""
        return self.words.get("run")

    @property
    def excused(self) -> bool:
        return any(NOT_RUN in heading.lower() for heading in self.headings)


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block of a document."""
    headings: list[tuple[int, str]] = []
    fence: tuple[int, str, str] | None = None
    held: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.match(line)
        if fence is not None:
            if found and found[2] == "" and found[1] == fence[1]:
                language, *rest = fence[2].split() or [""]
                words = dict(word.partition("=")[::2] for word in rest)
                titles = tuple(title for _, title in headings)
                yield Block(fence[0], language, words, "\n".join(held), titles)
                fence = None
            else:
                held.append(line.removeprefix(fence[1]))
        elif found:
            fence, held = (number, found[1], found[2]), []
        elif heading := _HEADING.match(line):
            depth = len(heading[1])
            headings = [h for h in headings if h[0] < depth] + [(depth, heading[2])]


def unaccounted(text: str) -> list[int]:
    """Lines of blocks that a reader would type and nobody runs, indented ones included."""
    found = [
        block.line
        for block in blocks(text)
        if block.kind is None
        and "file" not in block.words
        and not block.excused
        and (block.language in COMMANDS or re.search(r"^(\$ |xnatfs )", block.text, re.MULTILINE))
    ]
    fenced = False
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and line.startswith("    ") and not before.strip():
            found.append(number)
        before = line
    return found


@dataclass(frozen=True)
class Step:
    """One command of a session, and what it must say; None: whatever it likes."""

    line: int
    command: str
    shown: list[str] | None = None
    status: int = 0


def steps(block: Block) -> list[Step]:
    """The commands of a block."""
    if block.language != "console":
        text = "\n".join(line for line in block.text.splitlines() if line.split(" ")[0] != ITSELF)
        if block.language == "python":
            text = f"python3 - <<'END OF THE PROGRAM'\n{text}\nEND OF THE PROGRAM"
        else:
            text = f"set -e\n{text}\nset +e"
        return [Step(block.line, text)]
    found: list[Step] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            status = re.search(r"# status (\d+)$", line)
            found.append(Step(number, line[2:], [], int(status[1]) if status else 0))
            continue
        last = found[-1]
        assert last.shown is not None
        if line.startswith("> ") or last.command.endswith("\\"):
            found[-1] = Step(
                last.line, f"{last.command}\n{line.removeprefix('> ')}", last.shown, last.status
            )
        else:
            last.shown.append(line)
    return found


@dataclass
class Session:
    """A reader at a machine.

    ``names`` are what documents call things, and what they are called here: the server's address.
    ``enter`` are the words that bring a command to the machine.
    """

    home: Path
    variables: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)
    enter: Sequence[str] = ()
    timeout: float = 100

    def follow(self, document: Path, kinds: set[str]) -> str:
        """Do what a document says. Returns what went wrong, "" if nothing did."""
        everything: list[Step] = []
        script = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT", "cd", _AFTER]
        for block in blocks(document.read_text(encoding="utf-8")):
            if path := block.words.get("file"):
                script.append(_write(path, self._here(block.text)))
            if block.kind not in kinds and block.kind != "background":
                continue
            for step in steps(block):
                command = self._here(step.command)
                if block.kind == "background":
                    script.append(_background(command, [self._here(s) for s in step.shown or []]))
                else:
                    script.append(f"{command}\n__after {len(everything)} {step.status}")
                    everything.append(step)
        variables = (f"{name}={value}" for name, value in self.variables.items())
        # What bash starts ends with it: timeout(1) asks it to end before it kills.
        done = subprocess.run(
            [*self.enter, "env", "-i", *variables,
             "timeout", "-k", "5", str(self.timeout), "bash", "-c", "\n".join(script)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        return self._judge(everything, done.stdout)

    def _judge(self, everything: list[Step], output: str) -> str:
        parts = re.split(r"^@@ (\d+) (\d+) (\d+)\n", output, flags=re.MULTILINE)
        said, rest = parts[0], parts[1:]
        for number, step in enumerate(everything):
            if not rest:
                return f"line {step.line}: `{step.command}` did not come to its end:\n{said}"
            got, status, wanted = map(int, rest[:3])
            assert got == number
            if status != wanted:
                return f"line {step.line}: `{step.command}` ended with {status}:\n{said}"
            if step.shown is not None and not agrees(step.shown, self._there(said).splitlines()):
                return f"line {step.line}: `{step.command}` says:\n{self._there(said)}"
            said, rest = rest[3], rest[4:] if len(rest) > 4 else []
        return ""

    def _here(self, text: str) -> str:
        for name, real in self.names.items():
            text = text.replace(name, real)
        return text

    def _there(self, text: str) -> str:
        for name, real in self.names.items():
            text = text.replace(real, name)
        return text.replace(str(self.home), "~")


# A line of our own after each command; the first wrong status ends the session.
_AFTER = """
__after() {
    local status=$?
    set +e
    printf '@@ %d %d %d\\n' "$1" "$status" "$2"
    [ "$status" -eq "$2" ] || exit "$status"
}
"""


def _write(path: str, text: str) -> str:
    place = path.replace("~", "$HOME", 1)
    return (
        f'mkdir -p "$(dirname "{place}")" && (umask 077; cat >"{place}") '
        f"<<'END OF THE FILE'\n{text}\nEND OF THE FILE"
    )


def _background(command: str, shown: list[str]) -> str:
    """Start one program, and wait until it has said each line that is shown."""
    wanted = " && ".join(
        f"grep -qF -- {shlex.quote(max(re.split('…|~', line), key=len))} $__said" for line in shown
    )
    return (
        f"__said=$(mktemp); exec {command} >$__said 2>&1 &\n"
        f"until {wanted}; do kill -0 $! || {{ cat $__said; exit 99; }}; sleep 0.1; done"
    )


def agrees(shown: list[str], said: list[str]) -> bool:
    """Whether a document shows what was said."""
    pattern = "".join(
        "(?:.*\n)*" if line.strip() == "…" else f"{_pattern(line)}\n" for line in shown
    )
    text = "".join(f"{_DURATION.sub('N s', line.rstrip())}\n" for line in said)
    return re.fullmatch(pattern, text) is not None


def _pattern(line: str) -> str:
    line = _DURATION.sub("N s", line.rstrip())
    return ".*".join(re.escape(part) for part in line.split("…"))


Follow = Callable[[Path, set[str]], str]
