"""What a release is scored on: a text that the tokenizer cannot read as it is meant is refused."""

import pytest
from test_pair_scores import build

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.evaluation import EvaluationSet
from hf_vanilla_transformer.publishing.release_scores import translate_texts


@pytest.mark.parametrize(
    ("tag", "own", "said"),
    [
        ("2fr", None, "'<2fr>' is not a tag of this tokenizer; it knows <up>"),
        ("up", "<up>", "puts <up> before every source"),
    ],
)
def test_a_text_whose_tag_is_unknown_or_would_stand_twice_is_refused(tag, own, said):
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262, tags=["<up>"])
    tokenizer.tag = own
    plain = EvaluationSet("plain", ["a b"], [["c"]])
    tagged = EvaluationSet("tagged", [f"<{tag}> a b"], [["c"]], tag=tag)
    model = build(tokenizer).eval()
    assert len(translate_texts(model, tokenizer, {"test": [plain]}, 100)["test"][0]) == 1
    with pytest.raises(ValueError, match=said):
        translate_texts(model, tokenizer, {"test": [plain, tagged]}, 100)
