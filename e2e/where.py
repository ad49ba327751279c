"""Which actor of Ray lives in a pod of which device group, as JSON; run inside the head pod of a stack that trains."""

import json

import ray
from ray.util.state import list_actors

ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
groups = {node["NodeID"]: node["Labels"].get("twinkle.dev/device-group", "head") for node in ray.nodes()}
alive = list_actors(filters=[("state", "=", "ALIVE")], limit=1000)
print(json.dumps(sorted([actor.class_name, actor.name or "", groups.get(actor.node_id, "")] for actor in alive)))
