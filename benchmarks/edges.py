"""What a command costs before it does anything: its start, its login, a mount for nothing.

    python benchmarks/edges.py [--runs N]

Every command starts anew, with an empty state folder: nobody is logged in yet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from stage import SESSION, XNATFS, Link, Process, machine

FAR = Link(30, 1000)
# What loading the program brings in: libfuse has no business there.
LOADED = (
    "import sys; sys.argv = ['xnatfs', '--help']; from xnatfs import cli\n"
    "try: cli.main()\n"
    "except SystemExit: pass\n"
    "print('libfuse' in open('/proc/self/maps').read(), file=sys.stderr)"
)


class Site:
    """A server, a link to it, and users who come for the first time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "requests.jsonl"
        self._server = Process("server", folder / "archive", self._log)
        self.near = self._server.said
        self._link = Process("link", self.near, str(FAR.rtt_ms), str(FAR.mbps))
        self.far = self._link.said
        self._number = 0

    def close(self) -> None:
        """End both."""
        self._link.stop()
        self._server.stop()

    def once(self, url: str, *words: str) -> tuple[float, list[str]]:
        """Run ``xnatfs`` as a new user; returns seconds, and what the server was asked."""
        self._number += 1
        home = self._folder / f"home{self._number}"
        (home / "run").mkdir(parents=True, mode=0o700)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "XNAT_HOST": url,
            "XNAT_USER": "admin",
            "XNAT_PASS": "admin",
        }
        mark = len(self._log.read_text().splitlines())
        began = time.perf_counter()
        subprocess.run([XNATFS, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        time.sleep(0.1)
        rows = [json.loads(line) for line in self._log.read_text().splitlines()[mark:]]
        return seconds, [f"{row['verb']} {row['path'].partition('?')[0]}" for row in rows]


def timed(words: Sequence[str]) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def spread(found: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(found):.2f} s ({min(found):.2f}-{max(found):.2f})"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()

    loaded = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        try:
            bare, helped, near, far = [], [], [], []
            listed = ran = asked = ([], [])  # type: ignore[var-annotated]
            for _ in range(args.runs):
                bare.append(timed([sys.executable, "-c", "pass"]))
                helped.append(timed([XNATFS, "--help"]))
                listed = site.once(site.near, "ls", f"/{SESSION}/scans")
                ran = site.once(site.near, "run", "--", "true")
                near.append(ran[0])
                asked = site.once(site.far, "run", "--", "true")
                far.append(asked[0] - FAR.rtt_ms / 1000 * login_trips(asked[1]))
        finally:
            site.close()
    logins = sum(map(is_login, listed[1]))
    others = len(listed[1]) - logins
    head = ["case", "found", "to reach", "beside it"]
    rows = [
        ["xnatfs --help", spread(helped), "0.3 s", f"python -c pass: {spread(bare)}"],
        ["libfuse loaded for it", loaded.stderr.split()[-1], "False", ""],
        ["xnatfs ls of a session's scans", f"{logins} login, {others} requests",
         "1 login, 2 requests", ""],
        ["run -- true, no delay", spread(near), "1 s", f"{len(ran[1])} requests"],
        [f"run -- true, {FAR.name}, without {login_trips(asked[1])} round trips of the login",
         spread(far), "1 s", ""],
    ]  # fmt: skip
    print(f"{machine()}\nmedians of {args.runs} runs (least-most)\n")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0


def login_trips(asked: Sequence[str]) -> int:
    """Round trips of a login: the connection, and its requests."""
    return 1 + sum(map(is_login, asked))


def is_login(request: str) -> bool:
    """Whether a request only asks who we are."""
    return request.endswith(("/auth", "/JSESSION"))


if __name__ == "__main__":
    sys.exit(main())
