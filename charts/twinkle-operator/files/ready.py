"""The chart's test, run in a pod: the API server knows TrainingStacks, and the operator is ready.

Standard library only. One argument: the URL of the operator's /readyz.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
DEADLINE_S = float(os.environ.get("DEADLINE_S", "60"))


def kinds() -> list[str]:
    """Kinds of the group twinkle.dev that the API server serves."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}/apis/twinkle.dev/v1alpha1"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
        return [each["kind"] for each in json.load(answer)["resources"]]


def ready(url: str) -> str:
    """What the operator answers."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read(1000), "utf-8", "replace").strip()


def check(url: str) -> str:
    """One sentence: all is well. Raises OSError or ValueError otherwise."""
    if "TrainingStack" not in kinds():
        raise ValueError("the API server has the group twinkle.dev, but no TrainingStack in it")
    return f"TrainingStacks are served; the operator says: {ready(url)}"


def main(url: str) -> int:
    """Ask until all is well or the deadline is over."""
    ends = time.monotonic() + DEADLINE_S
    while True:
        try:
            print(check(url))
            return 0
        except (OSError, ValueError) as error:
            if time.monotonic() > ends:
                print(f"Not ready after {DEADLINE_S:g} s: {getattr(error, 'url', url)}: {error}", file=sys.stderr)
                return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
