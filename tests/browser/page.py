"""One page in the browser, with short names for what the tests do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Roles that have to have a name.
NAMED = {"button", "link", "textbox", "searchbox", "combobox", "spinbutton", "slider", "image", "radio",
         "radiogroup", "region", "application", "article"}  # fmt: skip


class Page:
    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get_log("browser")  # what earlier pages said
        driver.get(address)

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
        )

    def type(self, selector: str, value: object) -> None:
        """Put a value into a box, as a person's typing would."""
        self.run(
            "const box = document.querySelector(arguments[0]); box.value = arguments[1];"
            "for (const kind of ['input', 'change']) box.dispatchEvent(new Event(kind, {bubbles: true}))",
            selector,
            str(value),
        )

    def press(self, selector: str, key: str) -> None:
        self.one(selector).send_keys(key)

    def wait(self, script: str, seconds: float = 10) -> Any:
        """What a script returns, as soon as that is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: self.run(script))

    def unnamed(self) -> list[str]:
        """What a screen reader would meet and could not name, by its role."""
        self.driver.execute_cdp_cmd("Accessibility.enable", {})
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = [n["role"]["value"] for n in nodes if not (n["ignored"] or n.get("name", {}).get("value"))]
        return [role for role in roles if role in NAMED]

    @contextmanager
    def seen(self, width: int = 1280, height: int = 900, **features: str) -> Iterator[None]:
        """In a window of another size, or where the system has a wish: `prefers_color_scheme="dark"`."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def complaints(self) -> list[str]:
        """What the browser says in its console."""
        said = (entry["message"] for entry in self.driver.get_log("browser"))
        return [
            text for text in said if "favicon" not in text and "readback" not in text
        ]  # tests read pixels
