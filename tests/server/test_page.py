"""The page in a real browser: what a person sees and does, with the mouse, the keyboard alone, and on a narrow screen.

It runs in Debian's `chromium` (or another one on the path) through playwright; `.ci/run` installs both.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from siglip import Embedder, Library
from siglip.server.app import Service
from siglip.server.engine import Limits
from tests.server.conftest import SAMPLES, Running, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")
expect = sync_api.expect
NUM_COLOURS = 150
NUM_ALL = NUM_COLOURS + sum(file.suffix in (".png", ".jpg") for file in SAMPLES.iterdir())
# a slow machine is no error
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def library(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """The samples, and a folder of many small pictures that are older."""
    folder = tmp_path_factory.mktemp("page")
    colours = folder / "it's 100 % colours"
    colours.mkdir()
    for number in range(NUM_COLOURS):
        file = colours / f"colour-{number:03}.png"
        Image.new("RGB", (24 + number % 30, 24), (number, 255 - number, 7 * number % 256)).save(file)
        os.utime(file, (1e9 + 1e6 * number, 1e9 + 1e6 * number))
    with Library.open(folder / "library", model=embedder) as library:
        library.index([SAMPLES, colours])
        yield library


@pytest.fixture(scope="module")
def service(embedder: Embedder, library: Library) -> Iterator[Running]:
    yield from running(Service(embedder, "nano", library=library, limits=Limits(decoders=1)))


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    # Chromium as root needs to be told that it may
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*root, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def opened(browser: "sync_api.Browser", service: Running, **options: object) -> Iterator["sync_api.Page"]:
    """A new page that fails the test if anything is written to the console or asked of another host."""
    ours = f"http://127.0.0.1:{service.port}"
    with browser.new_context(base_url=ours, **options) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((ours, "data:", "blob:")) else wrong.append(f"asked {request.url}")
            ),
        )
        page.goto("/")
        expect(page.locator(".tile").first).to_be_visible()
        yield page
        assert not wrong


@pytest.fixture
def page(browser: "sync_api.Browser", service: Running) -> Iterator["sync_api.Page"]:
    yield from opened(browser, service, viewport={"width": 1200, "height": 800})


def names(page: "sync_api.Page", count: int) -> list[str]:
    """What the first tiles show."""
    found = [page.locator(".tile img").nth(index).get_attribute("alt") for index in range(count)]
    return [str(name) for name in found]


def search(page: "sync_api.Page", words: str) -> None:
    page.get_by_role("searchbox").fill(words)
    with page.expect_response("**/v1/search"):
        page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#view[aria-busy]")).to_have_count(0)


def test_words_are_searched_for_and_the_first_pictures_are_those_of_the_library(
    page: "sync_api.Page", library: Library
) -> None:
    for words in ("a penguin", "sunflower - 0.5:flower"):
        search(page, words)
        assert names(page, 5) == [Path(hit.path).name for hit in library.search(words, top=5)]
    chance = 100 * library.search("sunflower - 0.5:flower", top=1)[0].probability
    told = f"{chance:.0f}" if chance >= 9.95 else f"{chance:.1f}"
    expect(page.locator(".score").first).to_have_text(re.compile(rf"^{told}\s%$"))
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("a penguin")
    expect(page.locator(".tile img").first).to_have_attribute(
        "alt", Path(library.search("a penguin", top=1)[0].path).name
    )


def test_only_tiles_near_the_window_exist_and_the_end_can_be_reached(page: "sync_api.Page") -> None:
    expect(page.get_by_text(f"{NUM_ALL} pictures", exact=True)).to_be_visible()
    page.locator(".open").first.focus()
    seen = 0
    for _ in range(30):
        seen = max(seen, page.locator(".tile").count())
        page.keyboard.press("End")
        if page.locator(".tile:focus-within").get_attribute("aria-posinset") == str(NUM_ALL):
            break
        page.wait_for_function("document.querySelector('.tile:focus-within') !== null")
    assert page.locator(".tile:focus-within img").get_attribute("alt") == "colour-000.png"
    assert seen < NUM_COLOURS


def test_the_viewer_is_worked_with_keys_alone(page: "sync_api.Page", library: Library) -> None:
    page.keyboard.press("/")
    page.keyboard.type("a bicycle")
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    expect(page.locator("#view[aria-busy]")).to_have_count(0)
    expected = [Path(hit.path).name for hit in library.search("a bicycle", top=3)]
    page.locator(".open").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=expected[0])
    expect(dialog).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name=expected[1])).to_be_visible()
    expect(page.locator(".large.there")).to_have_attribute("alt", expected[1])
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    # the focus is where the viewer ended
    expect(page.locator(".tile:focus-within img")).to_have_attribute("alt", expected[1])
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tile:focus-within img")).to_have_attribute("alt", expected[2])
