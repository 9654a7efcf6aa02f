"""A process that is told to stop before its manager runs."""

import json
import signal
import subprocess
import sys

import pytest

SERVICE = """
import asyncio, sys
from services.runtime import main
from services.runtime.settings import Settings

async def build(service):
    print("building", flush=True)
    await asyncio.sleep(60)

sys.exit(main.run(Settings, build, ["--no-leader-election", "--bind-address=127.0.0.1:0", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_stop_while_it_builds_its_service_ends_with_0(tmp_path, number):
    # As the first process of a container it would get no signal at all that it has no handler for.
    path = tmp_path / "kubeconfig"
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(json.dumps(content))
    command = [sys.executable, "-c", SERVICE, f"--kubeconfig={path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline() == "building\n"
            process.send_signal(number)
            assert process.wait(20) == 0
        finally:
            process.kill()
