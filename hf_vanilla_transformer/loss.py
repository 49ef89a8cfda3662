"""§5.4 label smoothing: the training loss, and the same fused with the pre-softmax projection of §3.4.

For a token with label y and p = softmax(z) over V words, the label is spread out to q_v = (1 - epsilon) [v = y] +
epsilon / V, and the loss is the cross-entropy of q and p:  (1 - epsilon) (-log p_y) + epsilon mean_v(-log p_v).
Its gradient with respect to the logits z is p - q.
"""

from typing import Any

import torch

IGNORED_LABEL = -100

# Tokens whose logits exist at one time, at most; and numbers in those logits, at most (256 MiB of float32). On a CPU
# the products are fastest with some hundred rows; other devices want all that memory allows.
_CHUNK_ROWS_ON_CPU = 512
_CHUNK_ELEMENTS = 2**26


def label_smoothed_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """§5.4, by the definition: sums the smoothed loss and the negative log-likelihood over the labels.

    Args:
        logits: (..., V) before the softmax.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted.
        epsilon: epsilon_ls, the share of the label that is spread over the whole vocabulary.

    Returns:
        The summed loss, to differentiate, and the summed unsmoothed -log p_y, detached; two scalars, in nats,
        float32 or more.
    """
    log_probs = torch.log_softmax(logits, dim=-1, dtype=_softmax_dtype(logits.dtype))
    is_label = labels.ne(IGNORED_LABEL)
    nll = -log_probs.gather(-1, labels.masked_fill(~is_label, 0).unsqueeze(-1)).squeeze(-1)
    loss = nll if epsilon == 0 else (1 - epsilon) * nll - epsilon * log_probs.mean(dim=-1)
    zero = nll.new_zeros(())
    return torch.where(is_label, loss, zero).sum(), torch.where(is_label, nll, zero).sum().detach()


