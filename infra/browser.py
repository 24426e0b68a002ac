"""A real browser on the dashboard: starting both, going to a page, clicking, listening to errors.

Chromium is driven over WebDriver by a few calls of the standard library. Selenium would do the same
with ten packages more, none of which this needs: one browser, one machine, no waiting but our own.
Needs the Debian packages ``chromium`` and ``chromium-driver``.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError

ROOT: Final = Path(__file__).parents[1]
BROWSER_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,900",
)
SETTLED: Final = """
const app = document.querySelector('[data-testid="stApp"]');
const busy = document.querySelector('[data-testid="stSkeleton"]');
return Boolean(app && app.dataset.testScriptState === 'notRunning' && !busy);
"""
PAGE_HEIGHT: Final = """
const main = document.querySelector('[data-testid="stMain"]');
return Math.max(document.documentElement.scrollHeight, main ? main.scrollHeight : 0);
"""
TO_THE_MIDDLE: Final = "arguments[0].scrollIntoView({block: 'center'});"
BOX: Final = "return arguments[0].getBoundingClientRect().toJSON();"
EXCEPTIONS: Final = "return document.querySelectorAll('[data-testid=\"stException\"]').length;"
WINDOW_HEIGHT: Final = 900
START_SECONDS: Final = 240.0
ELEMENT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1
REACTION_SECONDS: Final = 0.3
"""So long the page takes at most to notice a click."""
SETTLE_SECONDS: Final = 3.0
"""Charts are drawn after the script has run."""


class Look(NamedTuple):
    """How a page is looked at."""

    name: str
    width: int
    scheme: str


DESKTOP: Final = Look("light", 1280, "light")


class BrowserError(Exception):
    """The page did not do what was waited for."""


class Browser:
    """A headless browser, driven over WebDriver."""

    def __init__(self, address: str, profile: str) -> None:
        """Open a session at a running chromedriver."""
        options = {"args": [*BROWSER_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "SEVERE"}}
        self._session = f"{address}/session"
        made = self._post("", {"capabilities": {"alwaysMatch": wanted}})
        self._session += f"/{made['sessionId']}"

    def open(self, url: str, look: Look = DESKTOP) -> None:
        """Go to a page and wait until its script has run."""
        scheme = [{"name": "prefers-color-scheme", "value": look.scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": scheme})
        self._resize(look.width, WINDOW_HEIGHT)
        self._post("/url", {"url": url})
        self.settle()

    def settle(self) -> None:
        """Wait until the page's script has run and nothing is about to start it again."""
        time.sleep(REACTION_SECONDS)
        self.wait_for(SETTLED, "was not drawn")

    def wait_for(self, script: str, otherwise: str) -> Any:
        """Wait until a script gives something true.

        Raises:
            BrowserError: It did not within ``START_SECONDS``.
        """
        deadline = time.monotonic() + START_SECONDS
        while not (found := self.run(script)):
            if time.monotonic() > deadline:
                raise BrowserError(f"{self.run('return location.href')} {otherwise}")
            time.sleep(POLL_SECONDS)
        return found

    def whole_page(self, look: Look) -> bytes:
        """The whole page as PNG, after its charts are drawn."""
        time.sleep(SETTLE_SECONDS)
        self._resize(look.width, self.run(PAGE_HEIGHT))
        time.sleep(SETTLE_SECONDS)
        shot = self._devtools("Page.captureScreenshot", {})
        return base64.b64decode(shot["data"])

    def click(self, path: str) -> None:
        """Click the first element of an XPath as a person would, and wait for what comes of it.

        Raises:
            BrowserError: There is none, or it cannot be clicked.
        """
        self._on_element(path, "click", {})
        self.settle()

    def click_at(self, path: str, right: int, down: int) -> None:
        """Click this many pixels from the top left corner of an element: tables are drawings.

        Raises:
            BrowserError: There is no such element.
        """
        found = self._post("/element", {"using": "xpath", "value": path})
        box = self._post("/execute/sync", {"script": TO_THE_MIDDLE + BOX, "args": [found]})
        move = {"type": "pointerMove", "duration": 0, "origin": "viewport",
                "x": round(box["left"]) + right, "y": round(box["top"]) + down}  # fmt: skip
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._post("/actions", {"actions": [{"type": "pointer", "id": "mouse",
                                             "actions": [move, *press]}]})  # fmt: skip
        self.settle()

    def write(self, path: str, text: str) -> None:
        """Type into the first element of an XPath; a line break confirms."""
        self._on_element(path, "value", {"text": text})
        self.settle()

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("return document.body.innerText"))

    def run(self, script: str) -> Any:
        """The value of a script."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def close(self) -> None:
        """End the browser."""
        request = urllib.request.Request(self._session, method="DELETE")
        urllib.request.urlopen(request, timeout=240).close()

    def errors(self) -> list[str]:
        """What the console has complained about since the last call.

        Streamlit looks for its server below the page's own path first; those are no errors.
        """
        entries = self._post("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if "/_stcore/" not in entry["message"]]

    def _on_element(self, path: str, action: str, body: dict[str, Any]) -> None:
        """Do something with an element; a page that is just being drawn is given time."""
        deadline = time.monotonic() + ELEMENT_SECONDS
        while True:
            try:
                found = self._post("/element", {"using": "xpath", "value": path})
                (element,) = found.values()
                # By itself the driver puts it at the edge, below the bar at the top.
                self._post("/execute/sync", {"script": TO_THE_MIDDLE, "args": [found]})
                self._post(f"/element/{element}/{action}", body)
            except HTTPError as error:
                if time.monotonic() > deadline:
                    said = json.load(error)["value"]["message"].splitlines()[0]
                    raise BrowserError(f"cannot {action} {path}: {said}") from error
                time.sleep(POLL_SECONDS)
            else:
                return

    def _resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._session + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=240) as answer:
            return json.load(answer)["value"]


def missing_parts() -> str | None:
    """What is not installed, with the mend; None if a browser can be started."""
    if shutil.which("chromedriver") and any(map(shutil.which, ("chromium", "google-chrome"))):
        return None
    return "there is no chromedriver with its browser: apt-get install chromium chromium-driver"


@contextlib.contextmanager
def running_dashboard(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """A dashboard server on a free port of this machine while the block runs; its address."""
    port = _free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboard" / "app.py")]
    command += ["--server.address", "127.0.0.1", "--server.port", str(port)]
    search = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    with _process(command, {**environment, "PYTHONPATH": search}):
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser while the block runs.

    Raises:
        BrowserError: It is not installed.
    """
    lacking = missing_parts()
    if lacking is not None:
        raise BrowserError(lacking)
    driver = str(shutil.which("chromedriver"))
    port = _free_port()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        _process([driver, f"--port={port}"], dict(os.environ)),
    ):
        _wait_for(f"http://127.0.0.1:{port}/status")
        browser = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
