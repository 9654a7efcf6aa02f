"""Background programs of the tools: ended for good or as a crash, whoever else starts them."""

from __future__ import annotations

import threading
import time

from tools.process import Daemon

SLEEP = ["/bin/sleep", "600"]


def test_a_program_that_somebody_starts_again_at_once_is_killed_only_as_it_was(tmp_path):
    daemon = Daemon("sleep", tmp_path)
    daemon.start(SLEEP, tethered=True)
    first, stop = daemon.pid, threading.Event()

    def keep():
        while not stop.is_set():
            daemon.start(SLEEP, tethered=True)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        daemon.kill()
        while daemon.pid is None:
            time.sleep(0.01)
        assert daemon.pid != first
    finally:
        stop.set()
        keeper.join()
        daemon.stop()
    assert daemon.pid is None


def test_a_program_that_does_not_run_is_killed_and_stopped_without_a_word(tmp_path):
    daemon = Daemon("sleep", tmp_path)
    daemon.kill()
    daemon.stop()
    assert daemon.pid is None
