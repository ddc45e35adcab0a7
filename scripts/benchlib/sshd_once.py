"""An sshd for one connection, for `scripts/bench`. Run by its path, with `python -S`.

sshd_once.py PORT COMMAND...    listens on 127.0.0.1, and runs the command on the first connection, as inetd does

sshd exits 255 after every session that its client has ended, so that counts as success here.
"""

import os
import socket
import sys

GOOD = (0, 255)


def serve(port: int, command: list[str]) -> int:
    """The exit status. Waits for the command, whose costs thereby become ours."""
    with socket.create_server(("127.0.0.1", port)) as server:
        connection = server.accept()[0]
    pid = os.fork()
    if not pid:
        for fd in (0, 1):
            os.dup2(connection.fileno(), fd)
        os.execv(command[0], command)
    connection.close()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0 if status in GOOD else 1


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1]), sys.argv[2:]))
