"""LangChain's own standard suite for embeddings, through its OpenAI integration, with the starter model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.xdist_group("langchain"),
    pytest.mark.timeout(180),
    # LangChain never closes the clients of its models.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    url = ""

    @pytest.fixture(autouse=True)
    def _served(self, server_url: str) -> None:
        type(self).url = server_url

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        """As docs/langchain.md says it: by default it sends tokens of OpenAI's vocabulary."""
        return {"model": "default", "base_url": self.url, "api_key": "none", "check_embedding_ctx_length": False}

    def test_dimensions(self, model: Embeddings) -> None:
        """OpenAI's parameter: the same texts, shortened and of length 1 again."""
        short = OpenAIEmbeddings(**self.embedding_model_params, dimensions=16)
        vector, whole = short.embed_query("a red fox"), model.embed_query("a red fox")
        length = sum(number**2 for number in whole[:16]) ** 0.5
        assert len(vector) == 16
        assert vector == pytest.approx([number / length for number in whole[:16]], abs=2e-3)
