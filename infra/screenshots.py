"""Pictures of every page of the dashboard, light, dark and narrow, taken by a real browser.

``python infra/screenshots.py`` shows the store of ``R1_STORE_URL`` or ``R1_HOME`` and writes PNG
files; it fails if a page logs an error to the console or shows an exception. Needs the Debian
packages ``chromium`` and ``chromium-driver``, which it drives over their own HTTP interface.
"""

import argparse
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

from dashboard.contents import PAGES

ROOT = Path(__file__).parents[1]
BROWSER_FLAGS = (
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
SETTLED = """
const app = document.querySelector('[data-testid="stApp"]');
const busy = document.querySelector('[data-testid="stSkeleton"]');
return Boolean(app && app.dataset.testScriptState === 'notRunning' && !busy);
"""
PAGE_HEIGHT = """
const main = document.querySelector('[data-testid="stMain"]');
return Math.max(document.documentElement.scrollHeight, main ? main.scrollHeight : 0);
"""
EXCEPTIONS = "return document.querySelectorAll('[data-testid=\"stException\"]').length;"
START_SECONDS = 240.0
SETTLE_SECONDS = 3.0
"""Charts are drawn after the script has run."""


class Look(NamedTuple):
    """How a page is looked at."""

    name: str
    width: int
    scheme: str


LOOKS = (Look("light", 1280, "light"), Look("dark", 1280, "dark"), Look("phone", 390, "light"))


class Browser:
    """A headless browser, driven over WebDriver."""

    def __init__(self, address: str, profile: str) -> None:
        """Open a session at a running chromedriver."""
        options = {"args": [*BROWSER_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "SEVERE"}}
        self._session = f"{address}/session"
        made = self._post("", {"capabilities": {"alwaysMatch": wanted}})
        self._session += f"/{made['sessionId']}"

    def open(self, url: str, look: Look) -> None:
        """Go to a page and wait until it is drawn."""
        scheme = [{"name": "prefers-color-scheme", "value": look.scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": scheme})
        self._resize(look.width, 900)
        self._post("/url", {"url": url})
        deadline = time.monotonic() + START_SECONDS
        while not self.run(SETTLED):
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} was not drawn within {START_SECONDS:.0f} s")
            time.sleep(0.2)
        time.sleep(SETTLE_SECONDS)
        self._resize(look.width, self.run(PAGE_HEIGHT))
        time.sleep(SETTLE_SECONDS)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        shot = self._devtools("Page.captureScreenshot", {})
        return base64.b64decode(shot["data"])

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


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "infra" / "screenshots")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    complaints = []
    with _dashboard() as dashboard, _browser() as browser:
        for look in LOOKS:
            for page in PAGES:
                browser.open(dashboard + page.path, look)
                (output / f"{page.name}-{look.name}.png").write_bytes(browser.picture())
                complaints += [f"{page.name}, {look.name}: {error}" for error in browser.errors()]
                if browser.run(EXCEPTIONS):
                    complaints.append(f"{page.name}, {look.name}: the page shows an exception")
    if complaints:
        raise SystemExit("\n".join(complaints))


@contextlib.contextmanager
def _dashboard() -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboard" / "app.py")]
    command += ["--server.address", "127.0.0.1", "--server.port", str(port)]
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with _process(command, {**os.environ, "PYTHONPATH": search}):
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _browser() -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None:
        raise SystemExit("There is no chromedriver. Run: apt-get install chromium chromium-driver")
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


if __name__ == "__main__":
    main()
