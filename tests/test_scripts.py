"""The scripts as a user runs them: from two text files to translations, and what they say when something is wrong."""

import contextlib
import importlib.util
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from child_processes import start
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer.evaluation import comparison_table, paired_bootstrap, score_pairs, score_translations
from hf_vanilla_transformer.inference import translate, translate_with_details

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

COMMAND = "vanilla_transformer_command.py"  # tested by test_main.py
NAMES = sorted(path.name for path in SCRIPTS.glob("*.py"))

WORDS = ["red", "blue", "green", "dog", "cat", "bird"]


class Done:
    """What a script left behind."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


def run(script, *options, stdin=b""):
    """Runs a script's `main` in this process, which spares it importing torch again."""
    specification = importlib.util.spec_from_file_location(Path(script).stem, SCRIPTS / script)
    module = importlib.util.module_from_spec(specification)
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPTS / script), *map(str, options)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            specification.loader.exec_module(module)
            try:
                returncode = module.main()
            except SystemExit as exit:
                returncode = exit.code
    return Done(returncode, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    lines = [f"{first} {second}" for first in WORDS for second in WORDS]
    (folder / "train.en").write_text("\n".join(lines) + "\n")
    (folder / "train.de").write_text("\n".join(line.upper() for line in lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    pairs = f"source={text / 'train.en'},target={text / 'train.de'}"
    files = ["--train_data", pairs, "--validation_data", pairs, "--data_cache_dir", folder / "cache"]
    shape = ["d_model=16", "num_heads=2", "d_ff=32", "num_encoder_layers=1", "num_decoder_layers=1"]
    done = run(
        "pretrain.py", *files, "--preset", "tiny", "--config_overrides", *shape, "--vocab_size", 280,
        "--num_train_epochs", 1, "--max_tokens", 64, "--warmup_steps", 3, "--output_dir", folder,
        "--use_cpu", "--disable_tqdm", "true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_pretrain_ends_with_a_summary_of_what_it_saved(trained):
    folder, output = trained
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    parameters, scores, next_step = output.strip().splitlines()[-3:]
    assert f"{metrics['updates']} updates" in parameters
    assert f"perplexity {metrics['final_perplexity']:.2f}" in scores
    assert metrics["signatures"]["bleu"] in scores
    assert next_step == f'Try it: vanilla-transformer translate --model {folder} "..."'


def test_average_checkpoints_says_which_and_writes_a_model(trained, tmp_path):
    folder, _ = trained
    done = run("average_checkpoints.py", folder, "--last", 1, "--by", "epoch", "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Averaged 1 checkpoint: checkpoint-")
    assert run("translate.py", "--model", tmp_path, "red dog").stdout.count("\n") == 1


def test_translate_gives_a_line_for_a_line_from_arguments_a_file_and_standard_input(trained, tmp_path):
    folder, _ = trained
    lines = ["red dog", "", "blue", "  ", "green cat bird"]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    outputs = [
        run("translate.py", "--model", folder, "--num_beams", 2, *lines),
        run("translate.py", "--model", folder, "--num_beams", 2, "--file", tmp_path / "in.txt"),
        run("translate.py", "--model", folder, "--num_beams", 2, stdin="\r\n".join(lines).encode()),
    ]
    for done in outputs:
        assert done.returncode == 0, done.stderr
        assert done.stdout == outputs[0].stdout
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    expected = [" ".join(line.splitlines()) for line in translate(model, tokenizer, lines, num_beams=2)]
    assert outputs[0].stdout == "".join(line + "\n" for line in expected)
    assert expected[1] == expected[3] == ""


def test_translate_writes_columns_as_its_help_says(trained, tmp_path):
    folder, _ = trained
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    lines = ["red dog", "", "green cat bird"]
    found = list(translate_with_details(model, tokenizer, lines, nbest=2, batch_size=2))
    options = ["--model", folder, "--nbest", 2, "--batch_size", 2, *lines]
    rows = [line.split("\t") for line in run("translate.py", "--scores", "--alignments", *options).stdout.splitlines()]
    assert [int(row[0]) for row in rows] == [0, 0, 1, 1, 2, 2]
    for row, each in zip(rows, [each for translations in found for each in translations], strict=True):
        assert (float(row[1]), float(row[2])) == pytest.approx((each.score, each.log_prob), abs=1e-5)
        assert row[3] == each.text.replace("\t", " ")
        pairs = [tuple(map(int, pair.split("-"))) for pair in row[4].split()]
        assert (pairs, row[5].split(), row[6].split()) == (
            list(each.alignment), list(each.source_tokens), list(each.tokens)
        )  # fmt: skip
    texts = [row[3] for row in rows]
    assert run("translate.py", *options).stdout == "".join(f"{row[0]}\t{row[3]}\n" for row in rows)
    scored = run("translate.py", "--model", folder, "--scores", "--num_beams", 2, *lines).stdout.splitlines()
    assert [line.split("\t")[2] for line in scored] == texts[::2]


def test_translate_by_an_ensemble_to_a_file_with_all_options(trained, tmp_path):
    folder, _ = trained
    lines = ["red dog", "", "green cat bird"]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    done = run(
        "translate.py", "--ensemble", folder, folder, "--file", tmp_path / "in.txt", "--output", tmp_path / "out.txt",
        "--batch_tokens", 20, "--read_ahead", 2, "--device", "cpu", "--dtype", "float32", "--num_beams", 2,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert re.fullmatch(r"3 sentences translated in [\d.]+ s \([\d.,]+ sentences/s\)\n", done.stderr)
    alone = run("translate.py", "--model", folder, "--num_beams", 2, "--quiet", *lines)
    assert (tmp_path / "out.txt").read_text() == alone.stdout
    assert alone.stderr == ""


def test_translate_takes_any_unicode_as_a_line(trained, tmp_path):
    folder, _ = trained
    lines = ["red\u2028dog", "nul\0here", "a\rb", "\x85", "", "\U0001f600 e\u0301", "red " * 300, "\u2029", "x\x1cy"]
    data = "\n".join(lines).encode()
    done = run("translate.py", "--model", folder, "--num_beams", 1, stdin=data)
    assert done.returncode == 0, done.stderr
    output = done.stdout.split("\n")
    assert (len(output), output[-1]) == (len(lines) + 1, "")
    assert [line for line in output if len(line.splitlines()) > 1] == []
    (tmp_path / "in.txt").write_bytes(data)
    assert run("translate.py", "--model", folder, "--num_beams", 1, "--file", tmp_path / "in.txt").stdout == done.stdout


@pytest.fixture
def translating(trained):
    command = [sys.executable, SCRIPTS / "translate.py", "--model", trained[0], "--read_ahead", 1, "--num_beams", 1]
    with start(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        yield process


def test_translate_ends_quietly_when_nobody_reads_its_output(translating):
    translating.stdin.write(b"red dog\n")
    translating.stdin.flush()
    assert translating.stdout.readline().endswith(b"\n")
    translating.stdout.close()
    translating.stdin.write(b"red dog\n" * 50)
    translating.stdin.close()
    errors = translating.stderr.read().decode()
    assert translating.wait() == 141
    assert "Traceback" not in errors
    assert "Broken" not in errors
    assert errors.startswith("output closed: 1 sentence translated")


def test_translate_that_is_interrupted_has_written_what_was_done(translating):
    translating.stdin.write(b"red dog\nblue\n")
    translating.stdin.flush()
    assert translating.stdout.readline().endswith(b"\n")
    assert translating.stdout.readline().endswith(b"\n")
    translating.send_signal(signal.SIGINT)
    output, errors = translating.communicate()
    assert (translating.returncode, output) == (130, b"")
    assert "Traceback" not in errors.decode()
    # It may come before the second is counted.
    assert re.match("interrupted: (1 sentence|2 sentences) translated", errors.decode())


@pytest.mark.slow  # 5 seconds: another interpreter
def test_translate_is_a_filter_in_a_pipe(trained):
    folder, _ = trained
    command = [sys.executable, str(SCRIPTS / "translate.py"), "--model", str(folder)]
    done = subprocess.run(command, input=b"red dog\nblue\n", capture_output=True, timeout=300)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 2)


PAIRS = [("red dog", "RED DOG"), ("", "BLUE"), ("green", ""), ("red\u2028cat bird", "RED CAT BIRD")]


def test_score_gives_a_line_for_a_pair_from_two_files_a_table_and_standard_input(trained, tmp_path):
    folder, _ = trained
    table = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    (tmp_path / "pairs").write_text(table, encoding="utf-8")
    for name, lines in zip(("s", "t"), zip(*PAIRS)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    outputs = [
        run("score.py", "--model", folder, "--source", tmp_path / "s", "--target", tmp_path / "t"),
        run("score.py", "--model", folder, "--file", tmp_path / "pairs"),
        run("score.py", "--model", folder, stdin=table.encode()),
        run("score.py", "--ensemble", folder, folder, "--batch_tokens", 1, stdin=table.encode()),
    ]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    scores = list(score_pairs(model, tokenizer, PAIRS))
    for done in outputs:
        assert done.returncode == 0, done.stderr
        columns = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
        assert [int(count) for _, count, _ in columns] == [score.num_tokens for score in scores]
        found = [float(value) for log_prob, _, mean in columns for value in (log_prob, mean)]
        expected = [value for score in scores for value in (score.log_prob, score.nats_per_token)]
        assert found == pytest.approx(expected, abs=2e-5)
        total = -sum(score.log_prob for score in scores) / sum(score.num_tokens for score in scores)
        assert f"4 pairs (2 with an empty side), {sum(s.num_tokens for s in scores)} tokens: {total:.4f}" in done.stderr

    done = run("score.py", "--model", folder, "--per_token", stdin=table.encode())
    assert done.stdout == "".join(score.to_line(per_token=True) + "\n" for score in scores)
    done = run("score.py", "--model", folder, "--json", stdin=table.encode())
    assert [json.loads(line)["tokens"] for line in done.stdout.split("\n")[:-1]] == [list(s.tokens) for s in scores]


def test_evaluate_compares_a_model_with_a_file_and_writes_everything(trained, tmp_path):
    folder, _ = trained
    texts = {"en": ["red dog", "", "blue bird"], "de": ["RED DOG", "CAT", "BLUE BIRD"], "two": ["A DOG", "A CAT", "B"]}
    texts["old"] = ["RED DOG DOG", "CAT", "BLUE"]
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    output, saved = tmp_path / "results.json", tmp_path / "saved"
    options = ["--references", tmp_path / "de", tmp_path / "two", "--lowercase", "--num_resamples", 20, "--seed", 3]
    files = ["--output", output, "--save_translations", saved]
    source = ["--source", tmp_path / "en", "--num_beams", 2]
    done = run("evaluate.py", "--model", folder, *source, "--baseline", tmp_path / "old", *options, *files)
    assert done.returncode == 0, done.stderr
    made = saved.read_text(encoding="utf-8").split("\n")[:-1]
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert made == [" ".join(t.splitlines()) for t in translate(model, tokenizer, texts["en"], num_beams=2)]
    results = json.loads(output.read_text(encoding="utf-8"))
    references = list(zip(texts["de"], texts["two"]))
    options_of_both = {"metrics": ["bleu", "chrf", "ter"], "lowercase": True, "num_resamples": 20, "seed": 3}
    ((found,),) = (scoring["test_sets"] for scoring in results["scorings"])
    for system, text in zip(found["systems"], (made, texts["old"])):
        scores = score_translations(text, references, **options_of_both)
        assert system["scores"] == {name: score.as_dict() for name, score in scores.items()}
    tested = paired_bootstrap(made, texts["old"], references, **options_of_both)
    assert found["paired_bootstrap"] == {name: vars(one) for name, one in tested.items()}
    assert found["systems"][0]["likelihood"]["num_pairs"] == 6
    assert done.stdout == comparison_table(results) + "\n"

    again = run("evaluate.py", "--translations", saved, "--baseline", tmp_path / "old", *options, "--metrics", "bleu")
    assert again.returncode == 0, again.stderr
    assert f"{found['systems'][0]['scores']['bleu']['value']:.2f}" in again.stdout
    assert "TER" not in again.stdout


@pytest.mark.parametrize(
    ("script", "options", "stdin", "message"),
    [
        ("pretrain.py", ["--output_dir", "{out}"], b"", "nothing to learn from; give train_data"),
        ("pretrain.py", ["--output_dir", "{out}", "--train_data", "nothing.jsonl"], b"", "nothing.jsonl"),
        (
            "pretrain.py",
            ["--output_dir", "{out}", "--train_data", "{jsonl}", "--preset", "bse"],
            b"",
            "did you mean `base`",
        ),
        (
            "pretrain.py",
            ["--output_dir", "{out}", "--train_data", "{jsonl}", "--config_overrides", "d_model=30"],
            b"",
            "`d_model`=30",
        ),
        ("pretrain.py", ["--output_dir", "{out}", "--source_file", "x"], b"", "unknown option --source_file"),
        ("pretrain.py", ["nothing.yaml"], b"", "nothing.yaml"),
        ("finetune.py", ["--output_dir", "{out}", "--train_data", "{jsonl}"], b"", "model_name_or_path is needed"),
        ("average_checkpoints.py", ["{out}", "--output_dir", "{out}"], b"", "name that of a run"),
        ("translate.py", ["--model", "{trained}", "--file", "nothing.txt"], b"", "nothing.txt"),
        ("translate.py", ["--model", "{trained}"], b"good\n\xff\n", "standard input, line 2: not UTF-8"),
        ("translate.py", ["--model", "no/such/folder", "x"], b"", "no/such/folder"),
        ("translate.py", ["--model", "{trained}", "--device", "nothing", "x"], b"", "`device`='nothing'"),
        ("translate.py", ["--model", "{trained}", "--nbest", "3", "--num_beams", "2", "x"], b"", "`nbest`=3"),
        ("translate.py", ["--model", "{trained}", "x", "a\udcff"], b"", "character 1 is half a surrogate pair"),
        ("translate.py", ["--model", "x", "--ensemble", "y"], b"", "not allowed with argument --model"),
        ("translate.py", ["--model", "x", "--file", "{jsonl}", "--output", "{jsonl}"], b"", "is the file to translate"),
        ("score.py", ["--model", "no/such/folder"], b"", "no/such/folder"),
        ("score.py", ["--model", "{trained}", "--device", "gpu"], b"", "`device`='gpu' cannot be used"),
        ("score.py", ["--model", "{trained}"], b"a\tb\na\n", "standard input, line 2: expected SOURCE<tab>TARGET"),
        ("score.py", ["--model", "{trained}"], b"a\tb\na\t\xff\n", "standard input, line 2: not UTF-8"),
        ("score.py", ["--model", "{trained}", "--source", "{jsonl}"], b"", "--source with --target"),
        (
            "score.py",
            ["--model", "{trained}", "--source", "{jsonl}", "--target", "{jsonl}.two"],
            b"",
            "train.jsonl ends after 1 lines, but",
        ),
        ("evaluate.py", ["--translations", "nothing.txt", "--references", "{jsonl}"], b"", "no file nothing.txt"),
        ("evaluate.py", ["--translations", "{jsonl}", "--references", "{jsonl}.two"], b"", "train.jsonl has 1 lines"),
        ("evaluate.py", ["--model", "{trained}", "--references", "{jsonl}"], b"", "a model needs --source"),
        (
            "evaluate.py",
            ["--translations", "{jsonl}", "--references", "{jsonl}", "--baseline", "{trained}"],
            b"",
            "a model needs --source",
        ),
        (
            "evaluate.py",
            ["--translations", "{jsonl}", "--references", "{jsonl}", "--tokenize", "moses"],
            b"",
            "`tokenize`='moses'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_the_exit_status_is_2(trained, tmp_path, script, options, stdin, message):
    jsonl = tmp_path / "train.jsonl"
    jsonl.write_text(json.dumps({"translation": {"en": "red dog", "de": "ROT"}}) + "\n")
    Path(f"{jsonl}.two").write_text("one\ntwo\n")
    options = [option.format(jsonl=jsonl, trained=trained[0], out=tmp_path / "out") for option in options]
    done = run(script, *options, stdin=stdin)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", [script for script in NAMES if script != COMMAND])
def test_help_says_what_a_script_is_for(script):
    done = run(script, "--help")
    assert done.returncode == 0
    purpose = (SCRIPTS / script).read_text().split('"""')[1].splitlines()[0]
    assert purpose in " ".join(done.stdout.split())
