"""§5.4 label smoothing: the training loss, alone and fused with the pre-softmax projection of §3.4.

For a token with label y and p = softmax(z) over V words, the smoothed label is q_v = (1 - epsilon) [v = y] +
epsilon / V, and the loss is the cross-entropy of q and p:  (1 - epsilon) (-log p_y) + epsilon mean_v(-log p_v).
Its gradient with respect to the logits z is p - q.

With R-Drop (`loss_r_drop.py`), each token occurs twice, with two dropout masks, and the fused loss includes the
divergence of the two predictions p and p'. With d = log p - log p', the gradient of alpha (KL(p || p') + KL(p' || p))
with respect to z is alpha (p (d - KL(p || p')) + p - p').

With teachers (`loss_distillation.py`), whose mean prediction is t, q becomes (1 - share) q + share t.
"""

from typing import Any

import torch

IGNORED_LABEL = -100

# Limits of one chunk of logits: its rows on a CPU, and its elements on all devices (256 MiB of float32). On a CPU,
# products are fastest with a few hundred rows; on other devices, with as many as memory allows.
_CHUNK_ROWS_ON_CPU = 512
_CHUNK_ELEMENTS = 2**26
# What is not a product passes several times over the same logits: on a CPU over as many at a time, for each thread, as
# stay in its cache (1 MiB of float32).
_BLOCK_ELEMENTS_ON_CPU = 2**18


def label_smoothed_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """§5.4 by definition: sums the smoothed loss and the negative log-likelihood over the labels.

    Args:
        logits: (..., V) before the softmax.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted.
        epsilon: epsilon_ls, the share of the label that is spread over the whole vocabulary.

    Returns:
        The summed loss, with a gradient, and the summed unsmoothed -log p_y, detached: two scalars in nats, float32 or
        float64.
    """
    log_probs = torch.log_softmax(logits, dim=-1, dtype=_softmax_dtype(logits.dtype))
    is_label = labels.ne(IGNORED_LABEL)
    nll = -log_probs.gather(-1, labels.masked_fill(~is_label, 0).unsqueeze(-1)).squeeze(-1)
    loss = nll if epsilon == 0 else (1 - epsilon) * nll - epsilon * log_probs.mean(dim=-1)
    zero = nll.new_zeros(())
    return torch.where(is_label, loss, zero).sum(), torch.where(is_label, nll, zero).sum().detach()


