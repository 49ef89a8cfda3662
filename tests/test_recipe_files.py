"""The recipes: all of them load, explain every key and train; those of the paper's runs say what the paper says."""

import re
from pathlib import Path

import pytest
import yaml

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.commands import evaluate
from hf_vanilla_transformer.data.corpora import Corpus
from hf_vanilla_transformer.training import parse_arguments, pretrain, read_recipe, refused_options
from hf_vanilla_transformer.training.config_overrides import parse_overrides
from hf_vanilla_transformer.training.model_setup import model_class
from hf_vanilla_transformer.training.schedule import peak_learning_rate

RECIPES = sorted((Path(__file__).resolve().parents[1] / "hf_vanilla_transformer" / "recipes").glob("*.yaml"))
PAPER = [path for path in RECIPES if path.stem.startswith("wmt14-")]
BIG = [path for path in PAPER if path.stem.endswith("-big")]
# Recipes that differ from another in size or text only.
ALIKE = {"wmt14-en-de-big", "wmt14-en-fr-base", "wmt14-en-fr-big", "multi30k-en-fr-tiny", "iwslt14-de-en"}
SENTENCES = [
    "a red dog runs",
    "the blue cat sits",
    "two green birds",
    "a dog and a cat",
    "birds run",
    "the red bird sits",
]


def stem(path):
    return path.stem


def load(path):
    return parse_arguments([str(path), "--use_cpu", "true"])


def config_of(args):
    return model_class(args.model_class, args.objective).config_class.from_preset(
        args.preset, vocab_size=args.vocab_size, **parse_overrides(args.config_overrides)
    )


