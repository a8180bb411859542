"""Inside vLLM's own processes: what takes new weights over into a running model."""

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file


class Reloading:
    """Methods that vLLM adds to its workers by this class's name (`worker_extension_cls`), called by theirs.

    A layer takes its weights when all of them have come, in whatever buckets: vLLM's own layerwise reloading.
    """

    if TYPE_CHECKING:  # of the worker that these are added to
        model_runner: Any
        model_config: Any
        vllm_config: Any

    def r2m_never_draw(self, ids: list[int]) -> None:
        """These tokens have no part in any distribution from here on."""
        model = self.model_runner.get_model()
        logits_of = model.compute_logits

        def without(*args: Any, **kwargs: Any) -> torch.Tensor | None:
            logits_BV: torch.Tensor | None = logits_of(*args, **kwargs)
            if logits_BV is not None:  # with tensor parallelism some workers get none
                logits_BV[:, ids] = -torch.inf
            return logits_BV

        model.compute_logits = without

    def r2m_begin_reload(self) -> None:
        from vllm.model_executor.model_loader.reload.layerwise import initialize_layerwise_reload

        self._r2m_loaded: set[str] = set()
        initialize_layerwise_reload(self.model_runner.get_model())

    @torch.no_grad()
    def r2m_load(self, bucket: str) -> None:
        """A safetensors file of some of the weights, by their Hugging Face names."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self.vllm_config):
            self._r2m_loaded |= self.model_runner.get_model().load_weights(load_file(bucket).items())

    @torch.no_grad()
    def r2m_end_reload(self) -> None:
        """Raises RuntimeError where a weight has not come: what is there is of before, or of nothing."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_reload

        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(model, self.model_config)
            tied = _repack_tied_output(model)
        missing = {name for name, _ in model.named_parameters()} - self._r2m_loaded - tied
        if missing:
            raise RuntimeError(f"{len(missing)} of vLLM's weights have not come, {min(missing)} among them")


def _repack_tied_output(model: Any) -> set[str]:
    """Names of an output layer that shares the embedding's weight. It has none of its own to come, so reloading never
    comes to it, and what vLLM packed for its CPU kernels from the weight that was is used on."""
    if not (hasattr(model, "lm_head") and model.config.tie_word_embeddings):
        return set()
    head, embedding = model.lm_head, model.model.embed_tokens
    head.weight = embedding.weight
    head.quant_method.process_weights_after_loading(head)
    return {"lm_head.weight"}
