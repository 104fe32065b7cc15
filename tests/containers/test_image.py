"""docker/: the image is built and used, as far as that goes without a container engine.

buildah builds it from a Debian base made of packages (script/bootstrap-buildah). What runs in it
runs in namespaces of its own, with the image's user, environment and entry point.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.core.driver import Rest
from tests.mount.desk import BIN, SESSION
from xnatfs.demo.server import DemoServer

TOP = Path(__file__).resolve().parents[2]
DOCKER = TOP / "docker"
BASE = Path.home() / ".cache/xnatfs-tests/debian-12.tar"

# What a container engine does for `--device /dev/fuse --cap-add SYS_ADMIN`: $1 is the image's
# folder, $2 its user, the rest the command. Mounts and processes end with the namespaces.
ENGINE = """
root=$1 user=$2; shift 2
mount --make-rprivate / && mount --bind "$root" "$root" && mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3; mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/tty" c 5 0
[ -n "$NO_FUSE" ] || mknod -m 666 "$root/dev/fuse" c 10 229
ln -s /proc/self/fd "$root/dev/fd"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
[ -z "$OWN_NET" ] || ip link set lo up
cd "$root" && pivot_root . . && umount -l .
exec chroot --userspec="$user" / "$@"
"""

pytestmark = pytest.mark.long


def run(*command: str | Path, timeout: float = 100, status: int = 0, **environment: str) -> str:
    """A command that must end with this status; its output, both streams."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=TOP,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == status, f"{command}\n{done.stdout}"
    return done.stdout


