"""The chart's test, run in a pod: waits until a TrainingStack is Ready or Complete.

Standard library only. Arguments: namespace, name and the seconds to wait.
"""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
GOOD, BAD = ("Complete", "Ready"), "Failed"


def conditions(namespace: str, name: str) -> dict[str, dict[str, Any]]:
    """The stack's conditions by type, as the API server has them now."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    url = f"{server}/apis/twinkle.dev/v1alpha1/namespaces/{namespace}/trainingstacks/{name}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
        return {each["type"]: each for each in json.load(answer).get("status", {}).get("conditions", [])}


def verdict(found: dict[str, dict[str, Any]]) -> tuple[bool | None, str]:
    """True or False where the conditions decide, None where it is too early; and a sentence."""
    true = [kind for kind in (*GOOD, BAD) if found.get(kind, {}).get("status") == "True"]
    if true:
        return true[0] in GOOD, f"{true[0]}: {found[true[0]]['reason']}: {found[true[0]]['message']}"
    if "Ready" not in found:
        return None, "the operator has not written a condition Ready yet; does it run?"
    return None, f"not Ready: {found['Ready']['reason']}: {found['Ready']['message']}"


def main(namespace: str, name: str, seconds: str) -> int:
    """Ask every second until the conditions decide or the time is over."""
    ends = time.monotonic() + float(seconds)
    said = ""
    while True:
        try:
            good, text = verdict(conditions(namespace, name))
        except (OSError, ValueError) as error:
            good, text = None, f"the API server answers: {error}"
        if text != said:
            print(said := text, flush=True)
        if good is not None:
            return 0 if good else 1
        if time.monotonic() > ends:
            print(f"TrainingStack {namespace}/{name} is neither Ready nor Complete after {seconds} s", file=sys.stderr)
            return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
