"""A real API server for tests: etcd and kube-apiserver on this machine, in the manner of envtest.

What is real: schemas, CEL, server-side apply, RBAC, Pod Security, tokens, watches. What is not there: controllers,
scheduler, nodes. So no pod ever runs, nothing is garbage-collected, a deleted namespace stays `Terminating`, the roles
`view`, `edit` and `admin`, which a controller aggregates, are empty, and a new namespace has no service account
`default` (the fixture `namespace` makes one).
"""

from __future__ import annotations

import itertools
import json
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from kubernetes import client, config, dynamic

from e2e import assets
from e2e.authority import Authority

READY_WITHIN_S = 60
LOG_LINES = 15
ADMIN = ("test-admin", ("system:masters",))

ESTABLISHED_WITHIN_S = 90

# Everything this server started, and its folder, ends with the process that holds the other end of standard input:
# when it closes it (`stop`), and also when it is killed.
GUARD = 'read -r _; for pid in "$1"/*.pid; do kill -KILL "$(cat "$pid")"; done 2>/dev/null; rm -rf "$1"'


class ApiServerError(RuntimeError):
    """The server did not do what a test needs; the message ends with its last log lines."""


class ApiServer:
    """One API server with an etcd of its own, on random ports of 127.0.0.1, in a temporary folder.

    `start` before anything else and `stop` at last, or use it as a context manager. Objects live in etcd, so they
    outlive `kill`, `run` and `restart`; url, port and every kubeconfig stay good, too.

    Attributes:
        url: `https://127.0.0.1:PORT`.
        folder: where it lives; tests may put files of their own there.
        admin: a kubeconfig of the administrator.
    """

    url: str
    folder: Path
    admin: Path

    def start(self) -> ApiServer:
        """Bring both up; about 4 s.

        Raises:
            AssetError: the programs have not been built.
            ApiServerError: not ready after 60 s.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="twinkle-kube-"))
        command = ["/bin/sh", "-c", GUARD, "guard", str(self.folder)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: list[client.ApiClient] = []
        self._authority = Authority(self.folder / "pki")
        self._serving = self._authority.issue("apiserver", "kube-apiserver", hosts=["127.0.0.1", "localhost"])
        self._token_keys = self._authority.service_account_keys()
        self._numbers = itertools.count()
        self._etcd_url, peers, self.url = (
            f"{scheme}://127.0.0.1:{_free_port()}" for scheme in ("http", "http", "https")
        )
        self.admin = self.kubeconfig()
        try:
            self._launch(
                "etcd",
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={self._etcd_url}",
                f"--advertise-client-urls={self._etcd_url}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
                "--unsafe-no-fsync",
            )
            self.run()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close every client, end both processes and delete the folder."""
        for made in self._clients:
            made.rest_client.close()  # ApiClient.close ends its threads, not its connections
        self._guard.communicate()
        for process in self._processes.values():
            process.wait()

    def __enter__(self) -> ApiServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self) -> None:
        """Start kube-apiserver (after `kill`) and wait until it is ready; etcd runs."""
        certificate, key = self._serving
        private, public = self._token_keys
        self._launch(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--client-ca-file={self._authority.certificate}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
            f"--audit-policy-file={self._audit_policy()}",
            f"--audit-log-path={self.audit}",
        )
        self._await_ready()

    def _audit_policy(self) -> Path:
        """What service accounts ask is logged; everybody else is not, so that it costs nothing."""
        accounts = {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["RequestReceived"]}
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [accounts, {"level": "None"}]}
        file = self.folder / "audit-policy.json"
        file.write_text(json.dumps(policy))
        return file

    @property
    def audit(self) -> Path:
        """A log of what service accounts asked and were answered, one JSON object a line."""
        return self.folder / "audit.jsonl"

    def kill(self) -> None:
        """SIGKILL kube-apiserver: every connection and watch breaks. etcd goes on."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def restart(self) -> None:
        """`kill` and `run`: a new process, the same objects. Watch caches start empty."""
        self.kill()
        self.run()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop kube-apiserver without ending it: its connections stay open, and nothing comes through them."""
        process = self._processes["kube-apiserver"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def forget_history(self) -> None:
        """Restart with a compacted etcd: watches that begin at any older resourceVersion end with 410 Gone."""
        self.kill()
        revision = self._etcd("kv/range", {"key": "AA=="})["header"]["revision"]
        self._etcd("kv/compaction", {"revision": revision, "physical": True})
        self.run()

    def kubeconfig(
        self, user: str | None = None, *, groups: Sequence[str] = (), service_account: str | None = None
    ) -> Path:
        """A new kubeconfig file; without arguments the administrator's, to whom RBAC allows everything.

        Args:
            user: a user with a certificate, and no rights but those RBAC gives to it or its groups.
            groups: the groups of `user`.
            service_account: `NAMESPACE/NAME` of one that exists; the file holds a token that is good for an hour.
        """
        file = self.folder / f"{next(self._numbers)}.kubeconfig"
        if service_account is not None:
            return self._authority.kubeconfig(file, self.url, token=self._token(service_account))
        name, of = ADMIN if user is None else (user, groups)
        return self._authority.kubeconfig(file, self.url, user=name, groups=of)

    def client(self, kubeconfig: Path | None = None) -> client.ApiClient:
        """A client for whom the kubeconfig names (by default the administrator); `stop` closes it."""
        made = config.new_client_from_config(str(kubeconfig or self.admin))
        self._clients.append(made)
        return made

    def dynamic(self, kubeconfig: Path | None = None) -> dynamic.DynamicClient:
        """A client for every kind that the server knows at this moment, custom ones among them."""
        discovered = (
            self.folder / f"{next(self._numbers)}.discovered"
        )  # the default is one file for all servers of a port
        return dynamic.DynamicClient(self.client(kubeconfig), cache_file=str(discovered))

    def kubectl(self, *arguments: str, stdin: str | None = None, fails: bool = False) -> str:
        """Run kubectl as the administrator; what it printed.

        Raises:
            ApiServerError: it failed (or did not although it `fails`).
        """
        command = [str(assets.program("kubectl")), f"--kubeconfig={self.admin}", *arguments]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90, check=False)
        if bool(ended.returncode) is not fails:
            said = f"{ended.stdout}{ended.stderr}"
            raise ApiServerError(f"kubectl {' '.join(arguments)} ended with {ended.returncode}: {said}")
        return ended.stdout + ended.stderr

    def install_crds(self, path: Path) -> None:
        """Apply every CustomResourceDefinition of a file or folder, server-side, and wait until all are Established."""
        self.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={path}")
        end = time.monotonic() + ESTABLISHED_WITHIN_S
        while not self._all_established():  # kubectl wait breaks off at one that has no status yet
            if time.monotonic() > end:
                raise ApiServerError(f"not every CRD was Established after {ESTABLISHED_WITHIN_S} s: {path}")
            time.sleep(0.5)

    def _all_established(self) -> bool:
        found = json.loads(self.kubectl("get", "crd", "--output=json"))["items"]
        kept = [each.get("status", {}).get("conditions") or [] for each in found]
        return all(any(it["type"] == "Established" and it["status"] == "True" for it in each) for each in kept)

    def _token(self, service_account: str) -> str:
        namespace, _, name = service_account.partition("/")
        request = {"spec": {"expirationSeconds": 3600}}
        made = client.CoreV1Api(self.client()).create_namespaced_service_account_token(name, namespace, request)
        token: str = made.status.token
        return token

    def _etcd(self, path: str, body: dict[str, Any]) -> Any:
        with urllib.request.urlopen(f"{self._etcd_url}/v3/{path}", json.dumps(body).encode(), timeout=10) as answer:
            return json.load(answer)

    def _launch(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [str(assets.program(name)), *arguments]
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        (self.folder / f"{name}.pid").write_text(f"{process.pid}\n")
        self._processes[name] = process

    def _await_ready(self) -> None:
        end = time.monotonic() + READY_WITHIN_S
        why = "nothing was tried"
        while time.monotonic() < end:
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended:
                raise ApiServerError(f"{ended[0]} ended while the API server started\n{self.log_tail()}")
            why = self._unready()
            if not why:
                return
            time.sleep(0.05)
        raise ApiServerError(f"the API server was not ready after {READY_WITHIN_S} s: {why}\n{self.log_tail()}")

    def _unready(self) -> str:
        """Why the server does not say that it is ready; empty if it does."""
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        trust = ssl.create_default_context(cafile=str(self._authority.certificate))
        with closing(HTTPSConnection(host, int(port), timeout=5, context=trust)) as connection:
            try:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                return "" if answer.status == 200 else answer.read().decode()
            except (OSError, HTTPException) as error:
                return repr(error)

    def log_tail(self) -> str:
        """The last lines of each log."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {line}" for log in logs for line in log.read_text().splitlines()[-LOG_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
