"""The rules of the house that a machine can check."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

import hf_vanilla_transformer
from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerDecoderConfig,
    VanillaTransformerEncoderConfig,
    VanillaTransformerForCausalLM,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
)
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.publishing import save_self_contained

PACKAGE = Path(hf_vanilla_transformer.__file__).parent
PROJECT = PACKAGE.parent
ROOT_FILES = sorted(path for path in PACKAGE.glob("*.py") if path.name not in ("__init__.py", "__main__.py"))
ALL_FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((PROJECT / "scripts").glob("*.py"))
PAGES = [path for name in ("*.md", "scripts/*.md", "model_cards/**/*.md") for path in sorted(PROJECT.glob(name))]
PAGES += sorted(PACKAGE.rglob("*.md"))

# Who may import whom in the root: a module only those that stand before it.
LAYERS = [
    {"configuration_presets", "configuration_variants"},
    {"configuration_vanilla_transformer", "modeling_compatibility", "decoding_config", "decoding_cache"},
    {"configuration_decoder_only", "configuration_encoder_only"},
    {
        "embeddings",
        "attention",
        "attention_features",
        "dropout",
        "norms",
        "positions",
        "loss",
        "decoding_rules",
        "tokenization_ids",
    },
    {
        "positions_relative",
        "attention_patterns",
        "attention_linear",
        "tokenization_tags",
        "loss_distillation",
        "loss_r_drop",
        "decoding_beam_search",
        "modeling_outputs",
    },
    {
        "attention_linear_cross",
        "attention_relative",
        "modeling_pretrained",
        "translation_pieces",
        "tokenization_vanilla_transformer",
    },
    {"modeling_views", "decoding_projection", "decoding_self_check", "decoding_steps"},
    {"feed_forward", "decoding_sampling", "translation_scoring"},
    {"encoder", "modeling_loss"},
    {"encoder_heads", "decoder_stack"},
    {"decoder", "decoder_only", "source_inputs"},
    {"decoding_incremental"},
    {"decoding"},
    {"translation_batches"},
    {"translation_pipeline"},
    {"decoding_prompts"},
    {"modeling_vanilla_transformer", "modeling_encoder_only", "modeling_decoder_only"},
]


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def siblings(path):
    """The modules a file imports from its own folder."""
    return {node.module for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level == 1}


def identifier(path):
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", ROOT_FILES, ids=identifier)
def test_root_files_import_only_torch_transformers_huggingface_hub_and_siblings_by_name(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "the export is flat"
            assert node.level == 0 or (node.module and "." not in node.module), "only `from .name import x` is followed"
            imported = [node.module] if node.level == 0 else []
        else:
            continue
        for name in imported:
            top = name.split(".")[0]
            assert top in {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names, name


@pytest.mark.parametrize("path", ROOT_FILES, ids=identifier)
def test_the_text_scan_that_copies_remote_code_sees_what_python_sees(path):
    assert set(get_relative_imports(path)) == siblings(path)


def test_arrows_run_down():
    rank = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    assert {path.stem for path in ROOT_FILES} == set(rank)
    for path in ROOT_FILES:
        for name in siblings(path):
            assert rank[name] < rank[path.stem], f"{path.name} imports {name}"


def with_its_imports(name):
    """The names of the file of a module, and of those that transformers copies with it."""
    return {f"{name}.py", *(Path(path).name for path in get_relative_import_files(PACKAGE / f"{name}.py"))}


def test_exported_files_are_those_that_the_model_needs_and_together_those_of_the_root(tmp_path):
    config = VanillaTransformerConfig(vocab_size=9, d_model=4, num_heads=1, d_ff=4)
    encoder_config = VanillaTransformerEncoderConfig(vocab_size=9, d_model=4, num_heads=1, d_ff=4)
    decoder_config = VanillaTransformerDecoderConfig(vocab_size=9, d_model=4, num_heads=1, d_ff=4)
    families = {
        "modeling_vanilla_transformer": VanillaTransformerForConditionalGeneration(config),
        "modeling_encoder_only": VanillaTransformerForMaskedLM(encoder_config),
        "modeling_decoder_only": VanillaTransformerForCausalLM(decoder_config),
    }
    tagged, together = train_tokenizer(texts=["a"], vocab_size=261, tags=["<2de>"]), set()
    for name, model in families.items():
        needed = with_its_imports(name)
        save_self_contained(model, tmp_path / "plain" / name, train_tokenizer(texts=["a"], vocab_size=260))
        assert {path.name for path in (tmp_path / "plain" / name).glob("*.py")} == needed
        save_self_contained(model, tmp_path / "tagged" / name, tagged)
        needed |= with_its_imports("tokenization_vanilla_transformer")
        assert {path.name for path in (tmp_path / "tagged" / name).glob("*.py")} == needed
        together |= needed
    assert together == {path.name for path in ROOT_FILES}


def public_definitions(path):
    """Public functions and classes at the top of a file, and public methods of those classes."""
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", ALL_FILES + SCRIPTS, ids=identifier)
def test_everything_public_has_a_docstring(path):
    assert ast.get_docstring(tree(path)), "the module"
    for name, node in public_definitions(path):
        assert ast.get_docstring(node), name


@pytest.mark.parametrize("path", [path for path in ROOT_FILES if path.stem != "modeling_pretrained"], ids=identifier)
def test_root_files_name_their_place_in_the_paper(path):
    assert re.match(r".*(§\d|Figure 1)", ast.get_docstring(tree(path)).splitlines()[0])


def names_used(path):
    """What the code of a file loads, looks up or imports. Definitions and `__all__` are no use of a name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def test_no_public_name_is_dead():
    """Whatever is defined for others is used by code, or is exported by a package for its users."""
    files = [*ALL_FILES, *SCRIPTS, *sorted((PROJECT / "tests").glob("*.py"))]
    used = {name for path in files for name in names_used(path)}
    for path in ALL_FILES:
        for name, _ in public_definitions(path):
            assert "." in name or name in used, f"{identifier(path)}: {name} is used nowhere"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=identifier)
def test_what_a_package_exports_exists_and_is_sorted(path):
    module = __import__(".".join(path.parent.relative_to(PROJECT).parts), fromlist=["*"])
    names = getattr(module, "__all__", [])
    assert names == sorted(names)
    for name in names:
        assert hasattr(module, name), name


def test_files_stay_small_enough_to_read():
    for path in ALL_FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, identifier(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=identifier)
def test_scripts_are_thin(path):
    """Arguments, one call, a summary: no classes, and no function longer than a screen or so."""
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.ClassDef)
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_the_top_level_stays_as_it_is():
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = {Path(line).parts[0] for line in listed.stdout.splitlines()}
    allowed = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "hf_vanilla_transformer", "scripts", "tests"}
    allowed |= {"CITATION.cff"}  # which hosts of repositories read at the top level only
    assert {name for name in names if not name.startswith(".")} - {"model_cards"} == allowed


def prose(text: str) -> str:
    """Text of Markdown without its blocks of code, where a # is no heading and brackets are no link."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def headings(path: Path) -> set[str]:
    """What a link may name after its #, as GitHub and the Hub spell it."""
    titles = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    words = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_of_it(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if link.startswith(("http:", "https:")):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link
