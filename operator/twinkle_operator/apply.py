"""Children made so: applied if they differ, deleted if they still are who they were.

Server-side apply makes what is not there and merges into what is. So a name is looked up before it is used for the
first time: an object of somebody else would become the stack's, and go with it. Only what appears under that name
between the look and the apply, without a field in common, is not noticed.
"""

from __future__ import annotations

import logging

from twinkle_operator import managed, strip
from twinkle_operator.cache import Cache, Child
from twinkle_operator.client import Client
from twinkle_operator.errors import Conflict, NameTaken, NotFound, Outdated
from twinkle_operator.observed import Stack
from twinkle_operator.plan import Deletion
from twinkle_operator.resources import CHILDREN, JOBS, STACKS, Key, Manifest, Resource

log = logging.getLogger(__name__)


class Applier:
    """Writes children through one client, and lets the cache see what came of it.

    A manifest is sent if the fields that we own are not what it says. A server that alters what is sent (an admission
    webhook, say) is not fought: what it made of a manifest counts as that manifest.
    """

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client, self._cache = client, cache
        self._made_of: dict[Key, dict[tuple[str, str], tuple[bytes, bytes]]] = {}

    async def rehearse(self, stack: Stack, manifest: Manifest) -> bool:
        """Ask the server what it would say, and change nothing: False.

        Raises:
            Refused, and what `apply` raises.
        """
        if not self._stands(stack, manifest):
            resource = CHILDREN[manifest["kind"]]
            await self._client.apply(resource, self._addressed(stack, manifest), force=True, dry_run=True)
        return False

    async def apply(self, stack: Stack, manifest: Manifest) -> bool:
        """Make the child what the manifest says; whether anything was sent.

        A child that is being deleted is left alone. A RayJob begins an attempt, so the stack is read first: an operator
        that is behind the server would begin one again that is over.

        Raises:
            Refused: for what is in it.
            NameTaken: an object of that name belongs to somebody else.
            Outdated: the cache is behind the server.
            ApiError, Unreachable: anything else.
        """
        if self._stands(stack, manifest):
            return False
        resource, child = CHILDREN[manifest["kind"]], self._child(stack, manifest)
        if child is not None and child.deleting:
            return False
        if child is not None and child.owner != stack.uid:
            raise self._of_another(stack, manifest, child.owner)
        if child is None:
            live = await self._begin(stack, resource, manifest)
        else:
            live = await self._change(stack, resource, manifest)
        self._keep(stack, resource, manifest, live)
        log.info("applied %s %s/%s", resource.kind, stack.namespace, manifest["metadata"]["name"])
        return True

    async def delete(self, stack: Stack, deletion: Deletion) -> bool:
        """Delete the child if it still has that uid; whether it was there."""
        resource, key = CHILDREN[deletion.kind], (stack.namespace, stack.name)
        child = self._cache.child(key, deletion.kind, deletion.name)
        if child is not None and child.uid == deletion.uid and child.deleting:
            return False
        try:
            answer = await self._client.delete(resource, stack.namespace, deletion.name, deletion.uid)
        except (NotFound, Conflict):
            self._cache.removed(resource, stack.namespace, deletion.name, deletion.uid)
            return False
        if answer.get("kind") == deletion.kind:
            self._cache.seen(resource, answer)  # it goes when its finalizers are done
        else:
            self._cache.removed(resource, stack.namespace, deletion.name, deletion.uid)
        log.info("deleted %s %s/%s", deletion.kind, stack.namespace, deletion.name)
        return True

    def forget(self, key: Key) -> None:
        """The stack is no more."""
        self._made_of.pop(key, None)

    def _stands(self, stack: Stack, manifest: Manifest) -> bool:
        child = self._child(stack, manifest)
        if child is None or child.owner != stack.uid:
            return False
        wanted = managed.digest(manifest)
        made_of = self._made_of.get((stack.namespace, stack.name), {})
        return child.owned == wanted or made_of.get(_at(manifest)) == (wanted, child.owned)

    def _child(self, stack: Stack, manifest: Manifest) -> Child | None:
        return self._cache.child((stack.namespace, stack.name), *_at(manifest))

    def _addressed(self, stack: Stack, manifest: Manifest) -> Manifest:
        """With the uid of the object that is meant, so that none is made anew that somebody deletes at this moment."""
        child = self._child(stack, manifest)
        if child is None:
            return manifest
        return {**manifest, "metadata": {**manifest["metadata"], "uid": child.uid}}

    async def _check(self, stack: Stack) -> None:
        """The stack is as the plan saw it; otherwise let the cache see it."""
        try:
            now = await self._client.get(STACKS, stack.namespace, stack.name)
        except NotFound as error:
            raise Outdated(f"stack {stack.namespace}/{stack.name} was deleted since it was planned") from error
        if now["metadata"]["uid"] != stack.uid or now["metadata"]["resourceVersion"] != stack.resource_version:
            self._cache.seen(STACKS, now)
            raise Outdated(f"stack {stack.namespace}/{stack.name} changed since it was planned")

    async def _begin(self, stack: Stack, resource: Resource, manifest: Manifest) -> Manifest:
        """The cache has nothing of that name: it is free, the cache is behind, or somebody removed our label."""
        live = await self._found(stack, resource, manifest)
        if resource == JOBS:
            self._refuse_twice(stack, manifest, live)
            await self._check(stack)
        if live is not None:
            return await self._take(resource, manifest, live)
        try:
            return await self._client.apply(resource, manifest, force=False)
        except Conflict:
            return await self._contend(stack, resource, manifest)

    def _refuse_twice(self, stack: Stack, manifest: Manifest, live: Manifest | None) -> None:
        """An attempt begins once: another operator that began it may have bound it to another head."""
        if live is not None:
            self._cache.seen(JOBS, live)
            if self._child(stack, manifest) is not None:
                raise Outdated(f"RayJob {stack.namespace}/{manifest['metadata']['name']} has begun already")

    async def _change(self, stack: Stack, resource: Resource, manifest: Manifest) -> Manifest:
        try:
            return await self._client.apply(resource, self._addressed(stack, manifest), force=True)
        except Conflict:
            return await self._contend(stack, resource, manifest)

    async def _contend(self, stack: Stack, resource: Resource, manifest: Manifest) -> Manifest:
        """Another manager holds a field, or the object is another one: take the fields only of what is ours."""
        name, child = manifest["metadata"]["name"], self._child(stack, manifest)
        live = await self._found(stack, resource, manifest)
        if live is None:
            self._cache.removed(resource, stack.namespace, name, child.uid if child else "")
            raise Outdated(f"{resource.kind} {stack.namespace}/{name} was deleted meanwhile")
        if child is not None and child.uid != live["metadata"]["uid"]:
            self._cache.seen(resource, live)
            raise Outdated(f"{resource.kind} {stack.namespace}/{name} was made anew meanwhile")
        return await self._take(resource, manifest, live)

    async def _found(self, stack: Stack, resource: Resource, manifest: Manifest) -> Manifest | None:
        """The object of that name if it is the stack's, None if there is none.

        Raises:
            NameTaken: it is another's.
        """
        try:
            live = await self._client.get(resource, stack.namespace, manifest["metadata"]["name"])
        except NotFound:
            return None
        _, owner = strip.owner(live)
        if owner != stack.uid:
            raise self._of_another(stack, manifest, owner)
        return live

    async def _take(self, resource: Resource, manifest: Manifest, live: Manifest) -> Manifest:
        """Apply to that very object, whoever holds fields of it; one that is being deleted is left alone."""
        self._cache.seen(resource, live)
        if "deletionTimestamp" in live["metadata"]:
            raise Outdated(f"{resource.kind} {manifest['metadata']['name']} is being deleted")
        addressed = {**manifest, "metadata": {**manifest["metadata"], "uid": live["metadata"]["uid"]}}
        return await self._client.apply(resource, addressed, force=True)

    def _of_another(self, stack: Stack, manifest: Manifest, owner: str) -> NameTaken:
        kind, name = _at(manifest)
        whose = f"an earlier stack (uid {owner}) that is being removed" if owner else "somebody else"
        return NameTaken(
            f"{kind} {stack.namespace}/{name} belongs to {whose}: delete it, or give the stack another name"
        )

    def _keep(self, stack: Stack, resource: Resource, manifest: Manifest, live: Manifest) -> None:
        made_of = self._made_of.setdefault((stack.namespace, stack.name), {})
        made_of[_at(manifest)] = managed.digest(manifest), managed.digest(managed.owned(live))
        self._cache.seen(resource, live)


def _at(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
