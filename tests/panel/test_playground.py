"""The page `Playground`: a conversation with the real model, and everything one can do with it."""

from __future__ import annotations

import json
import re

import pytest
from panel_harness import PATIENCE_MS, PanelFleet, Screen
from playground_harness import Playground, words
from playwright.sync_api import expect

pytestmark = [pytest.mark.xdist_group("panel"), pytest.mark.timeout(240, method="thread")]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def playground(screen: Screen, fleet: PanelFleet) -> Playground:
    return Playground(screen, fleet)


def test_a_conversation(playground: Playground) -> None:
    page = playground.page
    expect(page.get_by_role("heading", name="Ask the model something")).to_be_visible()
    playground.screen.shoot_all("playground-empty")
    playground.set_up(max_tokens="60")
    playground.send("Write a list of three fruits, and say what you like about each of them.")
    first = playground.over()
    expect(first).to_contain_text("agent-1")
    expect(first).to_contain_text(re.compile(r"First token\s*[\d.]+ m?s"))
    expect(first).to_contain_text(re.compile(r"Speed\s*[\d.]+ tokens/s"))
    usage = playground.known()["usage"]
    expect(first).to_contain_text(f"{usage['completion_tokens']} tokens")
    assert words(playground.text.inner_text()) == words(playground.said())

    playground.send("And which of them is the sweetest?")
    second = playground.over()
    cached = playground.known()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0, "the first turn is in the agent's cache"
    expect(second).to_contain_text(f"{cached} cached")
    playground.screen.shoot_all("playground")

    second.get_by_role("button", name="Regenerate").click()
    playground.over()
    expect(playground.answer).to_contain_text("2 of 2")
    playground.answer.get_by_role("button", name="Answer before").click()
    expect(playground.answer).to_contain_text("1 of 2")

    question = page.locator(".pg-user").first
    question.get_by_role("button", name="Edit and send again").click()
    expect(question.get_by_label("Message")).to_be_focused()
    question.get_by_label("Message").fill("Name one fish.")
    question.get_by_role("button", name="Send again").click()
    playground.over()
    expect(page.locator(".pg-user")).to_have_count(1)
    expect(page.locator(".pg-user")).to_contain_text("Name one fish.")


def test_stop_frees_the_slot_on_the_server(playground: Playground) -> None:
    playground.set_up(max_tokens="1500", ignore_eos="true")
    playground.send("Tell me a very long story.")
    playground.begun()
    playground.page.get_by_role("button", name="Stop").click()
    expect(playground.over()).to_contain_text("Stopped.")
    assert playground.known()["state"] == "cancelled"
    assert words(playground.text.inner_text()), "what was said stays"


def test_a_page_that_is_reloaded_goes_on_where_it_was(playground: Playground) -> None:
    """To the balancer that is a connection that breaks."""
    playground.set_up(max_tokens="250", ignore_eos="true")
    playground.send("Tell me a long story about the sea.")
    playground.begun()
    playground.page.reload()
    playground.over()
    expect(playground.answer).to_contain_text("250 tokens")
    assert playground.known()["state"] == "done"
    assert words(playground.text.inner_text()) == words(playground.said())


def test_another_balancer_goes_on_with_it(playground: Playground) -> None:
    playground.set_up(max_tokens="200", ignore_eos="true")
    playground.send("Tell me a long story about a king.")
    playground.begun()
    playground.fleet.kill_balancer()
    playground.over()
    assert words(playground.text.inner_text()) == words(playground.said())


def test_a_call_is_shown_and_its_result_sent_back(playground: Playground) -> None:
    page = playground.page
    playground.set_up(max_tokens="60")
    dialog = playground.open_setup("Tools")
    dialog.get_by_role("button", name="Insert an example").click()
    dialog.get_by_label("Tool choice").select_option("required")
    playground.screen.shoot_all("playground-tools")
    dialog.get_by_role("button", name="Done").click()
    playground.send("Is it raining in Oslo?")
    playground.over()
    call = page.get_by_role("region", name="Call of weather")
    city = json.loads(call.locator("pre").inner_text())["city"]
    assert isinstance(city, str)
    playground.screen.shoot_all("playground-call")
    dialog = playground.open_setup("Tools")
    dialog.get_by_label("Tool choice").select_option("none")
    dialog.get_by_role("button", name="Done").click()
    call.get_by_label("Its result").fill('{"rain": true}')
    page.get_by_role("button", name="Send the result").click()
    playground.over()
    expect(page.get_by_role("article", name="Result of weather")).to_contain_text('{"rain": true}')
    assert words(playground.text.inner_text())


