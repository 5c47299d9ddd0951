"""The site: it builds without a warning, has every command, route, error and key, and needs nobody else's server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lacking import lacks
from playwright.sync_api import sync_playwright

from paddler import errors
from website.commands import commands, flag
from website.repository import documents, linked

ROOT = Path(__file__).resolve().parents[2]
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"

pytestmark = pytest.mark.xdist_group("site")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    sources += [Path("project", name) for name in documents()]
    pages = [
        path.with_name("index.html") if path.name == "README.md" else path.with_suffix(".html") for path in sources
    ]
    assert [str(page) for page in pages if not (site / page).is_file()] == []


def test_every_command_flag_error_and_route_is_told(site: Path) -> None:
    for found in commands():
        page = (site / f"reference/commands/{found.path[0]}.html").read_text()
        assert found.about, f"`{found.words}` has no help"
        for option in found.options:
            assert option.help, f"{flag(option)} of `{found.words}` has no help"
            assert f"<code>{flag(option)}</code>" in page, found.words
    told = (site / "reference/errors.html").read_text()
    assert [code for code in errors.leaves() if f"<code>{code}</code>" not in told] == []
    for name in ("inference", "openai", "management", "panel"):
        document = json.loads((site / f"reference/http/{name}.json").read_text())
        page = (site / f"reference/http/{name}.html").read_text()
        assert [path for path in document["paths"] if f"<code>{path}</code>" not in page] == []
    keys = (site / "reference/keys.html").read_text()
    assert "paddler:{&lt;pool&gt;}:lane:&lt;agent&gt;" in keys


def test_pages_load_nothing_from_elsewhere_and_have_no_scripts_or_styles_of_their_own(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text()
        tags = re.findall(r"<(?:link|script|img|iframe|source)\b[^>]*", text)
        assert [tag for tag in tags if re.search(r"""(?:src|href)=["']?(?:\w+:)?//""", tag)] == [], path
        assert re.findall(r"<script(?![^>]*(?:src=|application/json))[^>]*>|<style\b|\sstyle=\"", text) == [], path


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """The real configuration over a page with three faults."""
    docs = tmp_path / "docs"
    docs.mkdir()
    page = "# A page\n\n[no page](gone.md), [no place](#gone), [no file](../docker/gone.yaml)\n"
    (docs / "index.md").write_text(page)
    nav = 'nav: [index.md]\nnot_in_nav: "*"\n'
    config = tmp_path / "mkdocs.yml"
    hook = ROOT / "website/hooks.py"
    config.write_text(f"INHERIT: {ROOT}/mkdocs.yml\ndocs_dir: {docs}\nhooks: [{hook}]\nwatch: []\n{nav}")
    built = build(config, tmp_path / "site")
    assert built.returncode == 1
    said = [line for line in built.stderr.splitlines() if "index.md'" in line and "WARNING" in line]
    for fault in ("gone.md", "#gone", "docker/gone.yaml"):
        assert any(fault in line for line in said), built.stderr


def external_links() -> Iterator[tuple[str, str]]:
    for path in (*documents(), *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))):
        for target in linked((ROOT / path).read_text()):
            if urlsplit(target).scheme:
                yield path, target


def test_links_to_elsewhere_are_addresses() -> None:
    """Whether somebody answers there is not asked: tests have no network."""
    wrong: list[tuple[str, str]] = []
    for path, target in external_links():
        parts = urlsplit(target)
        has_host = re.fullmatch(r"(?:[a-z0-9-]+\.)+[a-z]{2,}", parts.netloc) is not None
        if parts.scheme != "https" or not has_host or re.search(r"[\s<>\"`]|[.,;]$", target):
            wrong.append((path, target))
    assert wrong == []


class Strict(SimpleHTTPRequestHandler):
    """Serves the site under the strictest policy with which it is to work."""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Strict, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_browser_is_content_under_a_strict_policy_and_finds_words(address: str) -> None:
    binary = shutil.which("chromium")
    if binary is None:
        lacks("chromium is not installed: apt-get install chromium")
    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for name in ("reference/commands/agent.html", "routing.html", "404.html"):
            page.goto(f"{address}/{name}")
        page.goto(f"{address}/routing.html")
        page.locator("input[name=query]").click()
        page.locator("input[name=query]").press_sequentially("hang-timeout")
        first = page.locator(".md-search-result__link").first
        first.wait_for()
        assert "agent.html" in (first.get_attribute("href") or "")
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
