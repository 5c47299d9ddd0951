"""The page `Playground` as somebody uses it, and what the queue knows of what they asked."""

from __future__ import annotations

import re
from typing import Any

import httpx
from panel_harness import PanelFleet, Screen
from playwright.sync_api import Locator, Page, expect

ANSWER_MS = 120_000
"""For a long answer of a model that shares two cores with other tests."""


class Playground:
    """A conversation of its own, opened in a tab."""

    def __init__(self, screen: Screen, fleet: PanelFleet, model: str = "default") -> None:
        self.screen = screen
        self.fleet = fleet
        self.page: Page = screen.open("playground")
        self.choose(model)

    def choose(self, model: str) -> None:
        """A model that may be there in a moment."""
        chooser = self.page.get_by_label("Model")
        expect(chooser.locator("option", has_text=re.compile(f"^{re.escape(model)}$"))).to_have_count(1)
        chooser.select_option(model)

    def set_up(self, **values: str) -> None:
        """Parameters by name; `true` ticks."""
        dialog = self.open_setup("Parameters")
        for name, value in values.items():
            field = dialog.get_by_label(name, exact=True)
            if value == "true":
                field.check()
            else:
                field.fill(value)
        dialog.get_by_role("button", name="Done").click()

    def open_setup(self, tab: str) -> Locator:
        self.page.get_by_role("button", name=re.compile("^Set up")).click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("tab", name=tab).click()
        return dialog

    def say_by_grammar(self, text: str) -> None:
        """The model can say nothing but this."""
        literal = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        dialog = self.open_setup("Form of the answer")
        dialog.get_by_label("Form", exact=True).select_option("grammar")
        dialog.get_by_label("Grammar").fill(f'root ::= "{literal}"')
        dialog.get_by_role("button", name="Done").click()

    def write_json(self, label: str, text: str) -> None:
        """Into an editor, instead of what is there."""
        editor = self.page.get_by_role("textbox", name=label, exact=True)
        editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def send(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_role("button", name="Send", exact=True).click()
        expect(self.page.locator(".pg-user").last).to_contain_text(text)

    @property
    def answer(self) -> Locator:
        """The last one."""
        return self.page.locator(".pg-answer").last

    @property
    def text(self) -> Locator:
        return self.answer.locator(".md")

    def over(self) -> Locator:
        """The last answer, once it has ended."""
        expect(self.page.get_by_role("button", name="Send", exact=True)).to_be_visible(timeout=ANSWER_MS)
        return self.answer

    def begun(self) -> Locator:
        expect(self.text).to_contain_text(re.compile(r"\w+ \w+"))
        return self.answer

    def request_id(self) -> str:
        found = self.answer.locator("div[title]", has=self.page.get_by_text("Agent", exact=True)).get_attribute("title")
        assert found
        return found

    def known(self) -> dict[str, Any]:
        """What the queue knows of the last answer's request."""
        url = f"{self.fleet.inference_url}/v1/requests/{self.request_id()}"
        return httpx.get(url, trust_env=False, timeout=30).json()

    def said(self) -> str:
        """What the server said, as plain as the page can show it."""
        return self.known()["response"]["choices"][0]["message"]["content"]


def words(text: str) -> list[str]:
    """What Markdown does not change; numbers of lists are drawn by the browser."""
    return re.findall(r"[^\W\d_]+", text)
