"""What MkDocs calls while it builds the site."""

from __future__ import annotations

import asyncio
import os
import posixpath
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.api_pages import api_pages
from website.code_pages import error_page, keys_page
from website.commands import command_pages
from website.documents import service_documents
from website.policy import Scripts
from website.repository import ROOT, documents, for_site, is_relative, linked, path_of, place_of, resolved

GENERATED = "reference/"
STYLE = "assets/site.css"
SCRIPTS = Scripts()


def generated() -> dict[str, str]:
    """All that is made of the code, by its path below `docs/`."""
    pages = command_pages() | api_pages(asyncio.run(service_documents()))
    return pages | {"reference/errors.md": error_page(), "reference/keys.md": keys_page()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, content in generated().items():
        files.append(File.generated(config, name, content=content))
    files.append(File.generated(config, STYLE, abs_src_path=str(ROOT / "website/site.css")))
    for path in documents():
        files.append(File.generated(config, place_of(path), abs_src_path=str(ROOT / path)))
    for page in list(files.documentation_pages()):
        if not page.src_uri.startswith(GENERATED):
            for target in linked(page.content_string):
                _bring(target, path_of(page.src_uri), files, config)
    return files


def _bring(target: str, path: str, files: Files, config: MkDocsConfig) -> None:
    """A file outside `docs/` that a document links to. One that is not there is the strict build's to find."""
    if is_relative(target):
        wanted = resolved(target, path)
        if (ROOT / wanted).is_file() and files.get_file_from_path(place_of(wanted)) is None:
            files.append(File.generated(config, place_of(wanted), abs_src_path=str(ROOT / wanted)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    place = page.file.src_uri
    return markdown if place.startswith(GENERATED) else for_site(markdown, place)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    return SCRIPTS.taken_out(output, posixpath.relpath(".", posixpath.dirname(page.url) or "."))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """404.html is shown at any address: its links begin at the root of the server."""
    root = urlsplit(config.site_url or "").path.rstrip("/")
    return SCRIPTS.taken_out(output_content, root) if template_name.endswith(".html") else output_content


def on_post_build(config: MkDocsConfig) -> None:
    for name, code in SCRIPTS.files.items():
        path = Path(config.site_dir, name)
        os.makedirs(path.parent, exist_ok=True)
        path.write_text(code)
