"""The site: built with warnings as errors, complete, without anything from elsewhere, and opened page by page in a browser."""

import contextlib
import functools
import html.parser
import http.server
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from test_package import PUBLIC, public_names

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "mkdocs.yml"
LIMIT = 600  # seconds, of a build: the promise of the documentation
NEEDED = ("material", "mkdocstrings_handlers.python", "latex2mathml")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the site, built as a reader builds it."""
    if not SETTINGS.exists():
        pytest.skip("the documentation is not beside these tests")
    for module in NEEDED:
        try:
            importlib.import_module(module)
        except ImportError:
            pytest.skip(f"the site needs {module}: pip install 'normfast[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(SETTINGS), "--site-dir", str(folder)]
    path = os.pathsep.join([str(ROOT)] * (ROOT / "normfast").is_dir() + os.environ.get("PYTHONPATH", "").split(os.pathsep))
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert not re.search("^WARNING", done.stderr, re.MULTILINE), done.stderr
    return folder


class Page(html.parser.HTMLParser):
    """What a page links to, what it loads, and the places in it to which one can link."""

    def __init__(self, file):
        super().__init__()
        self.links, self.loaded, self.places, self.without_words = [], [], set(), []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href") is not None:
            self.links.append(attributes["href"])
        if tag in ("img", "script", "source", "iframe") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        if tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(attributes["href"])
        if tag == "img" and not attributes.get("alt"):
            self.without_words.append(attributes.get("src"))


@pytest.fixture(scope="session")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


def broken(file, page, site, pages):
    """The links of a page that lead nowhere."""
    for link in [*page.links, *page.loaded]:
        target, place = urldefrag(unquote(link))
        if re.match(r"\w+:", target):
            continue
        found = site / target.lstrip("/") if target.startswith("/") else (file.parent / target).resolve() if target else file
        if not found.is_file() or (place and found in pages and place not in pages[found].places and place != "__codelineno"):
            yield link


def test_every_link_leads_somewhere(site, pages):
    assert len(pages) > 40
    assert {str(file.relative_to(site)): bad for file, page in pages.items() if (bad := list(broken(file, page, site, pages)))} == {}


def test_a_broken_link_is_found(tmp_path):
    file = tmp_path / "made.html"
    file.write_text('<a id="here"></a><a href="#here"></a><a href="#there"></a><a href="gone.html"></a><img src="gone.png" alt="a">')
    page = Page(file)
    assert list(broken(file, page, tmp_path, {file: page})) == ["#there", "gone.html", "gone.png"]


def test_nothing_comes_from_elsewhere(site, pages):
    """Neither scripts nor fonts, styles or pictures: the site is read without a network, and tells nobody who reads it."""
    for file, page in pages.items():
        assert [source for source in page.loaded if re.match(r"(\w+:)?//", source)] == [], file
        assert page.without_words == [], f"{file}: pictures without a description"
    for file in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", file.read_text(encoding="utf-8")), file


def test_the_reference_has_every_public_name(site):
    """mkdocstrings writes what it has documented to objects.inv, behind four lines of comment."""
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documented = {line.split(" ", 1)[0] for line in inventory.splitlines()}
    for name in ("", *PUBLIC):
        try:
            module = importlib.import_module(f"normfast.{name}".rstrip("."))
        except ModuleNotFoundError:
            continue  # the list of another module: test_package.py says which library is missing
        inner = {f"normfast.{inner}" for inner in PUBLIC}
        missing = {full for full, _ in public_names(module)} - documented - inner
        assert {full for full in missing if f"{full}.{full.rpartition('.')[2]}" not in documented} == set()  # a module of its own name


def test_every_page_has_a_title_of_its_own(site, pages):
    titles = {}
    for file in pages.keys() - {site / "404.html"}:
        (title,) = re.findall(r"<title>(.*?)</title>", file.read_text(encoding="utf-8"), re.DOTALL)
        titles.setdefault(title.strip(), []).append(file.relative_to(site))
    assert {title: files for title, files in titles.items() if len(files) > 1} == {}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments): ...


@contextlib.contextmanager
def served(folder):
    """The address at which a server of this machine shows a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """A browser that shows its pages to nobody."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives a browser, is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"there is no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=120_000)
        yield running
        running.close()


WIDTHS = """() => new Promise(tell => {
    const start = Date.now()
    const look = () => {
        const widths = [document.documentElement.scrollWidth, window.innerWidth]
        if (widths[0] <= widths[1] || Date.now() > start + 5000) tell(widths)
        else requestAnimationFrame(look)
    }
    look()
})"""  # of the content and of the window, once one fits into the other: a script lays wide tables into frames that scroll, after the load


class Watched:
    """A page of the browser, and what goes wrong while it is used."""

    def __init__(self, page, address):
        self.page, self.address, self.wrong = page, address, []
        page.on("console", lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("response", lambda answer: self.wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else self.wrong.append(request.url))

    def complaints(self, file):
        """Errors, foreign requests, pictures and formulas that do not show, and a page wider than the window, a phone's and a screen's.

        A load, which takes longer than all the rest, serves both: every second page is loaded as a phone does it.
        """
        self.wrong = []
        self.page.goto(self.address + file, wait_until="load", timeout=LIMIT * 1000)
        self.page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        self.page.wait_for_function("[...document.images].every(image => image.complete)", timeout=LIMIT * 1000)
        pictures = "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
        formulas = (
            "[...document.querySelectorAll('math')].filter(one => one.checkVisibility() && !one.getBoundingClientRect().width).length"
        )
        loaded = self.page.viewport_size["width"]
        for width in sorted((390, 1280), key=lambda width: width != loaded):  # the next page is loaded at the other width
            self.page.set_viewport_size({"width": width, "height": 844})
            content, window = self.page.evaluate(WIDTHS)
            self.wrong += [f"{content} wide in a window of {window}"] * (content > window)
            self.wrong += [f"does not show: {source}" for source in self.page.evaluate(pictures)]
            self.wrong += [f"{number} empty formulas" for number in [self.page.evaluate(formulas)] if number]
        return self.wrong


def test_every_page_in_a_browser(browser, address, site, pages):
    page = browser.new_page()
    empty = json.loads((site / "search" / "search_index.json").read_text()) | {"docs": []}  # a third of the time: each page reads all of it
    page.route("**/search_index.json", lambda route: route.fulfill(json=empty))
    watched = Watched(page, address)
    found = {file.relative_to(site): watched.complaints(file.relative_to(site).as_posix()) for file in sorted(pages)}
    page.close()
    assert {file: wrong for file, wrong in found.items() if wrong} == {}


def test_the_browser_sees_what_is_wrong(browser, tmp_path):
    bad = '<img src="gone.png"><script>nothing()</script><math></math><div style="width: 3000px">wide</div>'
    (tmp_path / "bad.html").write_text(f"<!doctype html><title>bad</title>{bad}")
    with served(tmp_path) as address:
        page = browser.new_page()
        wrong = " ".join(Watched(page, address).complaints("bad.html"))
        page.close()
    for part in ("nothing is not defined", "404", "does not show", "empty formulas", "3008 wide in a window of 390", "of 1280"):
        assert part in wrong, wrong


@pytest.mark.parametrize(("width", "served"), [(1280, True), (390, True), (1280, False)], ids=["screen", "phone", "opened as a file"])
def test_the_search_finds_pages(browser, address, site, width, served):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(address + "index.html" if served else (site / "index.html").as_uri(), timeout=LIMIT * 1000)
    if width == 390:
        page.locator("label[for=__search].md-header__button").click()
    for words, expected in {"rms_norm_backward": "reference/operations", "Welford": "numerics", "SIGKILL": "larger-than-memory"}.items():
        page.locator(".md-search__input").fill("")
        page.locator(".md-search__input").press_sequentially(words)  # the keys, for which the search waits
        page.locator(f".md-search-result__link[href*='{expected}']").first.wait_for(timeout=LIMIT * 1000)
    page.locator(".md-search-result__link[href*='larger-than-memory']").first.click()
    page.wait_for_url("**/*larger-than-memory*", timeout=LIMIT * 1000)
    assert "SIGKILL" in page.locator("article").inner_text()
    page.close()
