"""Runs a program on a terminal of its own and types into it: at_a_terminal.py KEYS PROGRAM…

KEYS are typed piece by piece ("|" separates them), each when the program has been silent for a
moment; "^X" is a control character. Ends with the program's status.
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys

# So long without output means that the program waits for a key. Seconds.
SILENCE_S = 0.2

# A program that neither ends nor says anything hangs. Seconds.
HANGS_S = 20


def main(keys: str, words: list[str]) -> int:
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.execvp(words[0], words)
    pieces = [
        re.sub(r"\^([A-Z\[])", lambda hit: chr(ord(hit[1]) & 31), piece)
        for piece in keys.split("|")
        if piece
    ]
    seen = b""
    while True:
        if select.select([terminal], [], [], SILENCE_S if pieces else HANGS_S)[0]:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # the program has ended
                break
        elif pieces and seen:
            os.write(terminal, pieces.pop(0).encode())
        elif not pieces:
            sys.stderr.write(seen.decode(errors="replace"))
            return 1
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.stderr.write(seen.decode(errors="replace"))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
