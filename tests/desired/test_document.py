"""The JSON of a desired state: Paddler 4.1's, and what is said of mistakes in it."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from msgspec import structs
from paddler_client.agent_desired_model import AgentDesiredModel
from paddler_client.balancer_desired_state import BalancerDesiredState as TheirState
from paddler_client.chat_template import ChatTemplate as TheirTemplate
from paddler_client.huggingface_model_reference import HuggingFaceModelReference
from paddler_client.url_model_reference import UrlModelReference

from paddler.desired.document import decode_state, document_of, encode_state, patched, read_state, state_from
from paddler.desired.engine import POOLINGS, engine_options
from paddler.desired.sampling import NAMES, sampling_of
from paddler.desired.schema import (
    OURS,
    AgentDesiredState,
    BalancerDesiredState,
    ChatTemplate,
    DesiredAdapter,
    GivenModel,
    HuggingFaceReference,
    InferenceParameters,
    PoolingType,
    UrlReference,
)
from paddler.engine_settings import EngineSettings
from paddler.errors import InvalidField
from paddler.wire.agent import Sampling

DEFAULT = (
    b'{"chat_template_override":null,"inference_parameters":{"n_batch":2048,"context_size":8192,'
    b'"embedding_batch_size":256,"enable_embeddings":true,"image_resize_to_fit":1024,"k_cache_dtype":"F16",'
    b'"v_cache_dtype":"F16","min_p":0.05,"n_gpu_layers":0,"penalty_frequency":0.0,"penalty_last_n":-1,'
    b'"penalty_presence":0.8,"penalty_repeat":1.1,"pooling_type":"Unspecified","temperature":0.8,"top_k":80,"top_p":0.8},'
    b'"model":"None","multimodal_projection":"None","use_chat_template_override":false}'
)
HUGGING_FACE = GivenModel(
    HuggingFace=HuggingFaceReference(repo_id="Qwen/Qwen3-0.6B-GGUF", filename="Qwen3-0.6B-Q8_0.gguf", revision="main")
)
FULL = BalancerDesiredState(
    chat_template_override=ChatTemplate("{{ messages }}"),
    inference_parameters=InferenceParameters(
        temperature=0.2,
        k_cache_dtype="Q8_0",
        pooling_type="Last",
        lora_adapters=(DesiredAdapter(path="/models/a.gguf", scale=0.5),),
        dry_multiplier=0.8,
        dry_sequence_breakers=("\n",),
    ),
    model=HUGGING_FACE,
    multimodal_projection=GivenModel(Url=UrlReference(url="https://example.org/mmproj.gguf", sha256="a" * 64)),
    use_chat_template_override=True,
    aliases=("chat", "gpt-4o"),
)
REQUIRED = [name for name in json.loads(DEFAULT) if name != "chat_template_override"]


def whole(**changed: Any) -> dict[str, Any]:
    return json.loads(DEFAULT) | changed


def with_parameters(**changed: Any) -> dict[str, Any]:
    return whole(inference_parameters=json.loads(DEFAULT)["inference_parameters"] | changed)


def read(document: Any) -> BalancerDesiredState:
    return read_state(json.dumps(document).encode())


def test_the_bytes_of_the_default_state() -> None:
    """Processes of different versions read each other's."""
    assert encode_state(BalancerDesiredState()) == DEFAULT
    assert decode_state(DEFAULT) == BalancerDesiredState() == read_state(DEFAULT)


def test_the_bytes_of_a_full_one() -> None:
    assert encode_state(FULL).decode().replace('"', "'") == (
        "{'chat_template_override':{'content':'{{ messages }}'},'inference_parameters':{'n_batch':2048,"
        "'context_size':8192,'embedding_batch_size':256,'enable_embeddings':true,'image_resize_to_fit':1024,"
        "'k_cache_dtype':'Q8_0','v_cache_dtype':'F16','min_p':0.05,'n_gpu_layers':0,'penalty_frequency':0.0,"
        "'penalty_last_n':-1,'penalty_presence':0.8,'penalty_repeat':1.1,'pooling_type':'Last','temperature':0.2,"
        "'top_k':80,'top_p':0.8,'lora_adapters':[{'path':'/models/a.gguf','scale':0.5}],'dry_multiplier':0.8,"
        "'dry_sequence_breakers':['\\n']},'model':{'HuggingFace':{'repo_id':'Qwen/Qwen3-0.6B-GGUF',"
        "'filename':'Qwen3-0.6B-Q8_0.gguf','revision':'main'}},'multimodal_projection':{'Url':"
        f"{{'url':'https://example.org/mmproj.gguf','sha256':'{'a' * 64}'}}}},"
        "'use_chat_template_override':true,'aliases':['chat','gpt-4o']}"
    )
    assert decode_state(encode_state(FULL)) == FULL == read_state(encode_state(FULL))


def test_a_newer_version_has_fields_that_this_one_skips() -> None:
    newer = with_parameters(sparkle=3) | {"sparkle": {"more": 1}}
    assert decode_state(json.dumps(newer).encode()) == BalancerDesiredState()


