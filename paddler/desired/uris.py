"""Models by URI, as people have them: the address of a file's page on Hugging Face, a path on an agent, any URL."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

import msgspec

from paddler.desired.schema import DesiredModel, GivenModel, HuggingFaceReference, UrlReference

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/(?:blob|resolve|raw)/(?P<revision>[^/]+)/(?P<filename>.+)")
_FORMS = (
    "https://huggingface.co/<owner>/<repo>/resolve/<revision>/<file>, agent:///path/of/model.gguf on the agent, or the "
    "http:// or https:// URL of a file"
)


def parse_model_uri(text: str, sha256: str | None = None) -> GivenModel:
    """Raises `ValueError` saying what is right. `sha256` is for a file on another server than Hugging Face's."""
    parts = urlsplit(text)
    if parts.scheme == "agent":
        given = GivenModel(LocalToAgent=_agent_path(text))
    elif parts.scheme not in ("http", "https"):
        path = f"; a path on the agents is agent://{text}" if text.startswith("/") else ""
        raise ValueError(f"{text!r} names no model{path or f': it is {_FORMS}'}")
    elif parts.hostname in HOSTS:
        found = _FILE.fullmatch(parts.path)
        if found is None:
            raise ValueError(
                f"{text!r} is no file on Hugging Face: https://huggingface.co/<owner>/<repo>/resolve/<revision>/<file>"
            )
        given = GivenModel(
            HuggingFace=HuggingFaceReference(
                repo_id=unquote(found["repo"]),
                filename=unquote(found["filename"]),
                revision=unquote(found["revision"]),
            )
        )
    else:
        given = GivenModel(Url=UrlReference(url=text, sha256=sha256))
    if sha256 is not None and given.Url is None:
        raise ValueError("a sha256 goes with the URL of a file on another server than Hugging Face's")
    try:
        # Bounds of lengths and patterns are msgspec's, which looks only when it decodes.
        return msgspec.convert(msgspec.to_builtins(given), GivenModel)
    except msgspec.ValidationError as error:
        raise ValueError(f"{text[:200]!r}: {str(error).partition(' - at ')[0]}") from None


def _agent_path(text: str) -> str:
    """What stands behind `agent://` is a path, with `?` and `#` and `%` meaning themselves."""
    path = text.partition("://")[2]
    if not path.startswith("/") or path == "/":
        raise ValueError(f"{text!r} names no absolute path on the agent, such as agent:///models/model.gguf")
    return path


def uri_of(model: DesiredModel) -> str:
    """What `parse_model_uri` reads; `None` for none. A path that is not absolute is told as it is."""
    match model:
        case GivenModel(HuggingFace=HuggingFaceReference() as file):
            revision, filename = quote(file.revision, safe=""), quote(file.filename)
            return f"https://huggingface.co/{quote(file.repo_id)}/resolve/{revision}/{filename}"
        case GivenModel(LocalToAgent=str(path)):
            return f"agent://{path}" if path.startswith("/") else path
        case GivenModel(Url=UrlReference(url=url)):
            return url
        case _:
            return "None"
