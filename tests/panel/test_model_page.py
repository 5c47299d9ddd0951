"""The page `Model`: another model and its roll-out, a template tried and set, two who change one state, and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playwright.sync_api import Locator, Page, expect
from tiny_gguf import write_model

from paddler.desired.parameters import describe_parameters
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)

STATE = "/api/v1/balancer_desired_state"
TINY_TEMPLATE = "{% for m in messages %}tiny {{ m.role }}: {{ m.content }}\n{% endfor %}"
STUBBORN = """{# Whatever is asked, this is what the model hears. #}
<|im_start|>user
What is the capital of France?<|im_end|>
<|im_start|>assistant
"""


class Operator:
    """The management service beside the page: another operator, with a script."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False)

    @property
    def state(self) -> dict[str, Any]:
        return self.http.get(STATE).raise_for_status().json()

    @property
    def version(self) -> int:
        return int(self.http.get(STATE).headers["etag"].strip('"'))

    def patch(self, **fields: Any) -> None:
        headers = {"content-type": "application/merge-patch+json"}
        self.http.request("PATCH", STATE, json=fields, headers=headers).raise_for_status()

    def applied(self) -> None:
        """Wait until every agent serves the state."""

        def is_applied() -> bool:
            agents: list[dict[str, Any]] = self.http.get("/api/v1/agents").json()["agents"]
            told = {(one["state_application_status"], one["desired_version"], one["state"]) for one in agents}
            return told == {("Applied", self.version, "ready")}

        waiting = wait_until(is_applied, timeout_s=60, poll_s=0.1, what="the state is applied")
        # Playwright's loop runs in this thread.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, waiting).result()


@pytest.fixture
def operator(fleet: PanelFleet) -> Iterator[Operator]:
    """The state that was there is set again afterwards, and applied."""
    operator = Operator(fleet.management_url)
    before = operator.state
    yield operator
    operator.http.put(STATE, json=before).raise_for_status()
    operator.applied()
    operator.http.close()


def rollout(page: Page) -> Locator:
    return page.get_by_role("region", name="Roll-out")


def applies(page: Page) -> Locator:
    """Review what is about to be changed; gives the dialog."""
    page.get_by_role("button", name="Review and apply").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Apply these changes?")).to_be_visible()
    return dialog


def write(editor: Locator, text: str) -> None:
    """In place of what is there, by keys: `fill` would have the browser edit over the heads of the editor."""
    editor.press("Control+a")
    editor.press("Delete")
    editor.page.keyboard.insert_text(text)


def give_path(page: Page, path: str) -> None:
    source = page.get_by_role("group", name="Model", exact=True)
    source.get_by_text("Path on the agents").click()
    source.get_by_label("Path", exact=True).fill(path)


def test_every_parameter_is_there_with_its_meaning(screen: Screen) -> None:
    page = screen.open("model/default")
    expect(rollout(page)).to_contain_text("The agent serves version")
    screen.shoot_all("model")
    section = page.get_by_role("region", name="Inference parameters")
    for group in section.locator("details").all():
        if group.get_attribute("open") is None:
            group.locator("summary").click()
    for one in describe_parameters():
        field = section.locator(".model-parameter", has=page.locator("code", has_text=re.compile(f"^{one.name}$")))
        expect(field).to_contain_text(one.meaning)
    section.get_by_placeholder("Find a parameter").fill("surprise bits")
    expect(section.locator(".model-parameter")).to_have_count(1)
    top = section.get_by_label("mirostat_tau")
    top.fill("200")
    expect(section.get_by_role("alert")).to_have_text("It is 0 to 100.")
    expect(page.get_by_role("button", name="Review and apply")).to_be_disabled()
    section.get_by_role("button", name="Back to the default of mirostat_tau").click()
    expect(page.get_by_role("region", name="Changes")).to_have_count(0)


def test_another_model_is_rolled_out_and_back(screen: Screen, operator: Operator, tmp_path: Path) -> None:
    tiny = write_model(tmp_path / "tiny.gguf", find_starter(), TINY_TEMPLATE)
    page = screen.open("model")
    before = operator.version
    give_path(page, f"agent://{tiny}")
    expect(page.get_by_role("region", name="Changes")).to_contain_text("1 change")
    dialog = applies(page)
    expect(dialog.locator("[data-path=model] ins")).to_have_text(f"agent://{tiny}")
    expect(dialog).to_contain_text("load the model anew")
    screen.shoot_all("model-review")
    dialog.get_by_role("button", name="Apply").click()
    expect(dialog).to_be_hidden()
    expect(rollout(page)).to_contain_text(f"The agent serves version {before + 1}.")
    expect(rollout(page)).to_contain_text(f"serves {tiny}")
    page.get_by_role("button", name="History").click()
    expect(dialog.get_by_role("listitem").first).to_contain_text(f"Version {before + 1}")
    screen.shoot_all("model-history")
    dialog.get_by_role("button", name=f"Look at version {before}", exact=True).click()
    expect(dialog.locator("[data-path=model] del")).to_have_text(f"agent://{tiny}")
    dialog.get_by_role("button", name=f"Roll back to version {before}").click()
    expect(dialog).to_be_hidden()
    expect(rollout(page)).to_contain_text(f"The agent serves version {before + 2}.")
    expect(rollout(page)).to_contain_text(find_starter().name)


def test_a_path_where_nothing_is_says_what_can_be_done(screen: Screen, operator: Operator) -> None:
    page = screen.open("model")
    give_path(page, "/nowhere/model.gguf")
    applies(page).get_by_role("button", name="Apply").click()
    agent = rollout(page).get_by_role("listitem").filter(has_text="agent-1")
    expect(agent).to_contain_text("Needs your help")
    expect(agent).to_contain_text("What Paddler does")
    expect(agent).to_contain_text("The agent goes on serving")
    expect(agent).to_contain_text("Put the file there")
    screen.shoot_all("model-trouble")
    assert operator.state["model"] == {"LocalToAgent": "/nowhere/model.gguf"}


def test_a_template_is_tried_compared_set_and_heard(screen: Screen, operator: Operator, fleet: PanelFleet) -> None:
    page = screen.open("model")
    section = page.get_by_role("region", name="Chat template")
    section.get_by_text("Yours", exact=True).click()
    section.get_by_role("button", name="Start from the model's own").click()
    prompt = section.locator(".model-prompt")
    expect(prompt).to_contain_text("<|im_start|>user\nAnd of Italy?<|im_end|>")
    screen.shoot_all("model-template")
    editor = section.get_by_role("textbox", name="Chat template")
    write(editor, "fine\n{% for m in messages %}\n{{ m.content }}")
    expect(section.get_by_role("alert")).to_contain_text("Line 3: Unexpected end of template")
    expect(editor.locator(".cm-wrong")).to_have_text("{{ m.content }}")
    screen.shoot_all("model-template-broken")
    write(editor, STUBBORN)
    expect(prompt).to_have_text(STUBBORN.partition("\n")[2].strip(), use_inner_text=True)
    dialog = applies(page)
    expect(dialog.locator("[data-path=use_chat_template_override] ins")).to_have_text("yours")
    expect(dialog.get_by_role("textbox", name="Changes of the chat template")).to_contain_text("capital of France")
    screen.shoot_all("model-template-review")
    dialog.get_by_role("button", name="Apply").click()
    expect(rollout(page)).to_contain_text(f"The agent serves version {operator.version}.")
    asked = {
        "model": "default",
        "messages": [{"role": "user", "content": "Say moo."}],
        "temperature": 0,
        "max_tokens": 16,
    }
    answer = httpx.post(f"{fleet.inference_url}/v1/chat/completions", json=asked, timeout=60, trust_env=False)
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_two_who_change_the_state_do_not_overwrite_each_other(screen: Screen, operator: Operator) -> None:
    page = screen.open("model")
    page.get_by_label("top_p", exact=True).fill("0.5")
    page.get_by_label("top_k", exact=True).fill("7")
    dialog = applies(page)
    operator.patch(inference_parameters={"temperature": 0.25, "top_k": 9})
    version = operator.version
    dialog.get_by_role("button", name="Apply").click()
    expect(dialog.get_by_role("heading", name=f"Version {version} has been set meanwhile")).to_be_visible()
    expect(dialog.locator("[data-path='inference_parameters.temperature'] ins")).to_have_text("0.25")
    clash = dialog.get_by_role("group", name="top_k")
    expect(clash.get_by_role("radio", name="Yours: 7")).to_be_checked()
    clash.get_by_role("radio", name="Theirs: 9").check()
    screen.shoot_all("model-conflict")
    assert operator.version == version
    dialog.get_by_role("button", name=f"Go on from version {version}").click()
    expect(dialog.get_by_role("heading", name="Apply these changes?")).to_be_visible()
    expect(dialog.locator("[data-path]")).to_have_count(1)
    dialog.get_by_role("button", name="Apply").click()
    expect(dialog).to_be_hidden()
    found = operator.state["inference_parameters"]
    assert (found["top_p"], found["top_k"], found["temperature"]) == (0.5, 9, 0.25)


def test_what_somebody_else_sets_is_shown_where_nothing_is_being_changed(screen: Screen, operator: Operator) -> None:
    page = screen.open("model")
    expect(page.get_by_label("top_k", exact=True)).to_have_value("80")
    operator.patch(inference_parameters={"top_k": 11})
    expect(page.get_by_label("top_k", exact=True)).to_have_value("11")


def test_a_pool_that_has_no_state_yet(screen: Screen) -> None:
    page = screen.open("model/nobody")
    expect(rollout(page)).to_contain_text("Nobody has set a state for this pool")
    expect(page.get_by_label("Pool", exact=True)).to_have_value("nobody")
    page.get_by_label("Pool", exact=True).select_option("default")
    expect(page).to_have_url(re.compile("#/model/default$"))
    expect(rollout(page)).to_contain_text("The agent serves version")


def test_changes_survive_a_look_at_another_page_and_are_discarded_when_asked(screen: Screen) -> None:
    page = screen.open("model")
    page.get_by_label("Further names").fill("gpt-4o")
    page.goto(f"{screen.url}/#/settings")
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    page.goto(f"{screen.url}/#/model")
    expect(page.get_by_label("Further names")).to_have_value("gpt-4o")
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(page.get_by_label("Further names")).to_have_value("")


def test_it_is_all_done_by_keyboard(screen: Screen) -> None:
    page = screen.open("model")
    source = page.get_by_role("group", name="Model", exact=True)
    source.get_by_role("radio", checked=True).focus()
    page.keyboard.press("ArrowRight")
    expect(source.get_by_role("radio", name="None")).to_be_checked()
    page.keyboard.press("ArrowLeft")
    source.get_by_role("radio", name="Path on the agents").press("Tab")
    expect(source.get_by_label("Path", exact=True)).to_be_focused()
    page.get_by_role("region", name="Chat template").get_by_role("radio", name="Yours").press("Space")
    editor = page.get_by_role("textbox", name="Chat template")
    page.locator(".code-editor").wait_for()
    editor.focus()
    page.keyboard.type("{{ x }}")
    page.keyboard.press("Control+a")
    page.keyboard.type("{{ messages }}")
    expect(editor).to_have_text("{{ messages }}")
    page.keyboard.press("Tab")
    expect(editor).not_to_be_focused()
    review = page.get_by_role("button", name="Review and apply")
    review.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(review).to_be_focused()
