import io
import json
import logging

import pytest

from services.runtime import log


@pytest.fixture
def logged():
    """Log as JSON during the test; returns a function that gives all records so far."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # so that configure() does not close those of pytest
    buffer = io.StringIO()
    log.configure("debug", "json", buffer)
    yield lambda: [json.loads(line) for line in buffer.getvalue().splitlines()]
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
