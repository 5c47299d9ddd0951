"""LangChain's own standard suite for chat models, through its OpenAI integration, with the starter model.

What a model of 135M parameters cannot do is expected to fail, with the reason; `docs/langchain.md` has the same cases
against llama-server, where they fail too.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.xdist_group("langchain"),
    pytest.mark.timeout(180),
    # LangChain never closes the clients of its models.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class TestChatOpenAI(ChatModelIntegrationTests):
    url = ""

    @pytest.fixture(autouse=True)
    def _served(self, server_url: str) -> None:
        type(self).url = server_url

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # Its own asynchronous client for each case: LangChain would keep one, beyond the event loop of the case.
        own = {"http_async_client": httpx.AsyncClient(trust_env=False)}
        return {"model": "default", "base_url": self.url, "api_key": "none", "stream_usage": True, **own}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def returns_usage_metadata(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        """The starter model has no projection."""
        return False