@pytest.mark.parametrize(
    "model",
    [
        AgentDesiredModel.none(),
        AgentDesiredModel.local_to_agent("/models/m.gguf"),
        AgentDesiredModel.from_url(UrlModelReference(url="http://host/m.gguf")),
        AgentDesiredModel.from_huggingface(
            HuggingFaceModelReference(repo_id="a/b", filename="c.gguf", revision="main")
        ),
    ],
    ids=lambda model: model.variant,
)
def test_the_published_client_and_this_read_each_other(model: AgentDesiredModel) -> None:
    """It leaves out what is null."""
    theirs = TheirState(model=model, chat_template_override=TheirTemplate(content="x"), use_chat_template_override=True)
    state = read_state(theirs.model_dump_json(exclude_none=True, by_alias=True).encode())
    assert state.inference_parameters.k_cache_dtype == "Q8_0"
    assert TheirState.model_validate_json(encode_state(state)) == theirs
    plain = TheirState(model=model)
    assert TheirState.model_validate_json(encode_state(read_state(plain.model_dump_json(exclude_none=True).encode())))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_field_of_paddler_4_is_required(name: str) -> None:
    document = whole()
    del document[name]
    with pytest.raises(InvalidField, match=f"`{name}` is required"):
        read(document)


@pytest.mark.parametrize("name", json.loads(DEFAULT)["inference_parameters"])
def test_a_parameter_of_paddler_4_is_required(name: str) -> None:
    document = whole()
    del document["inference_parameters"][name]
    with pytest.raises(InvalidField, match=f"`inference_parameters.{name}` is required") as told:
        read(document)
    assert told.value.param == f"inference_parameters.{name}"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    (whole(modl="None"), "modl", "Unknown field `modl` (did you mean `model`?); leave it out"),
    (
        with_parameters(temprature=1),
        "inference_parameters.temprature",
        "Unknown field `inference_parameters.temprature`",
    ),
    (with_parameters(seed=1), "inference_parameters.seed", "Unknown field `inference_parameters.seed`"),
    (whole(model="none"), "model", "`model`: "),
    (whole(model={}), "model", "give exactly one of HuggingFace, LocalToAgent and Url"),
    (whole(model={"LocalToAgent": "/a", "Url": {"url": "http://h/m"}}), "model", "give exactly one of"),
    (whole(model={"LocalToAgent": ""}), "model.LocalToAgent", "expected `str` of length >= 1"),
    (whole(model={"Url": {"url": "ftp://host/m.gguf"}}), "model.Url", "expected http:// or https://"),
    (whole(model={"Url": {"url": "https:///m.gguf"}}), "model.Url", "expected http:// or https://, a host"),
    (whole(model={"Url": {"url": "http://h:99999/m"}}), "model.Url", "expected http:// or https://, a host"),
    (whole(model={"Url": {"url": "http://h/m", "sha256": "abc"}}), "model.Url.sha256", "matching regex"),
    (whole(model={"HuggingFace": {"repo_id": "a/b"}}), "model.HuggingFace.filename", "is required"),
    (with_parameters(n_batch=0), "inference_parameters.n_batch", "must be between 1 and 1048576, not 0"),
    (with_parameters(context_size=63), "inference_parameters.context_size", "must be between 64 and"),
    (with_parameters(embedding_batch_size=0), "inference_parameters.embedding_batch_size", "must be between 1 and"),
    (with_parameters(image_resize_to_fit=0), "inference_parameters.image_resize_to_fit", "is 1 to 16384 pixels"),
    (with_parameters(n_gpu_layers=-2), "inference_parameters.n_gpu_layers", "must be between -1 and"),
    (with_parameters(top_p=1.5), "inference_parameters.top_p", "top_p must be between 0 and 1, not 1.5"),
    (with_parameters(mirostat=3), "inference_parameters.mirostat", "mirostat must be between 0 and 2"),
    (with_parameters(temperature="hot"), "inference_parameters.temperature", "expected `float`, got `str`"),
    (with_parameters(k_cache_dtype="Q3_K"), "inference_parameters.k_cache_dtype", "Q3_K"),
    (with_parameters(pooling_type="Max"), "inference_parameters.pooling_type", "Max"),
    (
        with_parameters(v_cache_dtype="Q8_0", flash_attention="off"),
        "inference_parameters.v_cache_dtype",
        "leave `inference_parameters.flash_attention` at auto",
    ),
    (
        with_parameters(lora_adapters=[{"path": "a", "scale": 1000}]),
        "inference_parameters.lora_adapters",
        "the scale of a is 1000",
    ),
    (
        with_parameters(lora_adapters=[{"scale": 1}]),
        "inference_parameters.lora_adapters[0]",
        "exactly one of path, HuggingFace, LocalToAgent and Url",
    ),
    (
        with_parameters(lora_adapters=[{"Url": {"url": "ftp://x"}}]),
        "inference_parameters.lora_adapters[0].Url",
        "expected http:// or https://",
    ),
    (
        with_parameters(lora_adapters=[{"path": "a"}, {"LocalToAgent": "a", "scale": 0.5}]),
        "inference_parameters.lora_adapters",
        "a file twice",
    ),
    (
        with_parameters(lora_adapters=[{"path": "a", "weight": 1}]),
        "inference_parameters.lora_adapters[0].weight",
        "Unk",
    ),
    (with_parameters(dry_sequence_breakers=[""]), "inference_parameters.dry_sequence_breakers", "1 to 40 characters"),
    (whole(use_chat_template_override=True), "use_chat_template_override", "or set it to false"),
    (whole(chat_template_override={"text": "x"}), "chat_template_override.text", "Unknown field"),
    (whole(aliases=["a", "a"]), "aliases", "a name twice"),
    (whole(aliases=[""]), "aliases[0]", "length >= 1"),
    (whole(aliases=["a"] * 33), "aliases", "length <= 32"),
]


