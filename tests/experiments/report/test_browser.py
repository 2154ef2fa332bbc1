"""The pages in a browser: wide and narrow, light and dark.

Chromium must be installed (Debian: `apt-get install chromium`). Without one this is skipped, and
`make test` says so; what HTML alone shows is in test_report.py.
"""

import json
import shutil
from pathlib import Path

import pytest

import experiments
from experiments import report
from experiments.report import page, paper
from tests.experiments.report import synthetic

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update"),
)
LEADERBOARD = Path(experiments.__file__).parent / "results" / "embedded-cpu" / "leaderboard.json"
WIDTHS, SCHEMES = (1280, 400), ("light", "dark")

# What is wrong with the page, as sentences: texts that leave the box that holds them, cover each
# other, leave the page, or have less than WCAG's contrast.
FAULTS = """() => {
  const faults = [], boxes = [], wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > wide) faults.push("the page scrolls sideways");
  const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.05 + 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255)
    + 0.0722 * channel(b / 255);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const said = node.textContent.trim(), element = node.parentElement;
    if (!said || !element.checkVisibility()) continue;
    const [one, other] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
    const contrast = Math.max(one, other) / Math.min(one, other);
    if (contrast < 4.5) faults.push(`${said}: contrast ${contrast.toFixed(2)}`);
    const range = document.createRange();
    range.selectNodeContents(node);
    const holder = element.closest("td, th, li, p, pre, figcaption, caption, h1, h2, h3");
    const around = holder.getBoundingClientRect();
    const scrolls = element.closest("pre, .scroll") !== null;
    for (const box of range.getClientRects()) {
      const inside = box.left >= around.left - 1 && box.right <= around.right + 1
        && box.top >= around.top - 2 && box.bottom <= around.bottom + 2;
      if (!inside && holder.tagName !== "PRE") faults.push(`${said}: leaves its box`);
      if (box.right > wide + 1 && !scrolls) faults.push(`${said}: leaves the page`);
      boxes.push({said, box});
    }
  }
  const over = (one, other) => Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1
    && Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 4;
  boxes.forEach(({said, box}, index) => {
    for (const other of boxes.slice(index + 1))
      if (over(box, other.box)) faults.push(`${said} covers ${other.said}`);
  });
  if (boxes.length < 100) faults.push(`only ${boxes.length} texts were found`);
  return faults;
}"""

SCROLLED = """() => [...document.querySelectorAll(".scroll")].map(element => {
  const hidden = element.scrollWidth - element.clientWidth;
  element.scrollLeft = 10000;
  return {hidden, moved: element.scrollLeft, focusable: element.tabIndex === 0,
    name: element.getAttribute("aria-label")};
})"""

PICTURES = """() => [...document.images].map(image => ({source: image.currentSrc,
  shown: image.naturalWidth > 0, height: image.getBoundingClientRect().height}))"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = "no Chromium is installed, in which the report's page is looked at"
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        with driver.chromium.launch(executable_path=found, args=list(FLAGS)) as launched:
            yield launched


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages by name: a report's, and a leaderboard's."""
    folder = tmp_path_factory.mktemp("pages")
    commands = ("ltd generate --policy runs/quickstart --prompt 'def read_lines(path):'",)
    told = {"sample": "96 prompts of 4 tasks, 128 new tokens each", "next_commands": commands}
    document = json.loads(LEADERBOARD.read_text())
    path = folder / "leaderboard.html"
    path.write_text(page.leaderboard(document, {0.0: paper.TABLE1[:2], 1.0: paper.TABLE5[:2]}))
    written = report.write(synthetic.numbers(), synthetic.figures(), folder, **told)
    return {"report": written, "leaderboard": path}


@pytest.mark.parametrize("name", ["report", "leaderboard"])
def test_a_page_reads_well_everywhere_and_asks_for_nothing(browser, pages, name):
    sources = {}
    for scheme in SCHEMES:
        for width in WIDTHS:
            shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            requests, errors = [], []
            shown.on("request", lambda request, to=requests: to.append(request.url))
            shown.on("console", lambda message, to=errors: to.append(message.text))
            shown.on("pageerror", lambda error, to=errors: to.append(str(error)))
            shown.goto(pages[name].as_uri())
            asked = [url for url in requests if not url.startswith("data:")]
            assert asked == [pages[name].as_uri()] and errors == []
            assert shown.evaluate(FAULTS) == [], (scheme, width)
            pictures = shown.evaluate(PICTURES)
            assert pictures and all(one["shown"] and one["height"] > 100 for one in pictures)
            sources[scheme] = [one["source"] for one in pictures]
            scrolled = shown.evaluate(SCROLLED)
            assert all(one["focusable"] and one["name"] for one in scrolled)
            assert all(abs(one["moved"] - one["hidden"]) <= 1 for one in scrolled)
            assert any(one["hidden"] > 100 for one in scrolled) == (width == 400)
            shown.close()
    assert not set(sources["light"]) & set(sources["dark"])  # pictures have both looks