def projected_label_smoothed_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    r_drop: float = 0.0,
    teachers: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """§3.4 and §5.4 fused: the loss of the logits `hidden_states` @ `weight`^T, which are computed in chunks.

    Because the loss is a scalar, the forward pass also computes the gradients of each chunk, and the backward pass only
    scales them. This takes three matrix products per token, as without fusing, and memory for one chunk of logits.
    Under autocast the products run in its type, the softmax in float32. A backward pass with `create_graph=True`,
    which can be differentiated again, recomputes the gradients with all logits at once.

    Args:
        hidden_states: (..., D) the decoder's output.
        weight: (V, D) the pre-softmax projection.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted. On a CPU these cost nothing,
            except in compiled graphs. For any other id outside the vocabulary, torch raises an error.
        epsilon: epsilon_ls, the share of the label that is spread over the whole vocabulary.
        r_drop: alpha of R-Drop. Unless it is 0, the second half of the first axis repeats the first half, with the same
            labels and another dropout mask, and 2 alpha times their `r_drop_divergence` is added to the loss.
        teachers: `Teachers` of the batch, with hidden states (..., D') like `hidden_states`, or like their first half
            with `r_drop`; their share of the loss is learned from them.

    Returns:
        As `label_smoothed_cross_entropy`.

    Raises:
        ValueError: `r_drop` is not 0, and the two halves of the labels differ.
    """
    device_type = hidden_states.device.type
    # Comparing labels on another device would wait for that device, and a compiled graph cannot compare them.
    is_looked_at = device_type == "cpu" and not torch.compiler.is_compiling()
    if r_drop and (len(labels) % 2 or (is_looked_at and not labels.chunk(2)[0].equal(labels.chunk(2)[1]))):
        raise ValueError(
            f"with r_drop={r_drop}, the second half of the batch repeats the first; labels of shape "
            f"{tuple(labels.shape)} do not"
        )
    autocast = torch.is_autocast_enabled(device_type)
    matmul_dtype = torch.get_autocast_dtype(device_type) if autocast else weight.dtype
    hidden_states, labels = hidden_states.flatten(0, -2), labels.flatten()
    teachers = None if teachers is None else teachers.flat()
    # The number of labels depends on the data, so a graph cannot use it, and reading it waits for an accelerator.
    if is_looked_at:
        is_label = labels.ne(IGNORED_LABEL).nonzero().squeeze(-1)
        if is_label.numel() < labels.numel():
            hidden_states, labels = hidden_states.index_select(0, is_label), labels.index_select(0, is_label)
            if teachers is not None:
                teachers = teachers.at(is_label[: len(is_label) // 2] if r_drop else is_label)
    with torch.autocast(device_type, enabled=False):
        return _ProjectedLoss.apply(
            hidden_states,
            weight,
            labels,
            float(epsilon),
            float(r_drop),
            teachers,
            matmul_dtype,
            torch.is_grad_enabled(),
        )


class _ProjectedLoss(torch.autograd.Function):
    """Computes the gradients with the loss, while a chunk of logits is in memory."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        epsilon: float,
        r_drop: float,
        teachers: Any,
        matmul_dtype: torch.dtype,
        wants_gradients: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        vocab_size, d_model = weight.shape
        passes = 2 if r_drop else 1  # how often each token occurs
        inputs, projection = hidden_states.to(matmul_dtype).view(passes, -1, d_model), weight.to(matmul_dtype)
        num_tokens = inputs.shape[1]
        labels_of_passes = labels.view(passes, -1)
        softmax_dtype = _softmax_dtype(matmul_dtype)
        of_labels = 1.0 if teachers is None else 1 - teachers.share  # the share of the loss that labels have
        # The mean logit is the product with the mean row of the matrix, without a pass over the logits.
        mean_weight = projection.mean(dim=0, dtype=softmax_dtype).unsqueeze(-1)  # (D, 1)
        # Smoothing subtracts this from every gradient.
        smoothing = (of_labels * epsilon * mean_weight).to(matmul_dtype).t()
        nll = torch.zeros((), dtype=softmax_dtype, device=weight.device)
        uniform = torch.zeros_like(nll)  # summed mean_v(-log p_v)
        divergence = torch.zeros_like(nll)  # summed KL(p || p') + KL(p' || p)
        taught = torch.zeros_like(nll)  # summed cross-entropy with the teachers' predictions
        # The weight's gradient sums over all tokens in `softmax_dtype`: half precision would lose small terms.
        wants_hidden, wants_weight = (wants_gradients and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(inputs) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=softmax_dtype) if wants_weight else None

        rows = max(min(num_tokens, _CHUNK_ELEMENTS // (passes * vocab_size)), 1)
        if weight.device.type == "cpu":
            rows = min(rows, max(_CHUNK_ROWS_ON_CPU // passes, 1))
        block_rows = rows
        if weight.device.type == "cpu" and not torch.compiler.is_compiling():
            in_caches = _BLOCK_ELEMENTS_ON_CPU * torch.get_num_threads() // (passes * vocab_size)
            block_rows = min(rows, max(in_caches, 1))
        # All chunks share two buffers: on a CPU, fresh memory of this size costs as much as filling it.
        logits_buffer = torch.empty(passes * rows, vocab_size, dtype=matmul_dtype, device=weight.device)
        probs_buffer = torch.empty(passes * block_rows, vocab_size, dtype=softmax_dtype, device=weight.device)
        for start in range(0, num_tokens, rows):
            chunk = slice(start, min(start + rows, num_tokens))
            chunk_inputs = inputs[:, chunk].flatten(0, 1)
            chunk_labels = labels_of_passes[:, chunk].unsqueeze(-1)  # (passes, rows, 1)
            size = chunk_labels.shape[1]
            chunk_logits = torch.mm(chunk_inputs, projection.t(), out=logits_buffer[: passes * size])
            mean_logits = (chunk_inputs.to(softmax_dtype) @ mean_weight).view(passes, size, 1)
            predictions = None if teachers is None else teachers.at(chunk).probabilities(matmul_dtype)
            for first in range(0, size, block_rows):
                block = slice(first, min(first + block_rows, size))
                logits = chunk_logits.view(passes, size, vocab_size)[:, block]
                probs = probs_buffer[: passes * logits.shape[1]].view(logits.shape)
                # A CPU's softmax would convert them for itself; they are read again.
                exact = logits.to(softmax_dtype) if weight.device.type == "cpu" else logits
                probs = torch.softmax(exact, dim=-1, dtype=softmax_dtype, out=probs)
                # log sum exp z is z_max - log p_max. This is accurate, because p_max is at least 1 / V, and needs no
                # other logarithm.
                largest, its_prob = (each.amax(dim=-1, keepdim=True).to(softmax_dtype) for each in (exact, probs))
                log_normaliser = largest - its_prob.log()
                is_label = chunk_labels[:, block].ne(IGNORED_LABEL)
                label = chunk_labels[:, block].masked_fill(~is_label, 0)
                label_log_prob = exact.gather(-1, label) - log_normaliser
                nll = nll - (label_log_prob * is_label).sum()
                uniform = uniform + ((log_normaliser - mean_logits[:, block]) * is_label).sum()
                if predictions is not None:
                    predicted = predictions[block]
                    mean_logit = torch.linalg.vecdot(predicted, exact.to(softmax_dtype)).unsqueeze(-1)
                    taught = taught + ((log_normaliser - mean_logit) * is_label).sum()
                if r_drop:
                    divergences = _diverge(exact, probs, log_normaliser, r_drop)
                    divergence = divergence + (divergences * is_label[:1]).sum()
                if grad_hidden is not None or grad_weight is not None:
                    # p - q, except for the constant epsilon / V of q, which is subtracted below.
                    probs.scatter_add_(-1, label, torch.full_like(label_log_prob, of_labels * (epsilon - 1)))
                    if predictions is not None:
                        probs.sub_(predicted, alpha=teachers.share)
                    logits.copy_(probs)  # which are no longer needed
            # From here on, `chunk_logits` are the gradients.
            is_label = chunk_labels.ne(IGNORED_LABEL)
            if grad_hidden is not None:
                chunk_gradient = (chunk_logits @ projection - smoothing).view(passes, size, d_model)
                grad_hidden[:, chunk] = chunk_gradient * is_label
            if grad_weight is not None:
                labelled_inputs = chunk_inputs * is_label.flatten(0, 1)
                if grad_weight.dtype == matmul_dtype:
                    grad_weight.addmm_(chunk_logits.t(), labelled_inputs)
                else:
                    grad_weight += chunk_logits.t() @ labelled_inputs
        if grad_weight is not None:
            is_label = labels.ne(IGNORED_LABEL).unsqueeze(-1)
            every_input = inputs.flatten(0, 1) * is_label
            grad_weight -= of_labels * epsilon / vocab_size * every_input.sum(dim=0, dtype=softmax_dtype)
        ctx.epsilon, ctx.r_drop, ctx.teachers, ctx.matmul_dtype = epsilon, r_drop, teachers, matmul_dtype
        ctx.save_for_backward(
            hidden_states,
            weight,
            labels,
            None if grad_hidden is None else grad_hidden.flatten(0, 1).to(hidden_states.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
        )
        ctx.mark_non_differentiable(nll)
        loss = of_labels * ((1 - epsilon) * nll + epsilon * uniform) + r_drop * divergence
        return loss if teachers is None else loss + teachers.share * taught, nll

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, grad_nll: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_states, weight, labels, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the saved gradients would be constants
            with torch.autocast(hidden_states.device.type, enabled=False):
                gradients = _differentiable_gradients(
                    hidden_states, weight, labels, ctx.epsilon, ctx.r_drop, ctx.teachers, ctx.matmul_dtype
                )
        scaled = (None if gradient is None else gradient * grad_loss.to(gradient.dtype) for gradient in gradients)
        return (*scaled, None, None, None, None, None, None)


def _diverge(logits: torch.Tensor, probs: torch.Tensor, log_normaliser: torch.Tensor, r_drop: float) -> torch.Tensor:
    """R-Drop for logits whose second half repeats the first: adds the divergence's gradient to `probs` in place.

    Args:
        logits: (2, N, V); may be overwritten.
        probs: (2, N, V) p and p'; on return, plus the gradient of `r_drop` times the divergence.
        log_normaliser: (2, N, 1) log sum exp of the logits.
        r_drop: alpha.

    Returns:
        (1, N, 1) KL(p || p') + KL(p' || p).
    """
    (logits_1, logits_2), (p_1, p_2) = logits.chunk(2), probs.chunk(2)
    shift_1, shift_2 = log_normaliser.chunk(2)
    log_ratio = logits_1.to(probs.dtype).sub_(logits_2).sub_(shift_1 - shift_2)  # log p - log p'
    kl_1 = torch.linalg.vecdot(p_1, log_ratio).unsqueeze(-1)
    kl_2 = -torch.linalg.vecdot(p_2, log_ratio).unsqueeze(-1)
    # p (1 + alpha (1 + log_ratio - KL)) - alpha p', and the same for p'.
    unlike = p_1.clone()
    log_ratio.mul_(r_drop)
    p_1.mul_((1 + r_drop * (1 - kl_1)) + log_ratio).sub_(p_2, alpha=r_drop)
    p_2.mul_((1 + r_drop * (1 - kl_2)) - log_ratio).sub_(unlike, alpha=r_drop)
    return kl_1 + kl_2


def _differentiable_gradients(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    r_drop: float,
    teachers: Any,
    matmul_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the summed loss, G W and G^T H, as functions of hidden states H and weight W.

    G is p - q, plus the gradient of R-Drop given at the top of this file.
    """
    inputs, projection = hidden_states.to(matmul_dtype), weight.to(matmul_dtype)
    is_label = labels.ne(IGNORED_LABEL).unsqueeze(-1)
    label = labels.unsqueeze(-1).masked_fill(~is_label, 0)
    log_p = torch.log_softmax(inputs @ projection.t(), dim=-1, dtype=_softmax_dtype(matmul_dtype))
    p = log_p.exp()
    q = torch.full_like(p, epsilon / len(weight)).scatter_(-1, label, 1 - epsilon + epsilon / len(weight))
    if teachers is not None:
        predicted = teachers.probabilities(matmul_dtype).repeat(2 if r_drop else 1, 1)
        q = (1 - teachers.share) * q + teachers.share * predicted
    gradient = p - q
    if r_drop:
        log_ratio = log_p - log_p.roll(len(p) // 2, 0)  # to the same token in the other half
        kl = (p * log_ratio).sum(dim=-1, keepdim=True)
        gradient = gradient + r_drop * (p * (log_ratio - kl) + p - p.roll(len(p) // 2, 0))
    grad_logits = (gradient * is_label).to(matmul_dtype)
    return (grad_logits @ projection).to(hidden_states.dtype), (grad_logits.t() @ inputs).to(weight.dtype)


def _softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
