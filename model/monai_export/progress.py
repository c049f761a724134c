"""Progress on standard error: what is being done and since when."""

import contextlib
import sys
import threading
import time

# Seconds after which a step that goes on says so again.
INTERVAL = 20


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text):
    """Says what begins, every while that it goes on, and how long it took."""
    started = time.monotonic()
    ended = threading.Event()
    seconds = lambda: f"{time.monotonic() - started:.0f} s"

    def repeat():
        while not ended.wait(INTERVAL):
            say(f"    … {seconds()}")

    say(f"{text} …")
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    say(f"    done, {seconds()}")