def test_the_recipes_are_those_that_are_promised():
    assert [path.stem for path in RECIPES] == [
        "g2p-15-languages",
        "iwslt14-de-en",
        "multi30k-causal-lm-tiny",
        "multi30k-denoising-tiny",
        "multi30k-en-de-tiny",
        "multi30k-en-fr-tiny",
        "multi30k-masked-lm-tiny",
        "multi30k-prefix-lm-tiny",
        "quickstart",
        "wmt14-en-de-base",
        "wmt14-en-de-big",
        "wmt14-en-fr-base",
        "wmt14-en-fr-big",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_every_key_has_a_comment_beside_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# "), "what it is for"
    for number, line in enumerate(lines, start=1):
        assert len(line) <= 120, f"line {number}"
        if line and not line.startswith("#"):
            assert re.search(r"\s# \S", line), f"line {number}: {line}"


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_a_recipe_names_real_options_and_does_not_contradict_itself(path):
    args, values = load(path), read_recipe(path)
    for corpus in [*args.train_data, *args.validation_data]:
        Corpus.parse(corpus)
    assert parse_overrides(args.config_overrides) == values.get("config_overrides", {})
    config = config_of(args)
    for field, value in parse_overrides(args.config_overrides).items():
        assert getattr(config, field) == value
        assert hasattr(VanillaTransformerConfig(), field), f"{field} is no field of the config"
    if args.max_steps > 0:  # else it is epochs that count
        assert args.save_steps <= args.max_steps // args.average_last
        assert args.eval_steps <= args.max_steps
        assert args.warmup_steps < args.max_steps
    assert path.stem == Path(args.output_dir).name
    verb = "" if path.stem == "quickstart" else "pretrain "
    text = path.read_text(encoding="utf-8")
    assert re.search(rf"^#.* `?(vanilla-transformer|-m hf_vanilla_transformer) {verb}{path.stem}\b", text, re.MULTILINE)
    assert "scripts/" not in text, "who has the package only has no scripts"


@pytest.mark.parametrize(
    "path",
    # Those that differ in size or text only, 2 seconds each.
    [pytest.param(path, marks=pytest.mark.slow if stem(path) in ALIKE else ()) for path in RECIPES],
    ids=stem,
)
def test_a_recipe_shrunk_takes_two_updates(path, tmp_path):
    names = [tmp_path / "text.source", tmp_path / "text.target"]
    names[0].write_text("\n".join(SENTENCES) + "\n")
    names[1].write_text("\n".join(sentence.upper() for sentence in SENTENCES) + "\n")
    args = load(path)
    data = f"source={names[0]},target={names[1]}" if args.objective == "translation" else str(names[0])
    flags = {"train_data": data, "vocab_size": 300, "max_tokens": 16, "max_steps": 2, "max_length": 40}
    flags |= {"output_dir": tmp_path / "run", "data_cache_dir": tmp_path / "cache", "disable_tqdm": "true"}
    flags |= {"logging_steps": 1, "use_cpu": "true"}
    if args.validation_data:
        flags["validation_data"] = data
    if args.eval_strategy == "steps":
        flags["eval_steps"] = 2
    if args.save_strategy == "steps":
        flags["save_steps"] = 1
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    shape = {"num_encoder_layers": 1, "num_decoder_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 32}
    none_of = {each for each in shape if each in config_of(args).fixed_fields}
    overrides = parse_overrides(args.config_overrides) | {k: v for k, v in shape.items() if k not in none_of}
    words += ["--config_overrides", *(f"{name}={value}" for name, value in overrides.items())]
    shrunk = parse_arguments([str(path), *words])
    result = pretrain(shrunk)
    assert result.metrics["updates"] == 2
    assert [entry["step"] for entry in result.history if "loss" in entry] == [1, 2]
    if shrunk.final_weights == "average":
        assert "average of 2 checkpoints" in result.metrics["final_weights"]  # kept, or found to be worse
    scores = args.validation_metrics if args.objective == "translation" else ("loss", "perplexity")
    for metric in scores if args.validation_data else ():
        assert f"final_{metric}" in result.metrics
    assert (tmp_path / "run" / "model.safetensors").exists()
    for field in ("dropout", "norm_position", "label_smoothing"):
        assert getattr(result.model.config, field) == getattr(config_of(args), field)


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_section_5_1_vocabulary_data_and_25000_tokens_a_batch_over_eight_gpus(path):
    args = load(path)
    target = "de" if "en-de" in path.stem else "fr"
    assert args.vocab_size == {"de": 37_000, "fr": 32_000}[target]
    assert (args.source_lang, args.target_lang) == ("en", target)
    (train,), (validation,) = args.train_data, args.validation_data
    assert train == {"dataset": "wmt/wmt14", "config": f"{target}-en", "split": "train"}
    assert validation == {**train, "split": "validation"}
    assert args.max_tokens * args.gradient_accumulation_steps * 8 == 25_000
    assert args.objective == "translation"


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_the_commands_from_nothing_to_newstest2014_are_ones(path):
    """A dry run, data, the run, the scores: as the head of each recipe has them."""
    lines = [line[1:].split() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#   ")]
    commands = [words[words.index("hf_vanilla_transformer") + 1 :] if "-m" in words else words[1:] for words in lines]
    assert [words[0] for words in commands] == ["pretrain", "pretrain", "pretrain", "evaluate"]
    dry, prepared, run = (parse_arguments([*words[1:], "--use_cpu", "true"]) for words in commands[:3])
    assert dry.dry_run > 0
    assert prepared.prepare_only
    assert not run.dry_run
    assert not run.prepare_only
    assert dry.output_dir == prepared.output_dir == run.output_dir
    scored = evaluate.parse_arguments(commands[3][1:], "evaluate")
    assert scored.model == [run.output_dir]
    assert scored.test_set == [f"wmt14/full:{run.source_lang}-{run.target_lang}"]
    assert scored.paper_bleu == ("de" if run.target_lang == "de" else None)


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_section_5_2_number_of_updates(path):
    assert load(path).max_steps == (300_000 if path in BIG else 100_000)


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_section_5_3_optimizer_and_learning_rate(path):
    args = load(path)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.98, 1e-9)
    assert (args.lr_scheduler_type, args.warmup_steps) == ("inverse_sqrt", 4000)
    assert args.learning_rate is None, "it is derived from d_model and warmup_steps"
    assert (args.weight_decay, args.max_grad_norm) == (0.0, 0.0)
    stated = float(re.search(r"the peak, which is (\S+)", path.read_text(encoding="utf-8"))[1])
    assert stated == pytest.approx(peak_learning_rate(config_of(args).d_model, 4000), rel=0.01)


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_section_5_4_dropout_and_label_smoothing(path):
    config = config_of(load(path))
    # §6.1: "0.1, instead of 0.3" for the big model of English-French.
    assert config.dropout == (0.3 if path.stem == "wmt14-en-de-big" else 0.1)
    assert (config.label_smoothing, config.attention_dropout, config.activation_dropout) == (0.1, 0.0, 0.0)


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_table_3_shape(path):
    config = config_of(load(path))
    shape = (config.num_encoder_layers, config.num_decoder_layers, config.d_model, config.d_ff, config.num_heads)
    assert shape == ((6, 6, 1024, 4096, 16) if path in BIG else (6, 6, 512, 2048, 8))
    assert (config.norm_position, config.position_encoding, config.activation_function) == (
        "post",
        "sinusoidal",
        "relu",
    )


@pytest.mark.parametrize("path", PAPER, ids=stem)
def test_section_6_1_average_of_checkpoints_every_ten_minutes_and_four_beams(path):
    args = load(path)
    seconds_an_update = 1.0 if path in BIG else 0.4  # §5.2
    assert args.save_steps * seconds_an_update == 10 * 60
    assert (args.final_weights, args.average_last) == ("average", 20 if path in BIG else 5)
    assert args.save_total_limit >= args.average_last
    assert args.generation_num_beams == 4


def test_the_paper_recipes_differ_only_where_the_paper_does():
    """Base and big, German and French: what the test above them does not look at is the same."""
    ours = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in PAPER}
    differing = {key for values in ours.values() for key in values if values[key] != ours["wmt14-en-de-base"][key]}
    assert {tuple(values) for values in ours.values()} == {tuple(ours["wmt14-en-de-base"])}, (
        "the same keys in one order"
    )
    assert differing == {
        *("train_data", "validation_data", "target_lang", "vocab_size", "output_dir"),
        *("preset", "config_overrides", "max_steps"),
        *("eval_steps", "save_steps", "save_total_limit", "average_last"),
    }


def test_one_recipe_shows_who_gets_the_log_and_how_to_upload(monkeypatch):
    path = next(path for path in RECIPES if path.stem == "multi30k-en-de-tiny")
    assert {"report_to", "push_to_hub", "hub_model_id", "hub_strategy"} <= set(read_recipe(path))
    assert (load(path).report_to, load(path).push_to_hub) == ([], False), "nobody is told unless it is asked for"
    monkeypatch.setattr(refused_options, "get_available_reporting_integrations", lambda: ["tensorboard"])
    flags = ["--report_to", "tensorboard", "--push_to_hub", "--hub_model_id", "me/mine", "--use_cpu", "true"]
    args = parse_arguments([str(path), *flags])
    assert (args.report_to, args.push_to_hub, args.hub_model_id) == (["tensorboard"], True, "me/mine")
    assert args.hub_strategy == "end"
