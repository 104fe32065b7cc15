"""The documents: what they name is there, and what is there is named."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from xnatfs import cli
from xnatfs.cli import exits
from xnatfs.options import LOGIN, READING, TABLE, WRITING

TOP = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    TOP / name
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docker/README.md",
        "docs/ARCHITECTURE.md",
        "docs/CONFIGURATION.md",
        "docs/GUIDE.md",
        "docs/hpc/README.md",
        "docs/OFFLINE.md",
        "docs/MOUNTING.md",
        "docs/PROOFS.md",
        "docs/PYTHON.md",
        "docs/RELEASING.md",
        "docs/SECURITY.md",
        "docs/SEMANTICS.md",
        "docs/TROUBLESHOOTING.md",
        "docs/XNAT.md",
    )
]
# What developers read may speak of commands in other ways than to be typed.
FOR_USERS = [path for path in DOCUMENTS if path.name not in ("ARCHITECTURE.md", "XNAT.md")]
each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = cli._Parser(prog=f"xnatfs {verb}", allow_abbrev=False)
    import_module(f"xnatfs.cli.{verb}").add_arguments(parser)
    return parser


# -- commands


def commands(text: str) -> Iterator[str]:
    """Every ``xnatfs …`` of a code block or a code span, up to its end as a command."""
    for line in text.splitlines():
        if line.startswith(("    ", "xnatfs ", "$ ")):
            spans = [line.strip().removeprefix("$ ")]
        else:
            spans = re.findall(r"`([^`]+)`", line)
        for span in spans:
            for part in re.split(r"&&|\|\||[;|&>]| #|\s{2,}", span):
                if part.strip().startswith("xnatfs "):
                    yield part.strip()


def test_commands_are_found() -> None:
    found = set(commands(text_of(TOP / "README.md")))
    assert {"xnatfs mount ~/xnat", "xnatfs umount ~/xnat", "xnatfs status"} <= found
    assert 'xnatfs ls "$scan/resources/NIFTI/files"' in set(
        commands(text_of(TOP / "docs/hpc/README.md"))
    )


@pytest.mark.parametrize("document", FOR_USERS, ids=lambda path: path.name)
def test_every_command_can_be_typed(document: Path) -> None:
    for command in commands(text_of(document)):
        words = cli._mount_form(shlex.split(command.replace(" …", ""))[1:])
        if words and words[0].isupper():  # "xnatfs VERB --help"
            continue
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version"), command
            continue
        assert words[0] in cli._NAMES, f"{command}: no such verb"
        try:
            parser_of(words[0]).parse_args(words[1:])
        except Exception as error:
            if len(words) > 1:  # a bare verb is its name, not a command
                raise AssertionError(f"{command}: {error}") from error


def test_no_verb_reads_its_own_argument_as_an_option() -> None:
    """``ls PATH`` once was ``--path PATH``: settings take whatever has an option's key."""
    for verb in sorted(cli._NAMES):
        keys = {option.key for option in TABLE if verb not in option.verbs}
        names = {action.dest for action in parser_of(verb)._actions}
        assert not names & keys, verb


# -- options, exit codes, messages

GROUP = re.compile(r"^\| (\*[a-z]+\*) \| ([a-z, ]+) \|$", re.MULTILINE)


def test_every_option_is_described_and_no_other() -> None:
    text = text_of(TOP / "docs/CONFIGURATION.md")
    table = text.partition("\n## Options\n")[2].partition("\n## ")[0]
    groups = {name: set(verbs.split(", ")) for name, verbs in GROUP.findall(table)}
    assert groups == {"*login*": LOGIN, "*reading*": READING, "*writing*": WRITING}
    rows = {
        found[1]: (found[2], found[0])
        for found in re.finditer(r"^\| `--([a-z-]+)`(?:, `-(\w)`)? \|.*$", table, re.MULTILINE)
    }
    assert list(rows) == [option.name for option in TABLE]
    for option in TABLE:
        short, row = rows[option.name]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert (short or "") == option.short, option.name
        verbs = groups.get(cells[2]) or set(cells[2].split(", "))
        assert verbs == option.verbs, option.name
        bounded = cells[3] in ("smaller", "larger", "on", "off", "strict")
        assert bounded == (option.stricter is not None), option.name


def test_every_exit_status_is_described() -> None:
    text = text_of(TOP / "docs/CONFIGURATION.md")
    table = text.partition("\n## Exit status\n")[2].partition("\n## ")[0]
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert told == {value for value in vars(exits).values() if isinstance(value, int)}


def texts_of_the_program() -> str:
    """Every text constant, with ``…`` for what is filled in."""
    texts = []
    for path in (TOP / "xnatfs").rglob("*.py"):
        if "demo" in path.relative_to(TOP).parts:
            continue
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
                texts.append("".join(parts))
    return "\n".join(texts).replace("`", "")


def test_the_messages_are_those_of_the_program() -> None:
    program = texts_of_the_program()
    messages = re.findall(
        r"^\| ((?:`[^`|]+`(?:, )?)+)", text_of(TOP / "docs/TROUBLESHOOTING.md"), re.MULTILINE
    )
    assert len(messages) > 40
    for message in messages:
        for piece in re.split(r"…|\(…\)|'", message.replace("`", "")):
            words = piece.strip(" :;(),'\"")
            if len(words) > 7:
                assert words in program, f"{message}: nothing says {words!r}"


# -- links and tests


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@each
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(text_of(path)), f"{document.name}: {target}"


@pytest.mark.parametrize(("document", "least"), [("SEMANTICS.md", 60), ("PROOFS.md", 20)])
def test_every_test_that_is_named_exists(document: str, least: int) -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", text_of(TOP / "docs" / document))
    assert len(named) > least
    for file, name in named:
        tree = ast.parse(text_of(TOP / "tests" / file))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{file}::{name}"