class Image:
    """A built image, and a container's files made from it."""

    def __init__(self, folder: Path) -> None:
        storage = folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
        )
        self.environment = {"CONTAINERS_STORAGE_CONF": str(storage)}
        base = folder / "base"
        base.mkdir()
        shutil.copy(BASE, base / "base.tar")
        (base / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        self.buildah("build", "--quiet", "--isolation", "chroot", "-t", "localhost/base", base)
        # The machine's own settings for pip and its certificates: a mirror serves as well.
        self.lent = [
            part
            for path in ("/etc/pip.conf", "/etc/ssl/certs")
            if Path(path).exists()
            for part in ("--volume", f"{path}:{path}:ro")
        ]
        self.log = self.buildah(
            "build", "--isolation", "chroot", "--network", "host",
            "--build-arg", "BASE=localhost/base", *self.lent,
            "-t", "localhost/xnatfs", "-f", DOCKER / "Dockerfile", TOP,
        )  # fmt: skip
        self.container = self.buildah("from", "--pull-never", "localhost/xnatfs").strip()
        self.root = self.buildah("mount", self.container).strip()
        inspected = json.loads(self.buildah("inspect", "--type", "image", "localhost/xnatfs"))
        self.config = inspected["OCIv1"]["config"]

    def buildah(self, *words: str | Path) -> str:
        return run("buildah", *words, timeout=600, **self.environment)

    def remove(self) -> None:
        self.buildah("umount", "--all")
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")

    def run(
        self,
        *words: str,
        fuse: bool = True,
        entry: bool = True,
        net: bool = True,
        status: int = 0,
        **environment: str,
    ) -> str:
        """``docker run … xnatfs WORDS``; with ``entry=False`` as with ``--entrypoint ''``."""
        settings = [*self.config["Env"], "HOME=/home/xnat", "LC_ALL=C.UTF-8"]
        return in_namespaces(
            self.root, self.config["User"],
            "/usr/bin/env", "-i", *settings, *(f"{k}={v}" for k, v in environment.items()),
            *(self.config["Entrypoint"] if entry else []), *words,
            fuse=fuse, net=net, status=status,
        )  # fmt: skip


def in_namespaces(
    root: str, user: str, *words: str, fuse: bool = True, net: bool = True, status: int = 0
) -> str:
    """A command in an image's files; ``net=False`` with a loopback interface of its own."""
    return run(
        "unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if net else ["--net"]),
        "sh", "-euc", ENGINE, "engine", root, user, *words,
        status=status, NO_FUSE="" if fuse else "yes", OWN_NET="" if net else "yes",
    )  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    run(TOP / "script/bootstrap-buildah", BASE, timeout=600)
    built = Image(tmp_path_factory.mktemp("image"))
    yield built
    built.remove()


@pytest.mark.timeout(900)
def test_the_image_is_built_for_a_user_who_is_not_root(image: Image) -> None:
    user, _, group = image.config["User"].partition(":")
    assert int(user) > 0  # a number, so that Kubernetes can check it
    assert int(group) > 0
    assert image.run("id", "-u", entry=False).strip() == user
    assert image.run("--version").startswith("xnatfs ")
    assert image.run(*image.config["Cmd"]).startswith("usage: xnatfs")


def test_the_files_of_docker_are_clean(image: Image) -> None:
    for name in ("Dockerfile", "xnat/Dockerfile"):
        assert run(BIN / "hadolint", DOCKER / name) == ""


def test_the_image_holds_no_caches_and_no_sources(image: Image) -> None:
    left = image.run(
        "sh", "-c", "ls /var/lib/apt/lists /usr/src /root/.cache 2>/dev/null; id -un", entry=False
    )
    assert [line for line in left.splitlines() if line and not line.endswith(":")] == ["xnat"]


def test_ls_needs_no_rights(image: Image, server: DemoServer) -> None:
    names = image.run("ls", "/projects", fuse=False, XNAT_HOST=server.url,
                      XNAT_USER="member", XNAT_PASS="member")  # fmt: skip
    assert "PVT000" in names


def test_the_main_job_in_a_container(image: Image, server: DemoServer) -> None:
    """Mount in the foreground under the entry point, convert, copy back; stopping unmounts."""
    session = "/xnat/projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"
    script = f"""
        set -e
        {shlex.join(image.config["Entrypoint"])} mount --foreground /xnat & main=$!
        until mountpoint -q /xnat; do kill -0 $main; sleep 0.1; done
        dcm2niix -f %s -o /tmp {session}/scans/4/resources/DICOM/files >/dev/null
        mkdir {session}/scans/4/resources/NIFTI
        cp /tmp/4.* {session}/scans/4/resources/NIFTI/files/
        kill $main; wait $main || echo "status $?"
        mountpoint -q /xnat && echo "still mounted"
        md5sum /tmp/4.*; rm /tmp/4.*
    """
    said = image.run("sh", "-c", script, entry=False, XNAT_HOST=server.url,
                     XNAT_USER="admin", XNAT_PASS="admin")  # fmt: skip
    assert "still mounted" not in said
    assert "status" not in said
    there = Rest(server).files("/experiments/XNAT_E00001/scans/4/resources/NIFTI")
    assert sorted(there) == ["4.json", "4.nii"]
    for name, content in there.items():
        assert f"{hashlib.md5(content).hexdigest()}  /tmp/{name}" in said.splitlines()


def test_the_demo_runs_in_the_image(image: Image) -> None:
    assert "dcm2niix" in image.run("demo")


@pytest.mark.timeout(300)
def test_the_apptainer_recipe(image: Image, server: DemoServer) -> None:
    """What the recipe does, done in its base image; apptainer itself is not here."""
    recipe = sections(DOCKER / "xnatfs.def")
    made = image.buildah("from", "--pull-never", "localhost/base").strip()
    for line in recipe["files"].splitlines():
        source, target = line.split()
        image.buildah("copy", made, TOP / source, target + source)
    inside = ("run", "--isolation", "chroot", *image.lent, made, "--", "sh", "-c")
    image.buildah(*inside, recipe["post"])
    image.buildah(*inside, f"{recipe['environment']}\n{recipe['test']}")
    said = image.buildah(*inside, f"{recipe['environment']}\nset -- --help\n{recipe['runscript']}")
    assert "usage: xnatfs" in said
    # As `apptainer exec` runs a job: a user that the image does not know, nothing setuid.
    root = image.buildah("mount", made).strip()
    shutil.copy(TOP / "docs/hpc/convert.sh", f"{root}/tmp/convert.sh")
    job = f"""{recipe["environment"]}
        mkdir /tmp/home
        xnatfs run --cd /{SESSION}/scans/4/resources -- bash /tmp/convert.sh
    """
    said = in_namespaces(
        root, "4242:4242", "/usr/bin/env", "-i", "HOME=/tmp/home", "LC_ALL=C.UTF-8",
        f"XNAT_HOST={server.url}", "XNAT_USER=member", "XNAT_PASS=member",
        "PATH=/usr/bin:/bin", "setpriv", "--no-new-privs", "sh", "-euc", job,
    )  # fmt: skip
    assert "Convert 8 DICOM" in said
    there = Rest(server).files("/experiments/XNAT_E00001/scans/4/resources/NIFTI")
    assert len(there) == 2


def test_compose_brings_up_the_demo(image: Image) -> None:
    """Its services' commands, settings and health check, in one network, as Compose has them."""
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    entry = shlex.join(image.config["Entrypoint"])
    settings = shlex.join(f"{k}={v}" for k, v in services["try"]["environment"].items())
    assert services["try"]["network_mode"] == "service:demo"
    assert services["demo"]["healthcheck"]["test"][0] == "CMD"
    said = image.run("sh", "-euc", f"""
        {entry} {shlex.join(services["demo"]["command"])} >/dev/null & demo=$!
        until {shlex.join(services["demo"]["healthcheck"]["test"][1:])} 2>/dev/null; do
            kill -0 $demo; sleep 0.2
        done
        env {settings} {entry} {shlex.join(services["try"]["command"])} & mount=$!
        until mountpoint -q /xnat; do kill -0 $mount; sleep 0.1; done
        ls /xnat/projects/PVT000/subjects
        kill $mount; wait $mount
        kill $demo; wait $demo || true
    """, entry=False, net=False)  # fmt: skip
    assert "Haofei01" in said


def test_what_compose_builds_is_there() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    for service in services.values():
        if build := service.get("build"):
            context = DOCKER / build["context"]
            assert (context / build.get("dockerfile", "Dockerfile")).is_file()
        if "mount" in service.get("command", []):
            assert service["devices"] == ["/dev/fuse"]
            assert service["cap_add"] == ["SYS_ADMIN"]
            assert service["security_opt"] == ["apparmor=unconfined"]


def sections(recipe: Path) -> dict[str, str]:
    """The ``%name`` sections of a definition file, as they stand."""
    parts = recipe.read_text().split("\n%")[1:]
    return {name.strip(): body for name, _, body in (part.partition("\n") for part in parts)}


def test_without_the_device_it_says_what_to_add(image: Image, server: DemoServer) -> None:
    said = image.run("mount", "/xnat", fuse=False, status=6, XNAT_HOST=server.url,
                     XNAT_USER="member", XNAT_PASS="member")  # fmt: skip
    assert "/dev/fuse" in said
