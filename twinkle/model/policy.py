"""The policy: a language model that gives log-probs, takes optimizer steps, and hands out its weights."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoTokenizer

from twinkle.errors import CheckpointError, RunError
from twinkle.hub import resolve
from twinkle.model.adapter_config import plain_adapter_config
from twinkle.model.batch import TrainBatch, cut_rows, make_batch
from twinkle.model.config import ModelConfig, OptimConfig
from twinkle.model.data_parallel import DataParallel
from twinkle.model.folder import DTYPES, share_weights, without_progress_bars
from twinkle.model.forward import accepted_arguments
from twinkle.model.loading import load_frozen, load_trainable
from twinkle.model.lora_layers import adapter_off
from twinkle.model.train_step import BegunStep, TrainStats, WeightExport
from twinkle.rl.config import AlgoConfig
from twinkle.rl.loss import clipped_loss, denominator, k3_divergence, token_weights

__all__ = ["Policy", "TrainBatch", "TrainStats", "WeightExport", "make_batch"]


def _nothing() -> None:
    """What happens before a change that nobody watches."""


class Policy:
    """The model in `model_folder`, trained as the two configurations say.

    Log-probs are those of softmax(logits / temperature) over the whole vocabulary, from an uncached forward pass, in
    float32. The global random generators are never used.

    With `parallel` it is one of several ranks, each of which gets rows of its own in the same calls of `begin_step` and
    `finish_step`: gradient, parameters and figures are those of all rows.

    Raises:
        ModelNotFoundError: there is no model in the folder.
        ConfigError: a setting that cannot work, here or anywhere, or a model that the sampler could not sample from.
    """

    def __init__(
        self,
        model_folder: str | Path,
        model_config: ModelConfig,
        optim_config: OptimConfig,
        parallel: DataParallel | None = None,
    ):
        model_config.validate()
        optim_config.validate()
        self.folder, self.config, self.optim = str(resolve(model_folder)), model_config, optim_config
        self.model = load_trainable(self.folder, model_config)
        self.device = next(self.model.parameters()).device
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        self._accepted = accepted_arguments(base)
        self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._parallel = parallel or DataParallel()
        self._training = self._parallel.wrapped(self.model)
        self._reference: nn.Module | None = None
        self._begun: BegunStep | None = None
        self._adapter: WeightExport | None = None  # the parameters themselves, under the names of PEFT's files
        self._optimizer = torch.optim.AdamW(
            self._trained.values(),
            lr=optim_config.lr,
            betas=(optim_config.beta1, optim_config.beta2),
            eps=optim_config.eps,
            weight_decay=optim_config.weight_decay,
            fused=True,
        )

    @property
    def num_parameters(self) -> int:
        """Parameters of the model, its adapter included."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def num_trainable(self) -> int:
        """Parameters that an optimizer step changes."""
        return sum(p.numel() for p in self._trained.values())

    def token_logprobs(self, batch: TrainBatch, temperature: float) -> Tensor:
        """Log-probs [B, T] of the response tokens, 0 elsewhere, float32, on the CPU, without gradient."""
        return self._all_logprobs(self.model, batch, temperature)

    def reference_logprobs(self, batch: TrainBatch, temperature: float) -> Tensor:
        """The same by the model as it is in its folder: the adapter switched off, or a frozen copy loaded at the
        first call."""
        if isinstance(self.model, PeftModel):
            with adapter_off(self.model):
                return self._all_logprobs(self.model, batch, temperature)
        if self._reference is None:
            self._reference = load_frozen(self.folder, self.config)
        return self._all_logprobs(self._reference, batch, temperature)

    def train_step(
        self, batch: TrainBatch, algo: AlgoConfig, temperature: float, *, before_change: Callable[[], None] = _nothing
    ) -> TrainStats:
        """`algo.updates_per_step` optimizer steps on the batch, in micro-batches whose gradients add up to that of
        the whole.

        `temperature` is the one that the responses were sampled at. `before_change` is called between the two halves:
        the gradient of the first update is there, and the parameters are about to move.

        Raises:
            RunError: the gradient is not finite; the parameters are then those before that update.
        """
        self.begin_step(batch, algo, temperature)
        before_change()
        return self.finish_step()

    def begin_step(self, batch: TrainBatch, algo: AlgoConfig, temperature: float) -> None:
        """The first half of `train_step`: the gradient of the first update. No parameter moves, and a step that was
        begun before is forgotten."""
        if algo.kl_coef and batch.ref_logprobs_BT is None:
            batch = replace(batch, ref_logprobs_BT=self.reference_logprobs(batch, temperature))
        self._begun = BegunStep(batch, algo, temperature, self._gradient(batch, algo, temperature))

    def finish_step(self) -> TrainStats:
        """The second half: the first update, and those behind it."""
        assert self._begun is not None, "begin_step comes first"
        step, self._begun = self._begun, None
        self._optimizer.step()
        updates = [step.figures]
        for _ in range(step.algo.updates_per_step - 1):
            updates.append(self._gradient(step.batch, step.algo, step.temperature))
            self._optimizer.step()
        means = {name: sum(stats[name] for stats in updates) / len(updates) for name in updates[0]}
        return TrainStats(**means, tokens=self._tokens(step.batch))

    def export_weights(self) -> WeightExport:
        """Copies on the CPU in the form that a sampler takes: PEFT's names for an adapter, the model's own
        otherwise."""
        if isinstance(self.model, PeftModel):
            if self._adapter is None:
                tensors = get_peft_model_state_dict(self.model, save_embedding_layers=False)
                self._adapter = WeightExport(tensors, plain_adapter_config(self.model))
            return WeightExport(_copies(self._adapter.tensors), self._adapter.adapter_config)
        return WeightExport(_copies(self.model.state_dict(), DTYPES[self.config.dtype]), None)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what was trained: a PEFT adapter, or a whole model with its tokenizer that AutoModelForCausalLM
        reads."""
        with without_progress_bars():
            if isinstance(self.model, PeftModel):
                self.model.save_pretrained(str(folder), save_embedding_layers=False)
                (Path(folder) / "README.md").unlink(missing_ok=True)  # an empty form that nobody filled in
            else:
                self.model.save_pretrained(str(folder))
                AutoTokenizer.from_pretrained(self.folder).save_pretrained(str(folder))
        share_weights(Path(folder))

    def state_dict(self) -> dict[str, Any]:
        """Trained parameters and optimizer state as copies of plain tensors and numbers: all that a resumed run
        needs."""
        return {"parameters": _copies(self._trained), "optimizer": copy.deepcopy(self._optimizer.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state; the steps after it are bit for bit those that would have followed. CheckpointError if it
        does not fit."""
        saved, own = state["parameters"], self._trained
        shapes = ({name: tuple(tensor.shape) for name, tensor in part.items()} for part in (saved, own))
        theirs, ours = shapes
        if theirs != ours:
            odd = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
            raise CheckpointError(
                f"the checkpoint is of another model or adapter: {len(odd)} parameters differ in name "
                f"or shape, first {odd[0]} (saved: {theirs.get(odd[0])}, here: {ours.get(odd[0])})"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(saved[name])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def _gradient(self, batch: TrainBatch, algo: AlgoConfig, temperature: float) -> dict[str, float]:
        """The gradient of one update, bounded; returns the figures of TrainStats but the number of tokens."""
        how = {"constant_length": algo.constant_length}
        mask_BT, rows_B = batch.response_mask_BT, batch.weights_B
        total = self._summed(denominator(algo.aggregation, mask_BT, rows_B, **how))
        weights_BT = token_weights(algo.aggregation, mask_BT, rows_B, **how, total=total)
        self._optimizer.zero_grad(set_to_none=True)
        sums, cuts = torch.zeros(5), list(self._cuts(batch))
        for start, stop in cuts:
            part = batch.rows(start, stop).to(self.device)
            part_weights_BT = weights_BT[start:stop, : part.input_ids_BT.shape[1]].to(self.device)
            with self._parallel.local(self._training, last=stop == cuts[-1][1]):
                sums += self._backward(part, part_weights_BT, algo, temperature).cpu()
        grad_norm = self._clip()
        loss, *totals = self._summed(sums).tolist()
        tokens = max(1, self._tokens(batch))
        kl, kl_old, clip_fraction, entropy = (total / tokens for total in totals)
        return {
            "loss": loss,
            "grad_norm": grad_norm,
            "kl": kl,
            "kl_old": kl_old,
            "clip_fraction": clip_fraction,
            "entropy": entropy,
        }

    def _tokens(self, batch: TrainBatch) -> int:
        return int(self._summed(batch.live_BT.sum()))

    def _summed(self, tensor: Tensor) -> Tensor:
        return self._parallel.summed(tensor, self.device)

    def _backward(self, part: TrainBatch, weights_BT: Tensor, algo: AlgoConfig, temperature: float) -> Tensor:
        """Add the gradient of a micro-batch; returns its loss and the sums over live tokens of kl, kl_old, clipped,
        -logp."""
        logp_BT = self._logprobs(self._training, part, temperature)
        loss_BT, clipped_BT = clipped_loss(
            logp_BT, part.old_logprobs_BT, part.advantages_B, clip_low=algo.clip_low, clip_high=algo.clip_high
        )
        kl_BT = torch.zeros_like(logp_BT)
        if algo.kl_coef and part.ref_logprobs_BT is not None:
            kl_BT = k3_divergence(logp_BT, part.ref_logprobs_BT)
            loss_BT = loss_BT + algo.kl_coef * kl_BT
        loss = (weights_BT * loss_BT).sum()
        (loss * self._parallel.size).backward()  # type: ignore[no-untyped-call]  # of which DDP takes the mean
        with torch.no_grad():
            kl_old_BT = k3_divergence(logp_BT, part.old_logprobs_BT)
            figures = [kl_BT, kl_old_BT, clipped_BT.float(), -logp_BT]
            return torch.stack([loss, *((figure * part.live_BT).sum() for figure in figures)])

    def _clip(self) -> float:
        """Bound the gradient to `max_grad_norm` and return its norm before that."""
        bound = self.optim.max_grad_norm or torch.inf
        norm = float(nn.utils.clip_grad_norm_(self._trained.values(), bound))
        if not torch.isfinite(torch.tensor(norm)):
            self._optimizer.zero_grad(set_to_none=True)
            raise RunError(
                f"the gradient's norm is {norm}: training diverged before this update, which was not made; "
                f"lower optim.lr={self.optim.lr:g} and resume from the last checkpoint."
            )
        return norm

    def _cuts(self, batch: TrainBatch) -> Iterator[tuple[int, int]]:
        lengths = batch.attention_mask_BT.sum(1).tolist()
        return cut_rows(lengths, rows=self.optim.microbatch_rows, tokens=self.optim.tokens_per_microbatch)

    @torch.no_grad()
    def _all_logprobs(self, model: nn.Module, batch: TrainBatch, temperature: float) -> Tensor:
        out_BT = torch.zeros(batch.input_ids_BT.shape)
        for start, stop in self._cuts(batch):
            part = batch.rows(start, stop).to(self.device)
            out_BT[start:stop, : part.input_ids_BT.shape[1]] = self._logprobs(model, part, temperature).cpu()
        return out_BT

    def _logprobs(self, model: nn.Module, batch: TrainBatch, temperature: float) -> Tensor:
        """Log-probs [B, T] of the response tokens, 0 elsewhere. The output layer sees no column before the first
        response."""
        width = batch.input_ids_BT.shape[1]
        columns = torch.nonzero(batch.response_mask_BT.any(0))
        first = int(columns[0, 0]) if len(columns) else width
        kept = width - first + 1
        wanted = {"position_ids": batch.position_ids_BT, "logits_to_keep": kept}
        arguments = {name: value for name, value in wanted.items() if name in self._accepted}
        with self._precision():
            logits = model(
                input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, use_cache=False, **arguments
            ).logits
        # Not chosen - logsumexp, which rounds to the size of the logits: log_softmax rounds to that of the log-prob.
        logp_BRV = (logits[:, -kept:-1].float() / temperature).log_softmax(-1)
        chosen = logp_BRV.gather(2, batch.input_ids_BT[:, first:, None])[..., 0]
        return torch.where(batch.response_mask_BT > 0, nn.functional.pad(chosen, (first, 0)), 0.0)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """All weights are float32 masters; below float32 they are cast where they are used."""
        dtype = DTYPES[self.config.dtype]
        if self.config.lora.enabled or dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype)


def _copies(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True)
        for name, tensor in tensors.items()
    }
