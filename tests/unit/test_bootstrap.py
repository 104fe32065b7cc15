"""script/bootstrap and script/demo: which packages a bare machine gets, and who is told what."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[2]

DEBIAN_12 = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
"""
DEBIAN_13 = """\
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
VERSION_CODENAME=trixie
ID=debian
"""
# Testing has no version; only the code name tells.
DEBIAN_TESTING = """\
PRETTY_NAME="Debian GNU/Linux forky/sid"
NAME="Debian GNU/Linux"
VERSION_CODENAME=forky
ID=debian
"""
UBUNTU_22_04 = """\
PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=jammy
"""
UBUNTU_24_04 = """\
PRETTY_NAME="Ubuntu 24.04.2 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.2 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
"""
MINT_22 = """\
NAME="Linux Mint"
VERSION="22.1 (Xia)"
ID=linuxmint
ID_LIKE="ubuntu debian"
VERSION_ID="22.1"
VERSION_CODENAME=xia
UBUNTU_CODENAME=noble
"""
FEDORA = """\
NAME="Fedora Linux"
VERSION="42 (Container Image)"
ID=fedora
VERSION_ID=42
VERSION_CODENAME=""
"""
ROCKY_9 = """\
NAME="Rocky Linux"
VERSION="9.5 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.5"
"""
OPENSUSE = """\
NAME="openSUSE Leap"
VERSION="15.6"
ID="opensuse-leap"
ID_LIKE="suse opensuse"
VERSION_ID="15.6"
"""

APT = "apt-get install -y --no-install-recommends"
DNF = "dnf install -y"
ZYPPER = "zypper --non-interactive install"

# os-release, the installing command, packages that FUSE and Python need there
DISTRIBUTIONS = [
    pytest.param(DEBIAN_12, APT, {"libfuse2", "fuse3", "python3", "python3-venv"}, id="debian-12"),
    pytest.param(
        DEBIAN_13, APT, {"libfuse2t64", "fuse3", "python3", "python3-venv"}, id="debian-13"
    ),
    pytest.param(DEBIAN_TESTING, APT, {"libfuse2t64", "fuse3"}, id="debian-testing"),
    pytest.param(
        UBUNTU_22_04, APT, {"libfuse2", "fuse3", "python3.11", "python3.11-venv"}, id="ubuntu-22.04"
    ),
    pytest.param(
        UBUNTU_24_04, APT, {"libfuse2t64", "fuse3", "python3", "python3-venv"}, id="ubuntu-24.04"
    ),
    pytest.param(MINT_22, APT, {"libfuse2t64", "fuse3"}, id="mint-22"),
    pytest.param(FEDORA, DNF, {"fuse", "fuse-libs", "python3"}, id="fedora"),
    pytest.param(ROCKY_9, DNF, {"fuse", "fuse-libs", "python3.11"}, id="rocky-9"),
    pytest.param(OPENSUSE, ZYPPER, {"fuse", "libfuse2", "python311"}, id="opensuse"),
]
FUSE_PACKAGES = {"fuse", "fuse3", "fuse-libs", "libfuse2", "libfuse2t64"}


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the clone; `environment` is added to ours."""
    return subprocess.run(
        command,
        cwd=CLONE,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def packages(output: str, install: str) -> set[str]:
    """Return what the one installing command in `output` would install."""
    lines = [line for line in output.splitlines() if install in line]
    assert len(lines) == 1, output
    assert lines[0].startswith("+ ")
    return set(lines[0].split(install)[1].split())


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """Make a folder of package managers, pip and sudo that tell on whoever calls them."""
    folder = tmp_path / "traps"
    folder.mkdir()
    for name in ("apt-get", "dnf", "yum", "zypper", "pip", "sudo"):
        trap = folder / name
        trap.write_text(f'#!/bin/sh\necho {name} >>"{tmp_path}/called"\n')
        trap.chmod(0o755)
    return folder


@pytest.mark.parametrize(("text", "install", "expected"), DISTRIBUTIONS)
def test_names_the_packages_of_each_distribution(
    text: str, install: str, expected: set[str], tmp_path: Path, traps: Path
) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text(text)
    answer = call(
        "script/bootstrap",
        "--dry-run",
        "--extras",
        "demo,test,lint",
        XNATFS_OS_RELEASE=str(os_release),
        PATH=f"{traps}:{os.environ['PATH']}",
    )
    assert answer.returncode == 0, answer.stderr
    named = packages(answer.stdout, install)
    assert expected <= named
    assert named & FUSE_PACKAGES == expected & FUSE_PACKAGES
    assert {"rsync", "curl", "unzip", "fio", "nano", "tar", "ca-certificates"} <= named
    assert "pip install" in answer.stdout
    assert not (tmp_path / "called").exists()


def test_debian_never_gets_the_package_that_removes_fuse3(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    for text in (DEBIAN_12, DEBIAN_13, DEBIAN_TESTING, UBUNTU_22_04, UBUNTU_24_04, MINT_22):
        os_release.write_text(text)
        answer = call("script/bootstrap", "--dry-run", XNATFS_OS_RELEASE=str(os_release))
        assert not re.search(r"\sfuse(\s|$)", answer.stdout + answer.stderr)


def test_a_demo_alone_needs_no_tools_of_the_tests(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text(DEBIAN_12)
    answer = call("script/demo", "--dry-run", XNATFS_OS_RELEASE=str(os_release))
    assert answer.returncode == 0, answer.stderr
    assert not packages(answer.stdout, APT) & {"fio", "rsync", "curl", "unzip", "nano"}
    assert answer.stdout.splitlines()[-1] == "+ exec .venv/bin/xnatfs demo"


def test_an_unknown_distribution_is_told_what_is_missing(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text("ID=plan9\n")
    answer = call("script/bootstrap", "--dry-run", XNATFS_OS_RELEASE=str(os_release))
    assert answer.returncode == 0
    assert 'unknown distribution "plan9"' in answer.stderr
    assert "libfuse" in answer.stderr


def test_os_release_is_read_not_executed(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text(f"ID=debian\nVERSION_ID=$(touch {tmp_path}/owned)\n")
    call("script/bootstrap", "--dry-run", XNATFS_OS_RELEASE=str(os_release))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["script/bootstrap", "--nonsense"],
        ["script/bootstrap", "--extras"],
        ["script/bootstrap", "--extras", "demo; true"],
        ["script/demo", "--nonsense"],
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2(arguments: list[str]) -> None:
    answer = call(*arguments)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1


def test_another_os_release_is_for_looking_only(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text(DEBIAN_12)
    answer = call("script/bootstrap", XNATFS_OS_RELEASE=str(os_release))
    assert answer.returncode == 2
    assert "--dry-run" in answer.stderr


# A few lines that know the questions that script/bootstrap asks, and notes what pip is told.
STAND_IN_PYTHON = """\
case "$1 $2" in
    *find_library*) exit 1 ;;
    *'import sys, ensurepip'*) [ ! -e "$LAB/no-venv" ] ;;
    *version_info[[]:2]*) echo 3.11 ;;
    -c*) ;;
    '-m venv') mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip') [ "$3" = --version ] || echo "$@" >>"$LAB/pip-calls" ;;
    *) exit 1 ;;
