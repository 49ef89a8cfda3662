"""What a page shows of a model while it decodes: its search as a tree (§6.1), its attention, its positions (§3.5).

What is exported here is data without a user interface: three functions, whose records a program turns into JSON by
`as_dict()`. The keys and values of that JSON are in the docstrings of `search_record`, `search_attention` and
`positions_of`. The page that shows them is in the folder `page`; `server` serves it (extra `demo`), and `page_model`
answers it.
"""

from .search_attention import AttentionRecord, attention_of, positions_of
from .search_record import SearchHypothesis, SearchNode, SearchRecord
from .search_tree import record_search

__all__ = [
    "AttentionRecord",
    "SearchHypothesis",
    "SearchNode",
    "SearchRecord",
    "attention_of",
    "positions_of",
    "record_search",
]
