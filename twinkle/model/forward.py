"""Which arguments the forward pass of a causal model takes: trainer and sampler call no model with others."""

import inspect

from transformers.modeling_utils import PreTrainedModel

from twinkle.errors import ConfigError


def accepted_arguments(model: PreTrainedModel) -> frozenset[str]:
    """Names of the arguments of `model.forward`: attention_mask and past_key_values are always among them,
    position_ids and logits_to_keep with most models.

    Raises ConfigError for a model that keeps a recurrent state instead.
    """
    accepted = frozenset(inspect.signature(model.forward).parameters)
    if getattr(model, "_is_stateful", False) or not {"attention_mask", "past_key_values"} <= accepted:
        raise ConfigError(
            f"{type(model).__name__} keeps a recurrent state, which padding would change; "
            "choose a model with attention and a key-value cache"
        )
    return accepted