esac
"""

BORROWED = "basename cat cksum cp dirname env grep head mkdir rm sed sh tr"


class Lab:
    """A clone on a machine where the user is not root, sudo is absent and libfuse is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = folder / "clone"
        shutil.copytree(CLONE / "script", self.clone / "script")
        shutil.copy(CLONE / "pyproject.toml", self.clone)
        self.tools = folder / "bin"
        self.tools.mkdir()
        for name in [
            "sh",
            "sed",
            "tr",
            "head",
            "grep",
            "dirname",
            "basename",
            "cksum",
            "env",
            "cat",
            "cp",
            "mkdir",
            "rm",
        ]:
            (self.tools / name).symlink_to(str(shutil.which(name)))
        self.tool("id", "echo 1000")
        self.tool("python3", STAND_IN_PYTHON)

    def tool(self, name: str, body: str) -> None:
        (self.tools / name).write_text(f"#!{self.tools}/sh\n{body}")
        (self.tools / name).chmod(0o755)

    def bootstrap(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["script/bootstrap", *arguments],
            cwd=self.clone,
            env={"PATH": str(self.tools), "LAB": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def pip_calls(self) -> list[str]:
        calls = self.folder / "pip-calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_without_root_it_says_what_to_ask_for_and_goes_on(lab: Lab) -> None:
    answer = lab.bootstrap()
    assert answer.returncode == 0, answer.stderr
    asked = "ask an administrator" in answer.stderr
    assert asked or "unknown distribution" in answer.stderr
    assert "still no libfuse" in answer.stderr
    assert len(lab.pip_calls()) == 1


def test_without_venv_and_root_it_stops_and_names_the_lack(lab: Lab) -> None:
    (lab.folder / "no-venv").touch()
    answer = lab.bootstrap()
    assert answer.returncode == 1
    assert "python3 has no venv with pip" in answer.stderr
    assert not (lab.clone / ".venv").exists()


def test_installs_again_only_when_something_changed(lab: Lab) -> None:
    assert lab.bootstrap("--extras", "demo,test").returncode == 0
    assert lab.bootstrap("--extras", "demo").returncode == 0
    assert len(lab.pip_calls()) == 1
    assert lab.bootstrap("--extras", "lint").returncode == 0
    assert lab.pip_calls()[-1].endswith(".[lint,demo,test]")
    with (lab.clone / "pyproject.toml").open("a") as text:
        text.write("# changed\n")
    assert lab.bootstrap("--extras", "demo").returncode == 0
    assert len(lab.pip_calls()) == 3
    assert lab.bootstrap("--extras", "demo,test,lint").returncode == 0
    assert len(lab.pip_calls()) == 3


def test_a_clone_that_was_moved_gets_a_new_venv(lab: Lab) -> None:
    assert lab.bootstrap().returncode == 0
    lab.clone = lab.clone.rename(lab.folder / "moved")
    answer = lab.bootstrap()
    assert answer.returncode == 0, answer.stderr
    assert "made anew" in answer.stderr
    assert len(lab.pip_calls()) == 2


def test_a_clone_behind_a_link_is_the_same_clone(lab: Lab) -> None:
    assert lab.bootstrap().returncode == 0
    place = lab.clone
    lab.clone = lab.folder / "link"
    lab.clone.symlink_to(place)
    answer = lab.bootstrap()
    assert answer.returncode == 0, answer.stderr
    assert "made anew" not in answer.stderr
    assert len(lab.pip_calls()) == 1


def test_a_broken_venv_of_somebody_else_is_left_alone(lab: Lab) -> None:
    (lab.clone / ".venv").mkdir()
    (lab.clone / ".venv/precious").touch()
    answer = lab.bootstrap()
    assert answer.returncode == 1
    assert "remove it first" in answer.stderr
    assert (lab.clone / ".venv/precious").exists()
