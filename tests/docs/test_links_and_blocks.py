"""How a document is rewritten for the site, and how its blocks are read."""

from __future__ import annotations

from pathlib import Path

import doc_blocks
import pytest
from doc_blocks import blocks, own_commands

from website.repository import for_site, linked, place_of


@pytest.mark.parametrize(
    ("place", "written", "shown"),
    [
        ("keys.md", "[a](headers.md#x)", "[a](headers.md#x)"),
        ("kubernetes.md", "[a](../docker/k8s/README.md)", "[a](project/docker/k8s/README.md)"),
        ("project/README.md", "[a](docs/keys.md) [b](LICENSE)", "[a](../keys.md) [b](LICENSE)"),
        ("project/docker/k8s/README.md", "[a](../../docs/keys.md)", "[a](../../../keys.md)"),
        ("keys.md", "`docs/headers.md`", "[`docs/headers.md`](headers.md)"),
        ("keys.md", "`docs/keys.md` `docs/gone.md` `x.md`", "`docs/keys.md` `docs/gone.md` `x.md`"),
        ("project/ARCHITECTURE.md", "`paddler/jobs/DESIGN.md`", "[`paddler/jobs/DESIGN.md`](paddler/jobs/DESIGN.md)"),
        ("keys.md", "[a](https://example.org/x.md) [b](#c)", "[a](https://example.org/x.md) [b](#c)"),
        ("keys.md", "```sh no-run: why\n[a](../x)\n```\n", "```sh\n[a](../x)\n```\n"),
    ],
)
def test_links_lead_to_the_same_on_the_site(place: str, written: str, shown: str) -> None:
    assert for_site(written, place) == shown


def test_code_has_no_links() -> None:
    assert list(linked("[a](b) `[c](d)`\n```\n[e](f)\n```\n[g](h)")) == ["b", "h"]


def test_a_file_of_the_repository_has_one_place() -> None:
    assert [place_of(path) for path in ("docs/keys.md", "docker/Dockerfile")] == [
        "keys.md",
        "project/docker/Dockerfile",
    ]


PAGE = """\
```sh
paddler agents \\
    --watch   # for ever
# only a comment
echo "two
lines" | cat
```

<!-- no-run: needs a GPU -->
```sh
paddler up
```

- in a list

  ```console no-run: shows
  $ paddler queue
  nothing waits
  ```
"""


def test_blocks_have_their_commands_and_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_blocks, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    first, second, third = blocks("page.md")
    assert first.commands == ["paddler agents \\\n    --watch   # for ever", 'echo "two\nlines" | cat']
    assert [one.reason for one in (first, second, third)] == ["", "needs a GPU", "shows"]
    assert third.commands == ["paddler queue"]
    (tmp_path / "page.md").write_text("```sh norun\n```\n")
    with pytest.raises(AssertionError, match="only `no-run: reason`"):
        blocks("page.md")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("paddler keys create x > k && chmod 600 k", [["keys", "create", "x"]]),
        ("A=1 paddler queue | head", [["queue"]]),
        ("KEY=$(paddler keys create alice)", [["keys", "create", "alice"]]),
        ('echo "$(paddler keys list)"', [["keys", "list"]]),
        ("docker compose -f x run --rm operator agents --watch", [["agents", "--watch"]]),
        ("kubectl exec -n paddler -it p -- paddler agents", [["agents"]]),
        ('make run ARGS="--slots 8"', [["up", "--slots", "8"]]),
        ("kubectl create namespace paddler", []),
    ],
)
def test_our_commands_are_found_among_others(command: str, arguments: list[list[str]]) -> None:
    assert list(own_commands(command)) == arguments