@pytest.mark.parametrize(("document", "param", "message"), WRONG, ids=[f"{one[1]}-{one[2][:12]}" for one in WRONG])
def test_a_mistake_is_named(document: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidField) as told:
        read(document)
    assert message in told.value.message
    assert told.value.param == param


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{" * 100_000, b" " * 300_000, b'{"a":' * 900]
)
def test_what_is_no_document(body: bytes) -> None:
    with pytest.raises(InvalidField):
        read_state(body)
    with pytest.raises(InvalidField):
        patched(BalancerDesiredState(), body)


def test_a_merge_patch_changes_what_it_names() -> None:
    state = patched(FULL, b'{"inference_parameters":{"temperature":0.7,"dry_multiplier":null},"aliases":["chat"]}')
    parameters = structs.replace(FULL.inference_parameters, temperature=0.7, dry_multiplier=0.0)
    assert state == structs.replace(FULL, inference_parameters=parameters, aliases=("chat",))
    assert patched(FULL, b"{}") == FULL


def test_null_is_the_default_again() -> None:
    assert patched(FULL, b'{"inference_parameters":null}').inference_parameters == InferenceParameters()
    assert patched(FULL, b'{"inference_parameters":{"temperature":null}}').inference_parameters.temperature == 0.8
    told = patched(FULL, b'{"chat_template_override":null,"use_chat_template_override":null}')
    assert told.chat_template_override is None


def test_a_patch_of_another_kind_of_model() -> None:
    """By RFC 7396 objects are merged, so the old kind has to be taken away."""
    with pytest.raises(InvalidField, match="exactly one of"):
        patched(FULL, b'{"model":{"LocalToAgent":"/m.gguf"}}')
    state = patched(FULL, b'{"model":{"HuggingFace":null,"LocalToAgent":"/m.gguf"}}')
    assert state.model == GivenModel(LocalToAgent="/m.gguf")
    assert patched(state, b'{"model":"None"}').model == "None"


def test_a_patch_is_checked_like_a_whole_state() -> None:
    with pytest.raises(InvalidField, match=r"Unknown field `inference_parameters\.x`"):
        patched(FULL, b'{"inference_parameters":{"x":1}}')
    with pytest.raises(InvalidField, match="top_p must be between"):
        patched(FULL, b'{"inference_parameters":{"top_p":2}}')


def test_fields_may_be_missing_where_nobody_promises_a_whole_state() -> None:
    assert state_from({}) == BalancerDesiredState()
    with pytest.raises(InvalidField) as told:
        state_from({"model": 3}, at="balancer_desired_state")
    assert told.value.param == "balancer_desired_state.model"


def test_what_agents_apply() -> None:
    assert FULL.for_agents().chat_template_override == FULL.chat_template_override
    unused = structs.replace(FULL, use_chat_template_override=False).for_agents()
    assert unused.chat_template_override is None
    assert set(document_of(unused)) == {field.name for field in structs.fields(AgentDesiredState)}


def test_every_sampling_field_has_a_default_here_and_the_same_one() -> None:
    assert sampling_of(InferenceParameters()) == Sampling()
    assert set(NAMES) == {field.name for field in structs.fields(Sampling)} - {"seed", "logit_bias"}


def test_every_engine_field_that_is_no_property_of_a_machine_is_here() -> None:
    """And its default is the engine's."""
    machine = {"threads", "lone_step_s", "kv_ram"}
    agent = {"model_path", "slots", "multimodal_projection", "chat_template"}
    options = engine_options(InferenceParameters())
    assert set(options) == {field.name for field in structs.fields(EngineSettings)} - machine - agent
    assert EngineSettings(model_path="m", slots=1, **options) == EngineSettings(model_path="m", slots=1)
    assert set(POOLINGS) == set(get_args(PoolingType))


def test_ours_are_what_the_published_client_does_not_know() -> None:
    theirs = set(TheirState.model_fields) | set(type(TheirState().inference_parameters).model_fields)
    here = {field.name for cls in (BalancerDesiredState, InferenceParameters) for field in structs.fields(cls)}
    assert here - theirs == OURS
    assert theirs <= here
    assert msgspec.json.decode(DEFAULT).keys() == TheirState.model_fields.keys()
