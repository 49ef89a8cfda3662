"""What a run can learn besides to translate: which model learns it, what its loss is per, and what goes with it."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from ..data.noise.denoising import WITH_DENSITY, check_steps
from ..modeling_decoder_only import VanillaTransformerForCausalLM
from ..modeling_encoder_only import VanillaTransformerForMaskedLM
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration


@dataclass(frozen=True)
class Learner:
    """What learns an objective.

    Args:
        auto_class: loads a trained model of this kind.
        model_class: the class of a new one.
        unit: what losses are nats per.
        counted: what the speed of training counts.
        extra_tokens: tokens that an example has besides those of its text and `</s>`.
        config: fields of the configuration that the objective needs.
    """

    auto_class: Any = AutoModelForSeq2SeqLM
    model_class: type[Any] = VanillaTransformerForConditionalGeneration
    unit: str = "token"
    counted: str = "target tokens"
    extra_tokens: int = 0
    config: tuple[tuple[str, Any], ...] = ()

    @property
    def has_two_stacks(self) -> bool:
        """Whether there are an encoder and a decoder."""
        return self.auto_class is AutoModelForSeq2SeqLM


_DECODER: dict[str, Any] = {
    "auto_class": AutoModelForCausalLM,
    "model_class": VanillaTransformerForCausalLM,
    "extra_tokens": 1,
}

LEARNERS: dict[str, Learner] = {
    "translation": Learner(),
    "span_corruption": Learner(),
    "denoising": Learner(),
    "masked_lm": Learner(AutoModelForMaskedLM, VanillaTransformerForMaskedLM, "masked token", "masked tokens"),
    "causal_lm": Learner(**_DECODER, counted="tokens", config=(("prefix_visibility", "causal"),)),
    "prefix_lm": Learner(
        **_DECODER,
        unit="token after the prefix",
        counted="tokens after prefixes",
        config=(("prefix_visibility", "bidirectional"),),
    ),
}
# Objectives by what they need or take.
WITH_MASK = ("masked_lm", "denoising")
WITH_SPANS = ("span_corruption", "denoising")
WITH_NOISE = ("span_corruption", "masked_lm", "denoising")


def check_objective(args: Any, defaults: dict[str, Any]) -> None:
    """Refuses what has no place beside an objective, or no effect there.

    Args:
        args: the arguments of a run.
        defaults: the values of options that ask for nothing, by name.

    Raises:
        ValueError: an option is for another objective or for another kind of model.
    """
    name = args.objective
    learner = LEARNERS[name]
    if name != "translation":
        if args.bpe_dropout:
            raise ValueError(f"bpe_dropout is for translation; {name} learns from plain text, cut in one way")
        if args.max_length_ratio is not None:
            raise ValueError(f"max_length_ratio={args.max_length_ratio} is of pairs, and {name} has none; leave it out")
        for option in ("init_encoder_from", "init_decoder_from"):
            if getattr(args, option) is not None:
                raise ValueError(f"{option} begins a translation model; leave it out with objective={name}")
    if not learner.has_two_stacks:
        kind = learner.model_class.__name__
        if args.r_drop:
            raise ValueError(f"r_drop={args.r_drop} is for models with two stacks; {name} trains a {kind}")
        if args.distill_from:
            raise ValueError(
                f"distill_from={' '.join(args.distill_from)} is for models with two stacks; {name} trains a {kind}"
            )
        if args.lora_rank:
            raise ValueError(f"lora_rank={args.lora_rank} is for models with two stacks; {name} trains a {kind}")
        for option in ("gnmt_length_penalty", "generation_num_beams"):
            if (value := getattr(args, option)) not in (None, defaults[option]):
                raise ValueError(f"{option}={value} is for translations, of which {name} makes none; leave it out")
    if name == "denoising":
        check_steps(args.denoising_steps)
        said = f"denoising_steps={' '.join(args.denoising_steps)}"
        takes_share = set(args.denoising_steps) & set(WITH_DENSITY)
        for option, has_effect in (
            ("noise_density", takes_share),
            ("mean_span_length", "text_infilling" in args.denoising_steps),
        ):
            if not has_effect and getattr(args, option) != defaults[option]:
                raise ValueError(f"{option}={getattr(args, option)} has no effect with {said}; leave it out")
    if args.model_name_or_path is not None:
        for option in ("init_encoder_from", "init_decoder_from"):
            if getattr(args, option) is not None:
                raise ValueError(
                    f"{option} begins a new model, and model_name_or_path={args.model_name_or_path} is a trained one; "
                    "leave out one of them"
                )


__all__ = ["LEARNERS", "WITH_MASK", "WITH_NOISE", "WITH_SPANS", "Learner", "check_objective"]
