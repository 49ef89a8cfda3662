"""What a record of a search holds, and how it is written; how it is made: test_search_tree.py."""

import json

from hf_vanilla_transformer.demo import SearchHypothesis, SearchNode, SearchRecord

NODES = (
    SearchNode(0, None, 0, "<s>", 0, 0.0, 0.0, "forced", False, ((7, "a", 2 / 3), (8, "b", 1 / 3))),
    SearchNode(1, 0, 1, "a", 7, -0.40546510810816, -0.40546510810816, "open", False, ()),
    SearchNode(2, 0, 1, "b", 8, -1.09861228866811, -1.09861228866811, "pruned", False, ()),
    SearchNode(3, 1, 2, "</s>", 2, -0.5, -0.90546510810816, "finished", True, ()),
)
BEST = SearchHypothesis(3, (7, 2), ("a", "</s>"), "a", -0.90546510810816, 2, -0.84, 1, 1)
RECORD = SearchRecord("é", ("é", "</s>"), 0, 0.0, {"num_beams": 1}, NODES, (BEST,))


def test_the_tokens_of_a_node_are_those_of_its_path_without_the_start():
    assert [RECORD.token_ids_of(node.id) for node in NODES] == [(), (7,), (8,), (7, 2)]


def test_as_json_every_field_is_there_and_numbers_have_six_digits():
    written = json.loads(json.dumps(RECORD.as_dict()))
    assert written["nodes"][0]["next"] == [[7, "a", 0.666667], [8, "b", 0.333333]]
    assert (written["nodes"][0]["parent"], written["nodes"][3]["parent"]) == (None, 1)
    assert written["nodes"][1]["log_prob"] == -0.405465
    assert written["hypotheses"] == [
        {
            "node": 3,
            "token_ids": [7, 2],
            "tokens": ["a", "</s>"],
            "text": "a",
            "log_prob": -0.905465,
            "length": 2,
            "score": -0.84,
            "rank": 1,
            "rank_without_penalty": 1,
        }
    ]
    assert (written["text"], written["source_tokens"], written["settings"]) == ("é", ["é", "</s>"], {"num_beams": 1})