def test_a_schema_is_looked_at_first_and_then_enforced(playground: Playground) -> None:
    page = playground.page
    dialog = playground.open_setup("Form of the answer")
    dialog.get_by_label("Form", exact=True).select_option("json_schema")
    playground.write_json("JSON schema", '{"type": "object", "properties": {"n": {"not": {}}}}')
    expect(dialog.get_by_role("alert")).to_contain_text('"not" cannot be enforced; leave it out (at /properties/n)')
    dialog.get_by_role("button", name="Done").click()
    page.get_by_label("Message", exact=True).fill("A person, please.")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Open the settings").click()
    dialog.get_by_role("tab", name="Form of the answer").click()
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 5}}, "required": ["n"]}
    playground.write_json("JSON schema", json.dumps(schema))
    dialog.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Send", exact=True).click()
    playground.over()
    assert json.loads(playground.text.inner_text())["n"] in (3, 4, 5)


HOSTILE = """Look: <script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1">

[press me](javascript:window.hacked=1)

```python
print("copied")
```

The end."""


def test_what_a_model_writes_is_never_run(playground: Playground) -> None:
    page = playground.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    playground.say_by_grammar(HOSTILE)
    playground.send("Go on.")
    playground.over()
    expect(playground.text).to_contain_text("<script>window.hacked = 1</script>")
    expect(playground.text).to_contain_text("press me")
    assert playground.text.locator("script, img, a").count() == 0
    assert page.evaluate("window.hacked") is None
    playground.text.get_by_role("button", name="Copy the code").click()
    expect(playground.text.locator(".md-copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == 'print("copied")'


def test_parameters_have_ranges_and_a_mistake_is_told_before_it_is_sent(playground: Playground) -> None:
    page = playground.page
    dialog = playground.open_setup("Parameters")
    dialog.get_by_label("temperature", exact=True).fill("7")
    expect(dialog.get_by_role("alert")).to_have_text("From 0 to 2.")
    playground.screen.shoot_all("playground-parameters")
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_role("alert")).to_contain_text("temperature: From 0 to 2.")
    dialog = playground.open_setup("Parameters")
    dialog.get_by_role("button", name="Clear all").click()
    dialog.get_by_role("button", name="Done").click()
    playground.set_up(n="2", max_tokens="8")
    playground.send("Say hello.")
    expect(playground.over()).to_contain_text("1 of 2")


def test_conversations_are_kept_named_saved_and_deleted(playground: Playground) -> None:
    page = playground.page
    playground.set_up(max_tokens="5")
    playground.send("Say hello.")
    playground.over()
    page.get_by_role("button", name="Rename Say hello.").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Greetings")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="New conversation").click()
    playground.send("Another one.")
    playground.over()
    page.reload()
    side = page.get_by_role("region", name="Conversations")
    expect(side.get_by_role("listitem")).to_have_count(2)
    side.get_by_role("button", name="Greetings", exact=True).click()
    expect(page.locator(".pg-user")).to_have_text("Say hello.")
    page.get_by_role("button", name="Export Greetings").click()
    with page.expect_download() as download:
        page.get_by_role("dialog").get_by_role("button", name="JSON").click()
    kept = json.loads(download.value.path().read_text())
    assert (download.value.suggested_filename, kept["title"], len(kept["turns"])) == ("greetings.json", "Greetings", 2)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete Greetings").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(side.get_by_role("listitem")).to_have_count(1)
    page.reload()
    expect(side.get_by_role("listitem")).to_have_count(1)
    expect(page.locator(".pg-user")).to_have_text("Another one.")


def test_it_is_all_done_by_keyboard(playground: Playground) -> None:
    page = playground.page
    playground.set_up(max_tokens="5")
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("Say hello.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Twice.")
    page.keyboard.press("Enter")
    playground.over()
    expect(page.locator(".pg-user")).to_have_text("Say hello.\nTwice.")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Embeddings")).to_be_focused()
    expect(page.get_by_label("Texts, one in each line")).to_be_visible()
