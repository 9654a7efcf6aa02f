"""A headless Chromium for looking at pages as a person would: open, click, read, photograph.

Responsible for: finding the browser (`$CHROMIUM`, then PATH) or, as root on a Debian system, installing it; running it
without traffic of its own; and the few words of the DevTools protocol that a look at a page takes.
Invariants: every tab records what its page asks for over the network and every complaint (script errors, console
errors, what the Content-Security-Policy stopped); the browser ends with this process, its profile is thrown away.
Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tools.process import Daemon
from tools.progress import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_POLL_SECONDS = 0.05
_MESSAGE_BYTES = 256 << 20
_QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-proxy-server",
    "--password-store=basic",
    "--remote-debugging-port=0",
)


class ChromiumError(RuntimeError):
    """There is no browser, or it does not do what it was told; the message says what to do."""


def ensure() -> Path:
    """Return the browser's path; installs it with apt-get when this is root on Debian. Raises ChromiumError."""
    found = _find()
    if found is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ChromiumError("no Chromium: install it (Debian: apt-get install chromium) or name it in $CHROMIUM")
    say("installing chromium with apt-get (about a minute) ...")
    wait = "--option=DPkg::Lock::Timeout=600"
    install = ["apt-get", wait, "install", "--yes", "--quiet", "--no-install-recommends", "chromium"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        subprocess.run(["apt-get", wait, "update", "--quiet"], env=environment, capture_output=True, check=False)
        done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    found = _find()
    if found is None:
        raise ChromiumError(f"apt-get could not install chromium: {done.stderr.strip()[-500:]}")
    return found


def _find() -> Path | None:
    names = [name for name in (os.environ.get("CHROMIUM"), *NAMES) if name]
    return next((Path(path) for name in names if (path := shutil.which(name)) is not None), None)


class Tab:
    """One page in the browser. Made by `Chromium.tab`."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        """Addresses of everything that was asked for, in order."""
        self.complaints: list[str] = []
        """What the page did wrong, in the browser's words."""
        self._loaded = asyncio.Event()

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        return await self._browser.command(method, self._session, **parameters)

    async def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self._loaded.clear()
        answer = await self.command("Page.navigate", url=url)
        if "errorText" in answer:
            raise ChromiumError(f"{url}: {answer['errorText']}")
        await self.loaded()

    async def loaded(self) -> None:
        """Wait for the load that was begun."""
        await asyncio.wait_for(self._loaded.wait(), _ANSWER_SECONDS)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        answer = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise ChromiumError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def click(self, selector: str) -> None:
        """Click in the middle of the first element that a CSS selector matches, with the mouse."""
        self._loaded.clear()
        place = await self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)}); if (!found) return null;"
            " found.scrollIntoView({block: 'center'}); const box = found.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        if place is None:
            raise ChromiumError(f"nothing on the page matches {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    async def press(self, key: str, code: int) -> None:
        """Press and release a key, as `Tab` (9) or `Enter` (13)."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def screenshot(self, path: Path, most: int = 4000) -> None:
        """Write a PNG of the page from its top, at most so many CSS pixels of its height."""
        size = (await self.command("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        answer = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    def take(self, method: str, parameters: dict[str, Any]) -> None:
        """Note an event of the page."""
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(str(parameters["entry"]))
            case "Network.loadingFailed" if not parameters.get("canceled"):
                self.complaints.append(str(parameters))


class Chromium:
    """A running browser: `async with Chromium.running() as browser: async with browser.tab() as tab:`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Chromium]:
        """Start a browser with an empty profile, and end it."""
        program = ensure()
        with tempfile.TemporaryDirectory(prefix="groundwork-chromium-", ignore_cleanup_errors=True) as folder:
            daemon = Daemon("chromium", Path(folder))
            flags = [*_QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
            daemon.start([str(program), *flags, f"--user-data-dir={folder}/profile", "about:blank"], tethered=True)
            try:
                address = await _address(daemon, Path(folder) / "profile" / "DevToolsActivePort")
                async with (
                    aiohttp.ClientSession() as session,
                    session.ws_connect(address, max_msg_size=_MESSAGE_BYTES) as socket,
                ):
                    browser = cls(socket)
                    listening = asyncio.create_task(browser._listen())
                    try:
                        yield browser
                    finally:
                        listening.cancel()
                        await asyncio.gather(listening, return_exceptions=True)
            finally:
                await asyncio.to_thread(daemon.stop)

    @asynccontextmanager
    async def tab(
        self, *, width: int = 1280, height: int = 900, scale: float = 1, dark: bool = False, scripts: bool = True
    ) -> AsyncIterator[Tab]:
        """Open an empty page of a size in CSS pixels, in light or dark colors, and close it."""
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await tab.command(f"{domain}.enable")
        await tab.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.command("Emulation.setEmulatedMedia", features=[scheme])
        await tab.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        try:
            yield tab
        finally:
            del self._tabs[session]
            await self.command("Target.closeTarget", targetId=target)

    async def command(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command to the browser, or to the page of a session, and return its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        addressed = {"sessionId": session} if session else {}
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **addressed})
        try:
            return await asyncio.wait_for(answer, _ANSWER_SECONDS)
        finally:
            del self._answers[number]

    async def _listen(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" not in told:
                tab = self._tabs.get(told.get("sessionId", ""))
                if tab is not None:
                    tab.take(told["method"], told["params"])
                continue
            answer = self._answers.get(told["id"])
            if answer is None or answer.done():
                continue
            if "error" in told:
                answer.set_exception(ChromiumError(str(told["error"])))
            else:
                answer.set_result(told["result"])


async def _address(daemon: Daemon, file: Path) -> str:
    """Wait until the browser listens and return where."""
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while True:
        try:
            port, path = (await asyncio.to_thread(file.read_text, encoding="utf-8")).split()
        except (OSError, ValueError):
            if daemon.pid is None or asyncio.get_running_loop().time() > deadline:
                raise ChromiumError(f"the browser did not start: {daemon.tail()}") from None
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return f"ws://127.0.0.1:{port}{path}"
