#!/usr/bin/env bash
# Python up to 3.12: a signal that interrupts `Thread.join` makes a thread that runs count as ended, for good.
#
# Guess before the run: `join` raises what the handler raises, the thread runs on, and `is_alive()` stays true until it ends.
# Seen with Python 3.11.7 and 3.12.1: `is_alive()` is False while the thread still computes, and a second `join` returns at
# once. So a program that catches the first Ctrl-C to wait for its writer goes on, or ends, before the file is whole. The
# clean-up in `Thread._wait_for_tstate_lock` releases the lock where `lock.locked()`, which holds while the thread runs, too
# (it was added for bpo-45274). Python 3.13.0, whose threads are joined in C, answers True.
#
# What to do: wait for an Event that the thread sets at its end, and not by `join`, wherever a handler may raise.
set -euo pipefail
python3 - <<'P'
import signal
import sys
import threading
import time


def interrupt(number, frame):
    raise KeyboardInterrupt


ended = []
thread = threading.Thread(target=lambda: (time.sleep(3), ended.append(True)))
signal.signal(signal.SIGALRM, interrupt)
thread.start()
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    thread.join()
except KeyboardInterrupt:
    pass
alive = thread.is_alive()
thread.join()
print(sys.version.split()[0], "| is_alive:", alive, "| after a second join the thread is done:", bool(ended))
old = sys.version_info < (3, 13)
sys.exit(0 if (alive, bool(ended)) == ((False, False) if old else (True, True)) else 1)
P
