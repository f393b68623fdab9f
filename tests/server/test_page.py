"""The page in a real browser: what a person sees and does, with the mouse, the keyboard alone, and on a narrow screen.

It runs in Debian's `chromium` (or another one on the path) through playwright; `.ci/run` installs both.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import time
import warnings
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from siglip import Embedder, Library
from siglip.search.query import parse_query
from siglip.server.app import Service
from siglip.server.engine import Limits
from tests.server.conftest import SAMPLES, Running, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")
expect = sync_api.expect
NUM_COLOURS = 150
NUM_ALL = NUM_COLOURS + sum(file.suffix in (".png", ".jpg") for file in SAMPLES.iterdir())
# a slow machine is no error
expect.set_options(timeout=200_000)


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


def opened(
    browser: "sync_api.Browser",
    service: Running,
    *,
    path: str = "/",
    first: str = ".tile",
    quiet: bool = True,
    **options: object,
) -> Iterator["sync_api.Page"]:
    """A new page that fails the test if anything is written to the console or asked of another host."""
    ours = f"http://127.0.0.1:{service.port}"
    # a third of the time of a processor that draws without a graphics card goes into fading pictures in
    with browser.new_context(base_url=ours, reduced_motion="reduce", **options) as context:
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
        page.goto(path)
        expect(page.locator(first).first).to_be_visible()
        yield page
        assert not (wrong and quiet)


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
    expect(page.locator("dialog.viewer")).to_be_hidden()
    # the focus is where the viewer ended
    expect(page.locator(".tile:focus-within img")).to_have_attribute("alt", expected[1])
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tile:focus-within img")).to_have_attribute("alt", expected[2])


def dropped(page: "sync_api.Page", file: Path) -> None:
    """A file dropped on the page, as a file manager does it."""
    content = base64.b64encode(file.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [content, file.name, "image/png" if file.suffix == ".png" else "text/plain"],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def settled(page: "sync_api.Page") -> None:
    expect(page.locator("#view[aria-busy]")).to_have_count(0)


def test_a_chip_is_turned_round_weighed_and_removed_and_the_words_follow(
    page: "sync_api.Page", library: Library
) -> None:
    search(page, "a penguin + a cat")
    page.get_by_role("button", name="a cat is added: take it away").click()
    box = page.get_by_role("searchbox")
    expect(box).to_have_value("a penguin - 0.5:a cat")
    slider = page.get_by_role("slider", name="Weight of a cat")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(box).to_have_value("a penguin - 0.6:a cat")
    expected = [Path(hit.path).name for hit in library.search("a penguin - 0.6:a cat", top=6)]
    expect(page).to_have_url(re.compile(r"0\.6"))
    settled(page)
    assert names(page, 6) == expected
    page.get_by_role("button", name="Remove a cat").click()
    expect(box).to_have_value("a penguin")
    expect(page.get_by_role("list", name="Parts of the question")).to_be_hidden()


def test_the_page_reads_questions_as_the_library_does(page: "sync_api.Page") -> None:
    questions = [
        "a dog",
        "- a dog",
        "2:a dog - .5:fence +  snow",
        '"a - b" + 0.25:"12:30"',
        "t-shirt C++ black+white",
        "a\tb  c",
    ]
    told = page.evaluate(
        "async (all) => { const {parse, written} = await import('/page/query.js');"
        "return all.map((text) => [parse(text), parse(written(parse(text)))]); }", questions,
    )  # fmt: skip
    for question, (once, again) in zip(questions, told, strict=True):
        expected = [(term.text, term.weight) for term in parse_query(question)]
        assert [(term["text"], term["weight"]) for term in once] == expected
        assert again == once, "what is written back means the same"


def test_a_dropped_picture_is_searched_by_and_what_is_none_is_told(page: "sync_api.Page", library: Library) -> None:
    with page.expect_response("**/v1/search"):
        dropped(page, SAMPLES / "pig.png")
    settled(page)
    assert names(page, 1) == ["pig.png"]
    expect(page.locator(".score").first).to_have_text("1.00")
    expect(page.get_by_role("list", name="Parts of the question")).to_contain_text("1.0")
    dropped(page, SAMPLES / "labels.txt")
    expect(page.get_by_role("alert")).to_contain_text("labels.txt is no picture")


def test_more_like_a_picture_leaves_it_out_and_lies_at_an_address_of_its_own(
    page: "sync_api.Page", library: Library
) -> None:
    search(page, "a penguin")
    first = library.search("a penguin", top=1)[0]
    page.locator(".open").first.click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("dialog.viewer")).to_be_hidden()
    expected = [Path(hit.path).name for hit in library.similar(first.path, top=4)]
    expect(page.locator(".tile img").first).to_have_attribute("alt", expected[0])
    page.goto(page.url)
    expect(page.locator(".tile img").first).to_have_attribute("alt", expected[0])
    assert names(page, 4) == expected


def test_filters_keep_what_is_asked_for_and_none_left_is_said(page: "sync_api.Page") -> None:
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Folder").select_option(label=f"it's 100 % colours ({NUM_COLOURS})")
    expect(page.get_by_text(f"{NUM_COLOURS} pictures", exact=True)).to_be_visible()
    page.get_by_label("From").fill("2005-09-01")
    page.get_by_label("From").blur()
    newer = sum(1e9 + 1e6 * number >= 1125532800 for number in range(NUM_COLOURS))
    expect(page.get_by_text(f"{newer} pictures", exact=True)).to_be_visible()
    page.get_by_label("Kind").select_option(value="JPEG")
    expect(page.get_by_role("heading", name="No picture passes these filters")).to_be_visible()
    page.locator("#view").get_by_role("button", name="Clear filters").click()
    expect(page.get_by_text(f"{NUM_ALL} pictures", exact=True)).to_be_visible()


def test_a_filter_that_is_none_is_said(browser: "sync_api.Browser", service: Running) -> None:
    for page in opened(browser, service, quiet=False):  # the browser itself writes the answer 400 to the console
        page.get_by_text("Filters", exact=True).click()
        page.get_by_role("textbox", name="More").fill("colour = 'red'")
        page.get_by_role("textbox", name="More").press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("no column 'colour'")


def test_chosen_pictures_give_their_paths_a_zip_and_json(page: "sync_api.Page", library: Library) -> None:
    search(page, "a penguin")
    page.locator(".open").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    bar = page.get_by_role("complementary", name="Chosen pictures")
    expect(bar).to_contain_text("2 pictures chosen")
    hits = library.search("a penguin", top=2)
    bar.get_by_role("button", name="Copy paths").click()
    expect(bar).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(hit.path for hit in hits)
    with page.expect_download() as told:
        bar.get_by_role("button", name="Zip").click()
    with zipfile.ZipFile(told.value.path()) as archive:
        assert sorted(archive.namelist()) == sorted(Path(hit.path).name for hit in hits)
    with page.expect_download() as told:
        bar.get_by_role("button", name="JSON").click()
    assert [item["id"] for item in json.loads(Path(told.value.path()).read_text())] == [hit.digest for hit in hits]
    bar.get_by_role("button", name="Clear").click()
    expect(bar).to_be_hidden()


def test_heat_is_drawn_over_the_picture_where_the_words_are_looked_for(page: "sync_api.Page") -> None:
    search(page, "a bicycle")
    page.locator(".open").first.click()
    expect(page.get_by_label("Where in the picture is")).to_have_value("a bicycle")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("canvas.heat")).to_be_visible()
    levels = page.evaluate(
        "() => { const map = document.querySelector('canvas.heat');"
        "const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
        "return [...data].filter((_, at) => at % 4 === 0); }"
    )
    assert max(levels) == 255 and min(levels) < 128, "some places are hotter than others"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_scrolling_sideways_and_axe_finds_nothing_serious(
    browser: "sync_api.Browser", service: Running, scheme: str
) -> None:
    options = {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme}
    states = ["/?query=a+penguin+-+0.5:a+cat&format=PNG", "/?view=duplicates", "/"]
    some = ".tile, .empty, .groups"
    for page in opened(browser, service, path=states[0], first=some, **options):
        for state in states:
            if state != states[0]:
                page.goto(state)
                expect(page.locator(some).first).to_be_visible()
            settled(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, state
            check_with_axe(page, colours_alone=scheme == "dark")
        page.get_by_role("button", name="Keys and query language").click()
        check_with_axe(page, colours_alone=scheme == "dark")
        page.keyboard.press("Escape")
        page.locator("input[type=checkbox]").first.check()
        page.locator(".open").first.press("Enter")
        expect(page.locator("dialog.viewer")).to_be_visible()
        assert page.evaluate("document.querySelector('dialog.viewer').scrollWidth") <= 320
        check_with_axe(page, colours_alone=scheme == "dark")


def test_a_narrow_tile_can_still_be_opened_and_its_tick_be_hit(
    browser: "sync_api.Browser", embedder: Embedder, tmp_path: Path
) -> None:
    for number in range(8):
        Image.new("RGB", (30, 90), (20 * number, 90, 200)).save(tmp_path / f"tower-{number}.png")
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([tmp_path])
        for service in running(Service(embedder, "nano", library=library, limits=Limits(decoders=1))):
            for page in opened(browser, service, viewport={"width": 320, "height": 640}):
                tile = page.locator(".tile").first.bounding_box()
                tick = page.locator(".tick").first.bounding_box()
                drawn = page.locator(".tick svg").first.bounding_box()
                assert tile and tick and drawn and tile["width"] < 48
                assert min(tick["width"], tick["height"]) >= 24
                assert drawn["width"] <= tile["width"] / 2 and drawn["width"] == drawn["height"]
                assert tick["width"] * tick["height"] <= tile["width"] * tile["height"] / 4
                check_with_axe(page)
                page.locator(".tile").first.click(position={"x": tile["width"] / 2, "y": tile["height"] / 2})
                expect(page.locator("dialog.viewer")).to_be_visible()


def test_the_duplicates_lead_to_the_same_as_json(
    browser: "sync_api.Browser", embedder: Embedder, tmp_path: Path
) -> None:
    for name in ("one.png", "two.png"):
        shutil.copy(SAMPLES / "pig.png", tmp_path / name)
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([tmp_path])
        for service in running(Service(embedder, "nano", library=library, limits=Limits(decoders=1))):
            for page in opened(browser, service, path="/?view=duplicates", first=".groups"):
                expect(page.get_by_text("1 picture with copies")).to_be_visible()
                check_with_axe(page)
                page.get_by_role("link", name="JSON").click()
                told = json.loads(page.locator("body").inner_text())
                assert {Path(copy["path"]).name for copy in told["data"][0]["copies"]} == {"one.png", "two.png"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_routes_are_read_and_tried_with_nothing_foreign_and_nothing_serious(
    browser: "sync_api.Browser", service: Running, scheme: str
) -> None:
    options = {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme}
    for page in opened(browser, service, path="/docs", first="details", **options):
        count = sum(map(len, service.ask("/openapi.json")[1]["paths"].values()))
        expect(page.locator("#said")).to_contain_text(f"{count} routes")
        check_with_axe(page, colours_alone=scheme == "dark")
        route = page.locator("details", has=page.get_by_text("/v1/embeddings", exact=True))
        route.locator("summary").click()
        route.get_by_role("button", name="Send").click()
        expect(route.locator("pre")).to_contain_text('"object": "embedding"')
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        check_with_axe(page, colours_alone=scheme == "dark")


@cache
def axe() -> str | None:
    """The source of axe-core, if npm has installed it."""
    npm = shutil.which("npm")
    asked = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False) if npm else None
    source = Path(asked.stdout.strip() if asked else "") / "axe-core" / "axe.min.js"
    return source.read_text() if source.is_file() else None


def check_with_axe(page: "sync_api.Page", *, colours_alone: bool = False) -> None:
    """Nothing serious by the rules of WCAG 2.2 A and AA; passed over, and said, where axe-core is not installed."""
    source = axe()
    if source is None:
        warnings.warn(
            "axe-core is not installed, the page is not checked with it: npm install -g axe-core", stacklevel=2
        )
        return
    if not page.evaluate("'axe' in window"):
        page.evaluate(source)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate(
        """async (rules) => {
            const { violations } = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
            return violations.map(({ id, impact, nodes }) => [impact, id, nodes.slice(0, 3).map(({ html }) => html)]);
        }""",
        ["color-contrast"] if colours_alone else tags,
    )
    assert not [violation for violation in found if violation[0] in ("serious", "critical")]


def test_a_service_without_a_library_says_which_label_a_picture_has(
    browser: "sync_api.Browser", server: Running
) -> None:
    for page in opened(browser, server, first=".empty"):
        expect(page.get_by_role("searchbox")).to_be_hidden()
        with page.expect_response("**/v1/classify"):  # it asks at once with the labels that stand there
            dropped(page, SAMPLES / "pig.png")
        page.get_by_label("Labels, between commas").fill("bicycle, pig")
        with page.expect_response("**/v1/classify") as told:
            page.get_by_role("button", name="Classify").click()
        best = told.value.json()["data"][0]["labels"][0]["label"]
        expect(page.get_by_role("list", name="Labels, the best first").locator("li").first).to_contain_text(best)


def test_an_empty_library_fills_before_the_eyes_and_a_service_that_is_gone_is_told(
    browser: "sync_api.Browser", embedder: Embedder, tmp_path: Path
) -> None:
    with Library.open(tmp_path / "library", model=embedder) as library:
        (tmp_path / "nothing").mkdir()
        library.index([tmp_path / "nothing"])
        for service in running(Service(embedder, "nano", library=library, limits=Limits(decoders=1))):
            for page in opened(browser, service, first=".empty", quiet=False):
                expect(page.get_by_role("heading", name="No pictures yet")).to_be_visible()
                shutil.copy(SAMPLES / "pig.png", tmp_path / "nothing" / "pig.png")
                library.index()
                with library.catalogue.writing():
                    library.catalogue.set_meta("indexing", f"1 5 {time.time():.0f}")
                page.reload()
                expect(page.get_by_text("Indexing: 1 of 5 files")).to_be_visible()
                expect(page.locator(".tile")).to_have_count(1)
                page.context.set_offline(True)
                page.get_by_role("searchbox").fill("a pig")
                page.keyboard.press("Enter")
                expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
                expect(page.get_by_role("button", name="Try again")).to_be_visible()
