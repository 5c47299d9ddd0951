"""The address that an EC2 instance has, from its metadata service (IMDSv2): `aws:metadata:local-ipv4[:port]` in a flag.

Version 2 of the service wants a token first, which is got by PUT; many instances refuse version 1, and so do we.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

LOCAL_IPV4 = "aws:metadata:local-ipv4"
DEFAULT_ENDPOINT = "http://169.254.169.254"
TIMEOUT_S = 2.0
TOKEN_TTL_S = 60

_TOKEN_PATH = "/latest/api/token"
_ADDRESS_PATH = "/latest/meta-data/local-ipv4"


class MetadataError(ValueError):
    """The address is not to be had; the message says why and what to do, without its full stop."""


def local_ipv4(endpoint: str = DEFAULT_ENDPOINT) -> str:
    """The instance's private address. Blocks for at most some seconds. Raises `MetadataError`."""
    import httpx  # a tenth of a second that nobody else needs

    # Not by way of a proxy of the environment: that one would answer for itself.
    with httpx.Client(base_url=endpoint, timeout=TIMEOUT_S, trust_env=False) as client:
        try:
            asked = client.put(_TOKEN_PATH, headers={"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)})
            token = _text(asked, f"PUT {_TOKEN_PATH}")
            got = client.get(_ADDRESS_PATH, headers={"X-aws-ec2-metadata-token": token})
            found = _text(got, f"GET {_ADDRESS_PATH}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MetadataError(
                f"the metadata service at {endpoint} does not answer ({error or type(error).__name__}); is this an EC2 "
                "instance, with its metadata enabled, and in a container a hop limit of 2"
            ) from None
    try:
        return str(ipaddress.IPv4Address(found))
    except ValueError:
        raise MetadataError(f"the metadata service at {endpoint} says {found[:64]!r}, which is no address") from None


def _text(answer: httpx.Response, what: str) -> str:
    if answer.status_code != 200:
        raise MetadataError(
            f"the metadata service refuses {what} with {answer.status_code}; "
            "enable it for this instance (aws ec2 modify-instance-metadata-options --http-endpoint enabled)"
        )
    return answer.text.strip()