def projected_label_smoothed_cross_entropy(
    hidden_states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """§3.4 and §5.4 in one: the loss of the logits `hidden_states` @ `weight`^T, which never exist all at once.

    Logits are made for some tokens at a time. As the loss is a scalar, the gradients can be made in the same pass, and
    the backward pass only scales them: three matrix products a token, as without fusing, and memory for one chunk of
    logits. Under autocast the products run in its type, the softmax in float32. A backward pass with
    `create_graph=True`, which is to be differentiated again, computes the gradients anew, with all logits at once.

    Args:
        hidden_states: (..., D) what the decoder puts out.
        weight: (V, D) the pre-softmax projection.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted. On a CPU these cost nothing,
            except in compiled graphs. Any other id outside the vocabulary is torch's error, not a loss.
        epsilon: epsilon_ls, the share of the label that is spread over the whole vocabulary.

    Returns:
        As `label_smoothed_cross_entropy`.
    """
    device_type = hidden_states.device.type
    autocast = torch.is_autocast_enabled(device_type)
    matmul_dtype = torch.get_autocast_dtype(device_type) if autocast else weight.dtype
    hidden_states, labels = hidden_states.flatten(0, -2), labels.flatten()
    # How many labels there are depends on the data: it is no shape for a graph, and an accelerator would be waited for.
    if device_type == "cpu" and not torch.compiler.is_compiling():
        is_label = labels.ne(IGNORED_LABEL).nonzero().squeeze(-1)
        if is_label.numel() < labels.numel():
            hidden_states, labels = hidden_states.index_select(0, is_label), labels.index_select(0, is_label)
    with torch.autocast(device_type, enabled=False):
        return _ProjectedLoss.apply(
            hidden_states, weight, labels, float(epsilon), matmul_dtype, torch.is_grad_enabled()
        )


class _ProjectedLoss(torch.autograd.Function):
    """Computes gradients next to the loss, while the logits of a chunk are there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        epsilon: float,
        matmul_dtype: torch.dtype,
        wants_gradients: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        (num_tokens, _), vocab_size = hidden_states.shape, weight.shape[0]
        inputs, projection = hidden_states.to(matmul_dtype), weight.to(matmul_dtype)
        softmax_dtype = _softmax_dtype(matmul_dtype)
        # The mean over the vocabulary of the logits is a product with the mean row: no pass over the logits.
        mean_weight = projection.mean(dim=0, dtype=softmax_dtype).unsqueeze(-1)  # (D, 1)
        smoothing = (epsilon * mean_weight).to(matmul_dtype).t()  # the share of every gradient that smoothing takes off
        nll = torch.zeros((), dtype=softmax_dtype, device=weight.device)
        uniform = torch.zeros_like(nll)  # summed mean_v(-log p_v)
        # The type of the sums over all tokens; a half-precision sum over thousands of tokens would lose the small ones.
        wants_hidden, wants_weight = (wants_gradients and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(inputs) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=softmax_dtype) if wants_weight else None

        rows = max(min(num_tokens, _CHUNK_ELEMENTS // vocab_size), 1)
        if weight.device.type == "cpu":
            rows = min(rows, _CHUNK_ROWS_ON_CPU)
        # Two buffers for all chunks: on a CPU, fresh memory of this size costs as much as filling it.
        logits_buffer = torch.empty(rows, vocab_size, dtype=matmul_dtype, device=weight.device)
        probs_buffer = torch.empty(rows, vocab_size, dtype=softmax_dtype, device=weight.device)
        for start in range(0, num_tokens, rows):
            chunk = slice(start, min(start + rows, num_tokens))
            size = chunk.stop - chunk.start
            logits = torch.mm(inputs[chunk], projection.t(), out=logits_buffer[:size])
            probs = torch.softmax(logits, dim=-1, dtype=softmax_dtype, out=probs_buffer[:size])
            # log sum exp, by the word of the largest logit, whose probability is no less than 1 / V: nothing is lost in
            # its logarithm, and the logarithms of all others are not needed.
            largest, its_prob = (each.amax(dim=-1, keepdim=True).to(softmax_dtype) for each in (logits, probs))
            log_normaliser = largest - its_prob.log()
            is_label = labels[chunk].ne(IGNORED_LABEL).unsqueeze(-1)
            label = labels[chunk].unsqueeze(-1).masked_fill(~is_label, 0)
            label_log_prob = logits.gather(-1, label) - log_normaliser
            mean_logit = inputs[chunk].to(softmax_dtype) @ mean_weight
            nll = nll - (label_log_prob * is_label).sum()
            uniform = uniform + ((log_normaliser - mean_logit) * is_label).sum()
            if grad_hidden is not None or grad_weight is not None:
                # p - q but for the epsilon / V that q has everywhere, which is taken off after the loop.
                grad_logits = probs.scatter_add_(-1, label, torch.full_like(label_log_prob, epsilon - 1))
                grad_logits = grad_logits.to(matmul_dtype)
                if grad_hidden is not None:
                    grad_hidden[chunk] = (grad_logits @ projection - smoothing) * is_label
                if grad_weight is not None and grad_weight.dtype == matmul_dtype:
                    grad_weight.addmm_(grad_logits.t(), inputs[chunk] * is_label)
                elif grad_weight is not None:
                    grad_weight += grad_logits.t() @ (inputs[chunk] * is_label)
        if grad_weight is not None:
            is_label = labels.ne(IGNORED_LABEL).unsqueeze(-1)
            grad_weight -= epsilon / vocab_size * (inputs * is_label).sum(dim=0, dtype=softmax_dtype)
        ctx.epsilon, ctx.matmul_dtype = epsilon, matmul_dtype
        ctx.save_for_backward(
            hidden_states,
            weight,
            labels,
            None if grad_hidden is None else grad_hidden.to(hidden_states.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
        )
        ctx.mark_non_differentiable(nll)
        return (1 - epsilon) * nll + epsilon * uniform, nll

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, grad_nll: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_states, weight, labels, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True, for which the saved gradients would be constants
            with torch.autocast(hidden_states.device.type, enabled=False):
                gradients = _differentiable_gradients(hidden_states, weight, labels, ctx.epsilon, ctx.matmul_dtype)
        scaled = (None if gradient is None else gradient * grad_loss.to(gradient.dtype) for gradient in gradients)
        return (*scaled, None, None, None, None)


def _differentiable_gradients(
    hidden_states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, epsilon: float, matmul_dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the summed loss, (p - q) W and (p - q)^T H, as functions of hidden states H and weight W."""
    inputs, projection = hidden_states.to(matmul_dtype), weight.to(matmul_dtype)
    is_label = labels.ne(IGNORED_LABEL).unsqueeze(-1)
    label = labels.unsqueeze(-1).masked_fill(~is_label, 0)
    p = torch.softmax(inputs @ projection.t(), dim=-1, dtype=_softmax_dtype(matmul_dtype))
    q = torch.full_like(p, epsilon / len(weight)).scatter_(-1, label, 1 - epsilon + epsilon / len(weight))
    grad_logits = ((p - q) * is_label).to(matmul_dtype)
    return (grad_logits @ projection).to(hidden_states.dtype), (grad_logits.t() @ inputs).to(weight.dtype)


def _softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
