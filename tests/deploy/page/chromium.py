"""Chromium without a window, driven as a user would drive it."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_S = 60.0  # before a test gives up; nothing is asserted about time


def why_not() -> str | None:
    """Why no browser can be driven here; None: one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: pip install -e '.[dev-all]'"
    if not _program("chromium", "chromium-browser", "google-chrome", "chrome"):
        return "there is no Chromium: apt install chromium chromium-driver"
    if not _program("chromedriver"):
        return "there is no chromedriver: apt install chromium-driver"
    return None


def _program(*names: str) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One window; files that it saves lie in `downloads`."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver

        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.binary_location = _program(
            "chromium", "chromium-browser", "google-chrome", "chrome"
        )
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(_program("chromedriver"))
        self.driver = webdriver.Chrome(options, service)
        self.driver.set_script_timeout(PATIENCE_S)
        self.size(1280, 800)
        self.command(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads)
        )

    def command(self, name: str, **values: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def size(self, width: int, height: int, mobile: bool = False, dark: bool = False) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Loads a page and waits for its model."""
        self.driver.get("about:blank")
        self.console()
        self.driver.get(address)
        self.wait(lambda: self.run("return document.body.dataset.ready === 'yes'"))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """The first true value of `condition`."""
        end = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < end, f"waited {PATIENCE_S} s; console: {self.console()}"
            time.sleep(0.05)
        return value

    def drop(self, *files: Path) -> None:
        """Drags files onto the page and lets go, as a file manager does."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=200, y=300, data=data)

    def segment(self, *files: Path) -> list[dict[str, Any]]:
        """Drops files; what the page knows of all of its pictures when it is done."""
        before = self.run("return hymunet.app.items.length")
        self.drop(*files)
        done = (
            "const {items} = hymunet.app; return items.length === arguments[0] && "
            "items.every(({state}) => state === 'done' || state === 'failed')"
        )
        self.wait(lambda: self.run(done, before + len(files)))
        return self.items()[before:]

    def items(self) -> list[dict[str, Any]]:
        return self.run(
            "return hymunet.app.items.map(({name, state, error, width, height, rows, dice}) => "
            "({name, state, error, width, height, rows, dice}))"
        )

    def mask(self, index: int = -1) -> np.ndarray:
        """Class indices of one of the pictures."""
        text, width, height = self.run(
            "const item = hymunet.app.items.at(arguments[0]);"
            "return [Array.from(item.mask).join(''), item.width, item.height]",
            index,
        )
        return (np.frombuffer(text.encode(), np.uint8) - ord("0")).reshape(height, width)

    def text(self, id: str) -> str:
        return self.driver.find_element("id", id).text

    def click(self, id: str) -> None:
        self.driver.find_element("id", id).click()

    def keys(self, *keys: str) -> None:
        """Typed with nothing focused."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.run("document.activeElement?.blur()")
        ActionChains(self.driver).send_keys(*keys).perform()

    def saved(self, name: str) -> Path:
        """The file that a download wrote."""
        path = self.downloads / name
        self.wait(lambda: path.is_file() and path.stat().st_size)
        return path

    def forget_downloads(self) -> None:
        for path in self.downloads.iterdir():
            path.unlink()

    def console(self) -> list[str]:
        """What came since the last call, but for debugging."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]

    def call(self, function: str, *arguments: Any) -> Any:
        """A function of the page's own scripts, on JSON; typed arrays come back as lists."""
        plain = json.dumps(arguments)
        return self.run(
            f"const found = ({function})(...JSON.parse(arguments[0]));"
            "return ArrayBuffer.isView(found) ? Array.from(found) : found",
            plain,
        )

    def close(self) -> None:
        self.driver.quit()


def widths() -> Sequence[tuple[str, int, int, bool]]:
    """What pages are looked at in: name, width, height, whether a phone."""
    return (("desktop", 1280, 800, False), ("phone", 390, 844, True))
