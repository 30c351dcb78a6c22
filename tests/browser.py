"""A headless Chromium for tests: what a page shows, complains about and asks the network for.

It is spoken to over a pipe in the DevTools protocol (one JSON object a message, a zero byte between messages).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")

BECOME = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for wanted, fd in zip((3, 4), high):
    os.dup2(fd, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, with the pipe where it expects it: it reads from descriptor 3 and writes to 4."""


def find_browser() -> str | None:
    """Return the program, where there is one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One tab.

    Attributes:
        complaints: What the pages wrote to the console as an error or a warning, and exceptions nobody caught.
        requests: Addresses that pages asked for.
    """

    def __init__(self, program: str, profile: Path) -> None:
        read_in, self._write = os.pipe()
        self._read, write_out = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions"]
        options += ["--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command = [sys.executable, "-c", BECOME, str(read_in), str(write_out), program, *options, "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(read_in, write_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_in)
        os.close(write_out)
        self._buffer, self._number, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []
        try:
            target = self._send("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                self._send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser: without its pipe it ends by itself, all its processes with it."""
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def show(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file in a window of that size and theme, and wait until it stands."""
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._send("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        self._send("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def wait_for(self, event: str, seconds: float = 30) -> None:
        """Wait until the tab tells of an event."""
        self._until(lambda: any(message["method"] == event for message in self._events), seconds)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        common = {"key": key, "windowsVirtualKeyCode": code}
        self._send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self._send("Input.dispatchKeyEvent", type="keyUp", **common)

    def point(self, x: float, y: float) -> None:
        """Move the pointer."""
        self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def named(self, role: str) -> list[str]:
        """Return the names that a screen reader gives to everything of a role."""
        nodes = self._send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node.get("ignored") and node.get("role", {}).get("value") == role]
        return [node.get("name", {}).get("value", "") for node in shown]

    def photograph(self, path: Path, whole: bool = True) -> None:
        """Save what is shown, or the whole page, as a PNG."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(answer["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        found: list[dict[str, Any]] = []
        self._until(lambda: bool(found), 60, number, found)
        if "error" in found[0]:
            raise AssertionError(f"{method}: {found[0]['error']}")
        result: dict[str, Any] = found[0]["result"]
        return result

    def _until(
        self, ready: Callable[[], bool], seconds: float, number: int = 0, found: list[dict[str, Any]] | None = None
    ) -> None:
        """Read messages until something holds: those with our number go to found, the rest are events."""
        end = time.monotonic() + seconds
        while not ready():
            if b"\0" not in self._buffer:
                if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise TimeoutError(f"the browser said nothing for {seconds} s")
                chunk = os.read(self._read, 1 << 16)
                if not chunk:
                    raise EOFError("the browser ended")
                self._buffer += chunk
                continue
            line, self._buffer = self._buffer.split(b"\0", 1)
            message = json.loads(line)
            if found is not None and message.get("id") == number:
                found.append(message)
            elif "method" in message:
                self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        self._events.append(message)
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif message["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"])[:500])
        elif message["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["entry"])[:500])
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
