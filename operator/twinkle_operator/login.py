"""Who the operator is to the API server: its service account in a cluster, a kubeconfig elsewhere."""

from __future__ import annotations

import aiohttp
import kopf

from twinkle_operator.errors import OperatorError

AGENT = "twinkle-operator"


def connection() -> kopf.ConnectionInfo:
    """Address, certificates and token, read anew at each call, as tokens are renewed on disk.

    Raises:
        OperatorError: there is neither a service account nor a kubeconfig that can be read.
    """
    settings = kopf.OperatorSettings()
    try:
        found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    except (OSError, kopf.LoginError, KeyError) as error:
        raise OperatorError(f"the kubeconfig cannot be used: {error}") from error
    if found is None:
        raise OperatorError("no way to the API server: no service account is mounted, and KUBECONFIG names no file")
    return found


def session(
    info: kopf.ConnectionInfo, *, connections: int, answers: type[aiohttp.ClientResponse] = aiohttp.ClientResponse
) -> aiohttp.ClientSession:
    """A session with those credentials and at most so many connections (0: no limit)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=info.as_ssl_context()),
        headers={**info.as_http_headers(), "User-Agent": AGENT},
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=answers,
    )
