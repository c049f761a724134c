"""Headless Chromium from Debian's packages, for tests of the page: what it draws, requests and complains about."""

import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image, ImageChops

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# Where pictures of the page are saved for inspection.
PICTURES = os.environ.get("UI_PICTURES")
FLAGS = (
    # WebGL2 without a GPU.
    "--headless=new", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1400,1050",
)
# Pixels count as different if they differ by more than this, of 255.
DIFFERENT = 12


def missing():
    """What is missing for running a browser; None if nothing is."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium"
    for name, path in (("chromium", CHROMIUM), ("chromium-driver", DRIVER)):
        if not path:
            return f"Debian's package {name}"
    return None


class Browser:
    """A browser, closed at the end of a `with` block."""

    def __init__(self, downloads):
        from selenium import webdriver
        from selenium.common.exceptions import TimeoutException, WebDriverException

        self.failures = (TimeoutException, WebDriverException)
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        # Chromium's sandbox needs features that containers lack, and tests in containers run as root.
        for flag in (*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.complaints, self.urls = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def one(self, css):
        return self.driver.find_element("css selector", css)

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def text(self, css):
        return self.script(f"return document.querySelector({json.dumps(css)}).textContent")

    def script(self, text, *arguments):
        """Runs JavaScript; a software renderer may keep the page busy for longer than the driver waits."""
        return self.patiently(lambda: self.driver.execute_script(text, *arguments))

    def click(self, css):
        """Clicks, wherever the page is scrolled to."""
        self.script("document.querySelector(arguments[0]).click()", css)

    def set(self, css, value):
        """Sets a value as typing or dragging would."""
        self.script(
            "const one = document.querySelector(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('input', {bubbles: true}));"
            "one.dispatchEvent(new Event('change', {bubbles: true}));", css, value)

    def patiently(self, action, seconds=300):
        end = time.monotonic() + seconds
        while True:
            try:
                return action()
            except self.failures as error:
                if "imed out" not in str(error) or time.monotonic() > end:
                    raise

    def until(self, condition, what, seconds=300):
        """Waits until the JavaScript `condition` holds; `what` names it in the failure message."""
        end = time.monotonic() + seconds
        while not self.script(f"return Boolean({condition})"):
            shown = self.text("#error") if self.script("return !document.querySelector('#error').hidden") else ""
            assert time.monotonic() < end, f"{what} did not come; {shown}"
            time.sleep(0.1)

    def settled(self, css="#canvas"):
        """The picture of an element once it no longer changes."""
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", css)
        before = self.picture(css)
        for _ in range(30):
            self.patiently(lambda: self.driver.execute_async_script("requestAnimationFrame(() => arguments[0]())"))
            after = self.picture(css)
            if changed(before, after) == 0:
                return after
            before = after
        raise AssertionError(f"{css} changes all the time")

    def picture(self, css):
        """An element's picture, cut out of the window: a screenshot of it alone would lay the page out again."""
        left, top, right, bottom, scale = self.script(
            "const {left, top, right, bottom} = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [Math.max(left, 0), Math.max(top, 0), Math.min(right, innerWidth), Math.min(bottom, innerHeight),"
            " devicePixelRatio]", css)
        window = Image.open(io.BytesIO(self.patiently(self.driver.get_screenshot_as_png))).convert("RGB")
        return window.crop([round(edge * scale) for edge in (left, top, right, bottom)])

    def keep(self, name):
        """Saves a picture of the window if UI_PICTURES is set."""
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.patiently(lambda: self.driver.save_screenshot(str(Path(PICTURES) / f"{name}.png")))

    def listen(self):
        """Collects the requests and the browser's complaints since the last call."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                self.urls.append(message["params"].get("url") or message["params"]["request"]["url"])
        self.complaints += [entry["message"] for entry in self.driver.get_log("browser")]

    def cdp(self, method, **parameters):
        return self.driver.execute_cdp_cmd(method, parameters)

    def nodes(self):
        """The accessibility tree: role, name and properties of each node that is not ignored."""
        self.cdp("Accessibility.enable")
        tree = self.cdp("Accessibility.getFullAXTree")["nodes"]
        for node in tree:
            if not node["ignored"]:
                yield node["role"]["value"], node.get("name", {}).get("value", ""), node


def changed(before, after):
    """The share of pixels that differ."""
    assert before.size == after.size, (before.size, after.size)
    differing = ImageChops.difference(before, after).convert("L").point(lambda v: 255 if v > DIFFERENT else 0)
    return differing.histogram()[255] / (before.size[0] * before.size[1])


def skip_without():
    what = missing()
    return pytest.mark.skipif(what is not None, reason=f"without {what} there is no browser")


# Contrast of the visible texts, as WCAG 2 defines it: ratio and text of those below `least`.
CONTRAST = """
const least = arguments[0];
const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const color = (text) => { const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a ?? 1]; };
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = color(getComputedStyle(at).backgroundColor);
    if (found[3] === 1) return found;
    if (found[3] > 0) return null;
  }
  return [255, 255, 255, 1];
};
const wrong = [];
let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const field = ["INPUT", "SELECT"].includes(element.tagName) && element.type !== "range";
  if (!(own || field) || !element.checkVisibility() || element.closest(".hidden, .skip, option, svg")) continue;
  const text = color(getComputedStyle(element).color), behind = ground(element);
  if (!behind) { wrong.push(["no plain ground", element.outerHTML.slice(0, 80)]); continue; }
  const [low, high] = [luminance(text), luminance(behind)].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  seen += 1;
  if (ratio < least) wrong.push([ratio, element.textContent.trim().slice(0, 40) || element.id]);
}
return [seen, wrong];
"""
