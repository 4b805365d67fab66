"""What rsync runs in place of ssh: passes its bytes to pccpipe, which has the connection. Standard library only, for a
quick start.

python -S -E relay.py SOCKET HOST COMMAND...
"""

import contextlib
import json
import os
import socket
import sys
import threading


def main() -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(sys.argv[1])
        # rsync puts the host's name before the command.
        link.sendall(json.dumps(sys.argv[3:]).encode() + b"\n")
        threading.Thread(target=_send, args=(link,), daemon=True).start()
        # When either side has ended, rsync and pccpipe say why.
        with contextlib.suppress(OSError):
            while data := link.recv(1 << 18):
                view = memoryview(data)
                while view:
                    view = view[os.write(1, view) :]


def _send(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, 1 << 18):
            link.sendall(data)
        link.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
