"""What a search goes by besides the model: which processors can raise log-probabilities, and what is recorded."""

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation import MaxLengthCriteria, StoppingCriteriaList, logits_process

from hf_vanilla_transformer import decoding_rules
from hf_vanilla_transformer.decoding_rules import DecodingRules

EOS, V = 2, 12
IDS = torch.tensor([[0, 5, 6, 5, 6], [0, 7, 7, 7, 8]])
SOURCE = torch.tensor([[5, 6, 2], [9, 7, 2]])

# One of each kind that is said never to raise, with a setting that changes something where there is one.
PROCESSORS = [
    logits_process.MinLengthLogitsProcessor(9, EOS),
    logits_process.MinNewTokensLengthLogitsProcessor(1, 9, EOS),
    logits_process.TemperatureLogitsWarper(0.3),
    logits_process.RepetitionPenaltyLogitsProcessor(0.2),
    logits_process.EncoderRepetitionPenaltyLogitsProcessor(3.0, SOURCE),
    logits_process.TopPLogitsWarper(0.5),
    logits_process.TopKLogitsWarper(3),
    logits_process.MinPLogitsWarper(0.5),
    logits_process.TypicalLogitsWarper(0.5),
    logits_process.EpsilonLogitsWarper(0.1),
    logits_process.EtaLogitsWarper(0.1),
    logits_process.NoRepeatNGramLogitsProcessor(2),
    logits_process.EncoderNoRepeatNGramLogitsProcessor(2, SOURCE),
    logits_process.NoBadWordsLogitsProcessor([[5], [6, 7]], EOS),
    logits_process.PrefixConstrainedLogitsProcessor(lambda row, ids: [3, 4], 1),
    logits_process.ForcedBOSTokenLogitsProcessor(3),
    logits_process.ForcedEOSTokenLogitsProcessor(6, EOS),
    logits_process.SuppressTokensLogitsProcessor([4]),
    logits_process.SuppressTokensAtBeginLogitsProcessor([4], 5),
    logits_process.LogitNormalization(),
]


class Unknown(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores


def rules(processors=(), criteria=(), log_softmax=True, **fields):
    config = GenerationConfig(**fields)
    config._eos_token_tensor, config._pad_token_tensor = torch.tensor([EOS]), None
    limits = torch.tensor([9, 9])
    return DecodingRules(
        config, limits, LogitsProcessorList(processors), StoppingCriteriaList(criteria), log_softmax=log_softmax
    )


def test_every_kind_that_is_said_never_to_raise_is_looked_at_here():
    assert {type(each) for each in PROCESSORS} == set(decoding_rules._NEVER_RAISE)


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: type(processor).__name__)
def test_log_probabilities_stay_at_most_0(processor):
    assert not rules([processor]).may_raise_log_probs
    for seed in range(20):
        torch.manual_seed(seed)
        log_probs = (torch.randn(2, V) * 3).log_softmax(-1)
        assert processor(IDS, log_probs.clone()).max() <= 0


@pytest.mark.parametrize(
    ("processor", "may"),
    [
        (logits_process.SequenceBiasLogitsProcessor([[[5], -1.0], [[6, 7], 0.0]]), False),
        (logits_process.SequenceBiasLogitsProcessor([[[5], -1.0], [[6, 7], 0.5]]), True),
        (Unknown(), True),
        (type("Mine", (logits_process.TopKLogitsWarper,), {})(3), True),
    ],
)
def test_what_adds_a_bias_or_is_not_known_may_raise_them(processor, may):
    assert rules([PROCESSORS[0], processor]).may_raise_log_probs == may


@pytest.mark.parametrize("log_softmax", [True, False])
def test_what_was_asked_for_is_recorded_and_the_logits_are_left_alone(log_softmax):
    everything = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    asked = rules([PROCESSORS[6]], log_softmax=log_softmax, **everything)
    logits = torch.randn(2, V)
    before = logits.clone()
    first, second = asked.process(IDS, logits), asked.process(IDS, logits)
    assert torch.equal(logits, before)
    expected = PROCESSORS[6](IDS, logits.log_softmax(-1) if log_softmax else logits.clone())
    assert torch.equal(first, expected)
    recorded = asked.recorded
    assert [len(recorded[name]) for name in ("scores", "logits")] == [2, 2]
    assert recorded["scores"][1] is second
    logits.zero_()
    assert torch.equal(recorded["logits"][0], before)
    assert rules(output_scores=True).recorded == {"scores": None, "logits": None}  # without return_dict


def test_rows_are_looked_at_alone_unless_something_looks_at_all():
    assert rules().look_at_each_row_alone
    assert rules(criteria=[MaxLengthCriteria(9)]).look_at_each_row_alone  # the limits say so already
    assert not rules(do_sample=True).look_at_each_row_alone
    assert not rules([Unknown()]).look_at_each_row_alone
    assert not rules(return_dict_in_generate=True, output_scores=True).look_at_each_row_alone
    assert not rules(criteria=[lambda ids, scores: torch.zeros(len(ids), dtype=torch.bool)]).look_at_each_row_alone


def test_criteria_see_ids_and_recorded_scores():
    seen = []

    def criterion(ids, scores, **kwargs):
        seen.append(scores)
        return ids[:, -1] == 6

    asked = rules(criteria=[criterion], return_dict_in_generate=True, output_scores=True)
    asked.process(IDS, torch.randn(2, V))
    assert asked.end(IDS).tolist() == [True, False]
    assert len(seen[0]) == 1
    assert rules(criteria=[MaxLengthCriteria(1)]).end(IDS) is None


def test_special_tokens_are_those_of_the_prepared_config():
    assert (rules().eos_token_ids, rules().padding_id) == ([EOS], EOS)
