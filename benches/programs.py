"""What benchmarks need of programs that they start: a port, to wait for something, an end."""

import os
import signal
import socket
import time

PATIENCE = 120


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(what, check):
    deadline = time.monotonic() + PATIENCE
    while not (found := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE} s in vain until {what}")
        time.sleep(0.02)
    return found


def end(child, how=signal.SIGTERM):
    """Asks it to end, then ends all of its group, before it is waited for and its number is free."""
    if child.returncode is not None:
        return
    child.send_signal(how)
    # Whoever asks may find that it has ended before, and has been waited for by that.
    if child.returncode is not None:
        return
    deadline = time.monotonic() + PATIENCE
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
