"""The desired state of a pool, with Paddler 4.1's names and JSON.

Fields that Paddler 4.1 does not have are last and have defaults. All defaults are what Paddler does while nobody has
set a state. `document.py` reads and writes these, `checks.py` has the ranges.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from paddler.engine_settings import FlashAttention, SplitMode
from paddler.wire.agent import DEFAULT_TEMPERATURE

MAX_PATH = 4096
"""Characters of a path or a URL."""
MAX_NAME = 256
MAX_ALIASES = 32
MAX_TEMPLATE = 200_000
"""Characters of a chat template: what models bring along has up to 20,000."""

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Place = Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]
CacheDtype = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1"]
Rollout = Literal["rolling", "all_at_once"]
PoolingType = Literal["Unspecified", "None", "Mean", "Cls", "Last", "Rank"]


class HuggingFaceReference(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of a repository on Hugging Face; of a model in several files the first."""

    repo_id: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    filename: Place
    revision: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]


class UrlReference(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A file on a web server. With `sha256`, in hex, it is used only if that is its digest."""

    url: Place
    sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            raise ValueError("expected http:// or https://, a host and the path of a file")


class GivenModel(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Where a model's file is; exactly one of them. `LocalToAgent` is a path on the agent's machine."""

    HuggingFace: HuggingFaceReference | None = None
    LocalToAgent: Place | None = None
    Url: UrlReference | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.HuggingFace, self.LocalToAgent, self.Url)) != 1:
            raise ValueError(
                "give exactly one of HuggingFace, LocalToAgent and Url (in a patch the old one as null), or the text "
                "None"
            )


DesiredModel = Literal["None"] | GivenModel


class DesiredAdapter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A LoRA adapter: where its file is, exactly one of them, and how much of it is added. `path` is what
    `LocalToAgent` is."""

    path: Place | None = None
    HuggingFace: HuggingFaceReference | None = None
    LocalToAgent: Place | None = None
    Url: UrlReference | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.path, self.HuggingFace, self.LocalToAgent, self.Url)) != 1:
            raise ValueError("give exactly one of path, HuggingFace, LocalToAgent and Url for each adapter")

    @property
    def source(self) -> GivenModel:
        return GivenModel(HuggingFace=self.HuggingFace, LocalToAgent=self.path or self.LocalToAgent, Url=self.Url)


class ChatTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """Jinja, as it would stand in the model's file."""

    content: Annotated[str, Meta(max_length=MAX_TEMPLATE)]


class InferenceParameters(Struct, frozen=True, kw_only=True):
    """How the model is run, and the sampling of requests that say nothing of it.

    `context_size` tokens are shared by all slots. `enable_embeddings` adds embeddings to generation.
    `embedding_batch_size` is how many documents of a native batch one request of the queue has at most.
    `n_gpu_layers` is -1 for all. `tensor_split` is the share of each GPU, of any sum; empty: by free memory.
    `pooling_type` `Unspecified` is the model's own. What concerns one machine alone (threads) are flags of its agent,
    and one with other GPUs than the others has flags for those, too.
    """

    n_batch: int = 2048
    context_size: int = 8192
    embedding_batch_size: int = 256
    enable_embeddings: bool = True
    image_resize_to_fit: int = 1024
    k_cache_dtype: CacheDtype = "F16"
    v_cache_dtype: CacheDtype = "F16"
    min_p: float = 0.05
    n_gpu_layers: int = 0
    penalty_frequency: float = 0.0
    penalty_last_n: int = -1
    penalty_presence: float = 0.8
    penalty_repeat: float = 1.1
    pooling_type: PoolingType = "Unspecified"
    temperature: float = DEFAULT_TEMPERATURE
    top_k: int = 80
    top_p: float = 0.8
    # Ours: the engine.
    model_name: Name | None = None
    max_parked: int = 64
    flash_attention: FlashAttention = "auto"
    lora_adapters: tuple[DesiredAdapter, ...] = ()
    context_shift: bool = False
    split_mode: SplitMode = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    # Ours: sampling, as `wire.agent.Sampling`.
    ignore_eos: bool = False
    min_keep: int = 0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1


class AgentDesiredState(Struct, frozen=True, kw_only=True):
    """What agents are to apply."""

    chat_template_override: ChatTemplate | None = None
    inference_parameters: InferenceParameters = InferenceParameters()
    model: DesiredModel = "None"
    multimodal_projection: DesiredModel = "None"


class BalancerDesiredState(Struct, frozen=True, kw_only=True):
    """What an operator sets. `chat_template_override` counts while `use_chat_template_override` is true. `aliases` are
    further names that `model` in a request may have for this pool. `rollout` is how agents change to this state: one
    after the other, so that half of the slots stay, or all at once."""

    chat_template_override: ChatTemplate | None = None
    inference_parameters: InferenceParameters = InferenceParameters()
    model: DesiredModel = "None"
    multimodal_projection: DesiredModel = "None"
    use_chat_template_override: bool = False
    aliases: Annotated[tuple[Name, ...], Meta(max_length=MAX_ALIASES)] = ()
    rollout: Rollout = "rolling"

    def for_agents(self) -> AgentDesiredState:
        return AgentDesiredState(
            chat_template_override=self.chat_template_override if self.use_chat_template_override else None,
            inference_parameters=self.inference_parameters,
            model=self.model,
            multimodal_projection=self.multimodal_projection,
        )


OURS = frozenset(
    {
        *("model_name", "max_parked", "flash_attention", "lora_adapters", "context_shift", "ignore_eos", "min_keep"),
        *("typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent"),
        *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "aliases", "rollout", "split_mode", "main_gpu", "tensor_split"),
    }
)
"""Fields that Paddler 4.1 does not have: who gives a whole state may leave them out."""
NULLABLE = frozenset({"chat_template_override"})
"""Fields of Paddler 4.1 that its clients leave out when they are null."""


class Versioned(Struct, frozen=True, kw_only=True):
    """A state as it is stored. `version` counts the changes of the pool's state, 0 while nobody has set one;
    `updated_ms` is when, by the clock of Redis; `author` says who or what, for people."""

    version: int
    state: BalancerDesiredState = BalancerDesiredState()
    updated_ms: int = 0
    author: str = ""
