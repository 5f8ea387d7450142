"""Each command's JSON has the promised keys and nothing else is on standard output; the text form says the same."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from typer.main import get_command

import workbench as wb
from tests.servers import free_port
from tests.unit.cli.conftest import Said
from workbench.artifact.folder_layout import MODEL
from workbench.cli import app
from workbench.cli.explore import build_command as server_command
from workbench.cli.explore import serve_page
from workbench.cli.output import sanitize_json
from workbench.quantized import describe_bits

LAYER = "model.layers.0.mlp.down_proj"


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text("Tom had a red ball. He threw it high.<|endoftext|>A small bird sat on the roof and sang.")
    return path


@pytest.fixture
def tiny(tiny_models: dict[str, Path]) -> Path:
    """A Llama that calibrates in a moment; its layers are called as the built-in model's."""
    return tiny_models["llama"]


def test_layers(command: Callable[..., Said]) -> None:
    rows = json.loads(command("layers", "builtin", "--json").out)["layers"]
    assert len(rows) == 42
    assert {"name", "rows", "cols", "dtype", "parameters"} <= set(rows[0])
    lines = command("layers", "builtin").out.splitlines()
    assert lines[lines.index("model.layers.5") + 7].split() == ["mlp.down_proj", "256", "768", "float16", "16.00", "196,608"]
    assert "42 layers in 6 blocks, 4,718,592 weights. A layer's name is that of its block and its matrix" in "".join(lines)


def test_one_recipe(command: Callable[..., Said]) -> None:
    facts = json.loads(command("recipes", "rtn", "--json").out)["recipe"]
    assert {"name", "title", "family", "summary", "nominal_bits", "needs_calibration", "source", "note", "settings"} == set(facts)
    bits = {"name": "bits", "default": 4, "low": 1, "high": 8, "choices": None, "help": "bits per code"}
    assert facts["settings"][0] == bits
    said = command("recipes", "rtn").out
    assert f"note    {facts['note']}" in said
    assert re.search("^clip +mse +none, mse, moment +search for", said, re.MULTILINE)
    assert "Did you mean 'rtn'?" in command("recipes", "rnt").err


def test_recipes(command: Callable[..., Said]) -> None:
    rows = json.loads(command("recipes", "--json").out)["recipes"]
    assert {"none", "rtn", "gptq", "binary", "btc", "pb-llm"} <= {row["name"] for row in rows}
    assert {"name", "nominal_bits", "needs_calibration", "source"} <= set(rows[0])
    assert "pb-llm" in command("recipes").out


def test_eval(command: Callable[..., Said], story: Path) -> None:
    facts = json.loads(command("eval", "builtin", "--text", story, "--json").out)
    intervals = {"perplexity_interval", "bits_per_byte_interval"}
    assert {"perplexity", "bits_per_byte", "tokens", "bytes", "seconds"} | intervals <= set(facts)
    low, high = facts["perplexity_interval"]
    assert low <= facts["perplexity"] <= high
    assert f"{facts['perplexity']:.3f}" in command("eval", "builtin", "--text", story).out


def test_refine(command: Callable[..., Said], tiny: Path, story: Path, tmp_path: Path) -> None:
    quantize = ["quantize", tiny, "--recipe", "rtn:bits=2", "--out", tmp_path / "plain"]
    assert command(*quantize).status == 0
    words = ["refine", tmp_path / "plain", "--text", story, "--written", 0, "--steps", 3]
    facts = json.loads(command(*words, "--out", tmp_path / "refined", "--json").out)
    refined = facts["model_refinement"]
    assert refined["steps"] == 3
    assert refined["divergence"] <= refined["divergence_before"]
    before, after = (wb.load(tmp_path / name) for name in ("plain", "refined"))
    assert facts["bits_per_weight"] == after.bits_per_weight == before.bits_per_weight
    said = command(*words, "--trains", "scales", "--out", tmp_path / "scales").out
    assert "all blocks trained together (scales): 3 steps of about 512 tokens on" in said
    assert "wb.load" not in said
    assert "use one of scales, norms, codes" in command(*words, "--trains", "all", "--out", tmp_path / "no").err


def test_eval_on_several_texts(command: Callable[..., Said], tiny: Path, story: Path) -> None:
    words = ["eval", tiny, "--tokens", 60]
    several = json.loads(command(*words, "--text", "all", "--text", story, "--json").out)
    assert [row["text"] for row in several["texts"]] == ["evaluation", "written", "prose", "story.txt"]
    alone = json.loads(command(*words, "--text", "prose", "--json").out)
    assert several["texts"][2].items() <= alone.items()
    said = command(*words, "--text", "all").out
    assert re.search(rf"^prose +{alone['tokens']} +{alone['perplexity']:.3f} ", said, re.MULTILINE)
    assert [line.split()[0] for line in said.splitlines()[-3:]] == ["evaluation", "written", "prose"]
    assert "'written', 'prose' or the path" in command(*words, "--text", "nowhere").err


def test_eval_in_windows(command: Callable[..., Said], story: Path) -> None:
    words = ["eval", "builtin", "--text", story, "--window", 16]
    facts = json.loads(command(*words, "--stride", 4, "--json").out)
    assert facts["windows"] == {"style": "strided", "window": 16, "stride": 4}
    assert facts["text_bytes"] == len("Tom had a red ball. He threw it high.\n\nA small bird sat on the roof and sang.")
    said = command(*words, "--as", "gptq")
    assert "\nall documents joined, read in windows of 16 tokens, end to end (gptq)" in said.out
    assert said.err == ""


@pytest.mark.filterwarnings("default::workbench.errors.WorkbenchWarning")
def test_eval_says_that_windows_are_longer_than_the_context(command: Callable[..., Said]) -> None:
    said = command("eval", "builtin", "--as", "gptq", "--tokens", 600)
    assert said.err.startswith("warning: windows have 512 tokens, not 2,048: that is the context of")
    assert said.err.count("\n") == 1
    assert command("eval", "builtin", "--as", "gpt", "--tokens", 60).err.startswith("error: unknown style 'gpt' of windows")


def test_generate(command: Callable[..., Said]) -> None:
    facts = json.loads(command("generate", "builtin", "--prompt", "Tom had", "--tokens", 12, "--json").out)
    assert facts["text"].startswith("Tom had")
    assert 0 < facts["tokens"] <= 12
    assert command("generate", "builtin", "--prompt", "Tom had", "--tokens", 12).out == facts["text"] + "\n"


def test_whatif(command: Callable[..., Said], tiny: Path, story: Path) -> None:
    arguments = ["whatif", tiny, "--layer", LAYER, "--text", story, "--recipe"]
    facts = json.loads(command(*arguments, "rtn:bits=2,group=64", "--json").out)
    assert {"kl", "kl_interval", "perplexity", "perplexity_original", "top1_changed"} <= set(facts)
    assert {"recipe", "bits_per_weight", "nominal_bits", "relative_error", "output_error", "tokens", "seconds"} <= set(facts)
    assert facts["kl"] > 0
    assert f"{facts['kl']:.5f}" in command(*arguments, "rtn:bits=2,group=64").out


def test_whatif_of_nothing_is_zero(command: Callable[..., Said], tiny: Path, story: Path) -> None:
    facts = json.loads(command("whatif", tiny, "--layer", LAYER, "--text", story, "--recipe", "none", "--json").out)
    assert (facts["kl"], facts["kl_interval"], facts["top1_changed"]) == (0.0, [0.0, 0.0], 0.0)
    assert facts["perplexity"] == facts["perplexity_original"]


def test_quantize_some_layers(command: Callable[..., Said], tmp_path: Path) -> None:
    words = ["--recipe", "rtn:bits=4,group=64", "--layers", "*.0.mlp.*", "--tokens", 500]
    said = command("quantize", "builtin", "--out", tmp_path / "out", *words)
    assert said.status == 0
    assert re.fullmatch(
        r"589,824 weights to quantize: about \d+(\.\d)? [MG]B of memory \(\d+(\.\d)? [MG]B free\), \d+ MB on disk, about .+\n",
        said.err,
    )
    assert "model.layers.0\n  mlp.gate_proj" in said.out
    assert "not measured" in said.out
    assert "stored bits per weight (4.00 nominal) in " in said.out
    assert " % (other layers, embedding, norms) are not quantized: " in said.out
    assert (tmp_path / "out" / "recipe.json").is_file()


def test_quantize_the_head_too(command: Callable[..., Said], tmp_path: Path) -> None:
    words = ["--recipe", "rtn:bits=4,group=64", "--layers", "*.0.mlp.down_proj,lm_head", "--tokens", 100]
    said = command("quantize", "builtin", "--out", tmp_path / "out", *words)
    facts = json.loads(command("quantize", "builtin", "--out", tmp_path / "out", *words, "--json").out)
    assert facts["untied"] == ["lm_head"]
    with safe_open(tmp_path / "out" / MODEL, "pt") as file:
        in_file = sum(file.get_tensor(name).nbytes for name in file.keys() if name.startswith("lm_head"))  # noqa: SIM118
        assert file.get_tensor("model.embed_tokens.weight").shape == (512, 256)
    assert facts["untied_head_bytes"] == in_file > 512 * 256 / 2
    bits = facts["layers"][1]["bits_per_weight"]
    assert (
        f"lm_head was tied to the embedding; it is now a separate packed matrix, {in_file:,} bytes "
        f"({bits:.4g} bits per weight) beside the unquantized embedding"
    ) in said.out
    assert [row["name"] for row in facts["layers"]] == [LAYER, "lm_head"]
    assert all(row["output_error"] is None for row in facts["layers"])
    measured = json.loads(command("quantize", "builtin", "--out", tmp_path / "out", *words, "--output-error", "--json").out)
    assert all(row["output_error"] > 0 for row in measured["layers"])
    assert (
        "lm_head (512 × 256) is quantized only if it is named: --layers '*,lm_head'; it is tied to model.embed_tokens: if "
        "named alone, it becomes a separate matrix, stored beside the 262,144 bytes of the embedding; if named with it "
        "('*,lm_head,model.embed_tokens'), both share one packed matrix"
    ) in command("layers", "builtin").out


def test_quantize_the_head_by_a_recipe_of_its_own(command: Callable[..., Said], tmp_path: Path) -> None:
    """Tied, as in the built-in model: one packed matrix, in the ledger and in the file, which both use."""
    words = ["--recipe", "rtn:bits=2", "--layers", "*.0.mlp.down_proj", "--head", "rtn:bits=8", "--json"]
    facts = json.loads(command("quantize", "builtin", "--out", tmp_path / "out", *words).out)
    assert [(row["name"], row["nominal_bits"]) for row in facts["layers"]] == [(LAYER, 2.0), ("model.embed_tokens", 8.0)]
    assert facts["tied"] == {"lm_head": "model.embed_tokens"}
    assert "embedding" not in facts["unquantized"]
    with safe_open(tmp_path / "out" / MODEL, "pt") as file:
        names = [name for name in file.keys() if "embed_tokens" in name or "lm_head" in name]  # noqa: SIM118
        stored = sum(file.get_tensor(name).nbytes for name in names)
    weights = 512 * 256
    assert 8 * stored / weights == pytest.approx(facts["layers"][1]["bits_per_weight"], rel=1e-3)
    assert wb.load(tmp_path / "out").generate("Once", tokens=3)


def test_a_head_that_is_not_tied(command: Callable[..., Said], tiny: Path, tmp_path: Path) -> None:
    words = ["--recipe", "rtn:bits=2", "--head", "rtn:bits=8", "--json"]
    facts = json.loads(command("quantize", tiny, "--out", tmp_path / "out", *words).out)
    bits = {row["name"]: row["nominal_bits"] for row in facts["layers"]}
    assert bits.pop("lm_head") == 8
    assert set(bits.values()) == {2.0}
    assert "embedding" in facts["unquantized"]


def test_an_encoder_has_no_head(command: Callable[..., Said], tiny_models: dict[str, Path], tmp_path: Path) -> None:
    words = ["--recipe", "rtn:bits=2", "--head", "rtn:bits=8"]
    said = command("quantize", tiny_models["bert"], "--out", tmp_path / "out", *words)
    assert said.status == 1
    assert "has no output head that can be quantized; leave --head out" in said.err


def test_quantize_the_embedding_too(command: Callable[..., Said], tmp_path: Path) -> None:
    words = ["--recipe", "rtn:bits=4,group=64", "--layers", "*.0.mlp.down_proj,lm_head,*.embed_tokens", "--output-error"]
    said = command("quantize", "builtin", "--out", tmp_path / "out", "--tokens", 100, *words)
    assert "lm_head is tied to model.embed_tokens: both share one packed matrix, which is counted once" in said.out
    assert "was tied" not in said.out
    facts = json.loads(command("quantize", "builtin", "--out", tmp_path / "out", "--tokens", 100, *words, "--json").out)
    assert (facts["tied"], facts["untied"]) == ({"lm_head": "model.embed_tokens"}, [])
    assert [row["name"] for row in facts["layers"]] == [LAYER, "model.embed_tokens"]
    assert [row["output_error"] is None for row in facts["layers"]] == [False, True]
    assert "model.embed_tokens (512 × 256) is quantized only if it is named" in command("layers", "builtin").out


def test_every_figure_says_what_it_is_of(command: Callable[..., Said], tiny: Path, story: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ["--recipe", "rtn:bits=4,group=64", "--layers", "*.mlp.*", "--tokens", 100, "--json"]
    made = json.loads(command("quantize", tiny, "--out", out, *words).out)
    seen = json.loads(command("eval", out, "--text", story, "--json").out)
    (row,) = json.loads(command("compare", tiny, out, "--text", story, "--json").out)["models"]
    card = json.loads(command("card", out, "--text", story, "--json").out)
    for name in ("coverage", "bits_overall", "unquantized"):
        assert made[name] == seen[name] == row[name] == card[name]
    assert 0 < made["coverage"] < 1
    sentence = describe_bits(
        made["bits_per_weight"], made["nominal_bits"], made["coverage"], made["unquantized"], made["bits_overall"]
    )
    assert sentence in command("eval", out, "--text", story).out
    assert sentence in command("compare", tiny, out, "--text", story).out


def test_compare_reports_tails_positions_and_forks(command: Callable[..., Said], tiny: Path, story: Path, tmp_path: Path) -> None:
    out, base = tmp_path / "out", tmp_path / "base.kld"
    command("quantize", tiny, "--recipe", "rtn:bits=2,group=64", "--layers", "*.mlp.*", "--tokens", 100, "--out", out)
    story.write_text("Tom had a red ball. He threw it high. " * 20 + "<|endoftext|>A small bird sat on the roof and sang.")
    words = ["compare", tiny, out, "--text", story, "--texts", 2]
    facts = json.loads(command(*words, "--write-kl-base", base, "--json").out)
    (row,) = facts["models"]
    assert facts["kl_base_written"]["bytes"] == base.stat().st_size
    assert list(row["kl_percentiles"]) == ["mean", "median", "90 %", "99 %", "99.9 %", "maximum"]
    assert row["kl_percentiles"]["median"]["value"] == row["kl_median"]
    assert {"p_change_mean", "p_change_mean_interval", "p_change_rms", "same_top", "same_top_interval"} <= set(row)
    assert row["same_top"] == row["top1_agreement"]
    assert [place["from"] for place in row["positions"]] == [1, 32]
    assert sum(place["tokens"] for place in row["positions"]) == facts["tokens"]
    assert (row["fork_rate"]["texts"], len(row["fork_rate"]["forks"])) == (2, 2)
    said = command(*words, "--kl-base", base)
    assert (said.status, said.err) == (0, "")
    for line in ("KL, 99.9 %  ", "KL, maximum  ", "Δp, RMS  ", "after 1–31  ", "fork rate  ", f"against {base}, "):
        assert f"  {line}" in said.out
    assert said.out.count("\n  top-1 agreement  ") == 2  # the file's figures have the names of the others
    assert said.out.count(" nats per token  (") == 2
    assert re.search(r"\n {19}\d+\.\d+ times the file's \(", said.out)
    base.write_bytes(base.read_bytes()[:-1])
    said = command(*words, "--kl-base", base)
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert "it was not written to its end, or is damaged; write it again." in said.err


def test_bench(command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["bench", "--shape", "1024x2048", "--formats", "signs,w4-g128", "--threads", 1, "--batch", "1,2"]
    facts = json.loads(command(*words, "--json").out)
    assert {"machine", "rows", "cols", "turns", "baseline", "results", "seconds"} == set(facts)
    assert (facts["rows"], facts["cols"]) == (1024, 2048)  # of smaller ones, more copies keep the caches cold
    torch_types = {"torch-fp32", "torch-bf16", "torch-int8", "torch-int4"}
    assert {row["format"] for row in facts["results"]} == {*torch_types, "signs", "w4-g128"}
    assert {row["best_torch"] for row in facts["results"]} <= torch_types
    assert {row["batch"] for row in facts["results"]} == {1, 2}
    monkeypatch.setenv("COLUMNS", "80")
    said = command(*words)
    assert said.err == ""
    assert "\n  w4-g128 " in said.out
    assert "GB/s" in said.out
    assert "\ncold, 1 thread, batch 2; best of torch: torch-" in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_help_shows_no_type_beside_flags(command: Callable[..., Said]) -> None:
    for words in ((), ("bench",), ("jobs",), ("jobs", "cancel"), ("serve", "codebook")):
        assert "<bool>" not in command(*words, "--help").out
    assert "--shape " in command("bench", "-h").out


def test_json_has_no_nan() -> None:
    facts = {"a": float("nan"), "b": [float("inf"), 1.5], "c": (True, None)}
    assert sanitize_json(facts) == {"a": None, "b": [None, 1.5], "c": [True, None]}


@pytest.mark.parametrize("page", ["explorer", "compare", "codebook"])
def test_a_page_is_served_on_this_machine_only(page: str) -> None:
    words = server_command(page, ["builtin"], 5123, browser=False, origins=["hub.example.org"])
    assert words[1:4] == ["-m", "panel", "serve"]
    assert Path(words[4]).name == f"{page}.py"
    assert Path(words[4]).is_file()
    assert words[words.index("--address") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == "5123"
    assert "--show" not in words
    assert words[words.index("--args") + 1 :] == ["builtin"]
    origins = [word.removeprefix("--allow-websocket-origin=") for word in words if word.startswith("--allow")]
    assert origins == ["127.0.0.1:5123", "localhost:5123", "hub.example.org"]
    assert "--show" in server_command(page, ["builtin"], 5123, browser=True, origins=[])


def test_origins_of_the_environment_are_added_to_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """bokeh would take the variable instead of the options, and refuse the page's own address."""
    monkeypatch.setenv("BOKEH_ALLOW_WS_ORIGIN", "localhost:8000,hub.example.org")
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda path, words, environment: started.append((words, environment)))
    serve_page("explorer", ["builtin"], free_port(), browser=False, origins=["proxy:80"])
    [(words, environment)] = started
    assert "BOKEH_ALLOW_WS_ORIGIN" not in environment
    assert {f"--allow-websocket-origin={host}" for host in ("proxy:80", "localhost:8000", "hub.example.org")} < set(words)


def test_serving_what_is_no_quantized_model(command: Callable[..., Said], tmp_path: Path) -> None:
    said = command("serve", "compare", "builtin", str(tmp_path))
    assert said.status == 1
    assert said.err == f"error: {str(tmp_path)!r} holds no quantized model; give folders written by `workbench quantize`.\n"


def test_explore_on_a_port_in_use(command: Callable[..., Said]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = command("explore", "builtin", "--no-browser", "--port", port)
    assert said.status == 1
    assert said.err == f"error: port {port} cannot be used (address already in use); choose another one with --port.\n"


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_the_help_lists_every_command_in_its_panel(command: Callable[..., Said], word: str) -> None:
    said = command(word)
    assert (said.status, said.err) == (0, "")
    titles = [title.strip() for title in re.findall("╭─([^─]*)─", said.out)]
    assert titles == ["Options", "Look", "Quantize", "Measure", "Share and keep"]
    listed = re.findall(r"^│ ([a-z][a-z-]*) ", said.out, re.MULTILINE)
    assert sorted(listed) == sorted(get_command(app).commands)


def test_quantize_a_fused_model(command: Callable[..., Said], tmp_path: Path, story: Path) -> None:
    given = (
        "quantize",
        "builtin",
        "--recipe",
        "rtn:bits=4,group=64",
        "--text",
        story,
        "--out",
        tmp_path / "out",
        "--layers",
        "*.0.mlp.*",
        "--fuse",
    )
    said = command(*given)
    assert "262,144 of these bytes are the output head" in said.out
    facts = json.loads(command(*given, "--json").out)
    assert (facts["fused"], facts["untied_bytes"]) == ({"seed": 0, "residual": True, "online": ["down_proj"]}, 262_144)
    again = json.loads(command("eval", tmp_path / "out", "--text", story, "--json").out)
    original = json.loads(command("eval", "builtin", "--text", story, "--json").out)
    assert again["perplexity"] == pytest.approx(original["perplexity"], rel=0.1)


def test_quantize_with_learned_signs_in_the_norms(command: Callable[..., Said], tiny: Path, tmp_path: Path, story: Path) -> None:
    recipe = ("quantize", tiny, "--recipe", "btc:bits=1,transform=signs", "--layers", "*.0.mlp.*", "--text", story)
    read = {}
    for name, fold in {"plain": [], "folded": ["--fold"]}.items():
        facts = json.loads(command(*recipe, "--out", tmp_path / name, *fold, "--json").out)
        assert facts["changed_tensors"] == ["model.layers.0.post_attention_layernorm.weight"] * len(fold)
        seen = json.loads(command("eval", tmp_path / name, "--text", story, "--json").out)
        read[name] = (facts["bits_per_weight"], seen["perplexity"])
    assert read["folded"][0] < read["plain"][0]
    assert read["folded"][1] == pytest.approx(read["plain"][1], rel=1e-4)


def test_allocate_writes_a_plan_that_quantize_takes(
    command: Callable[..., Said], tiny: Path, story: Path, tmp_path: Path
) -> None:
    plan, out, layers = tmp_path / "made" / "plan.json", tmp_path / "out", "*.[01].mlp.down_proj"
    options = ["--recipe", "rtn:bits=2,group=64", "--recipe", "rtn:bits=4,group=64", "--text", story, "--layers", layers]
    facts = json.loads(command("allocate", tiny, "--bits", 3.5, *options, "--out", plan, "--json").out)
    assert {"bits_per_weight", "predicted_kl", "method", "layers", "out", "text", "tokens", "seed", "seconds"} <= set(facts)
    assert sorted(row["recipe"] for row in facts["layers"]) == ["rtn:bits=2,group=64", "rtn:bits=4,group=64"]
    assert "plan in" in command("allocate", tiny, "--bits", 3.5, *options, "--out", plan, "--method", "lim").out
    made = json.loads(command("quantize", tiny, "--plan", plan, "--out", out, "--tokens", 500, "--json").out)
    assert made["bits_per_weight"] == pytest.approx(facts["bits_per_weight"])
    assert len(made["layers"]) == 2
    said = command("quantize", tiny, "--plan", plan, *options[:2], "--out", out)
    assert (said.status, "both --recipe and --plan are given" in said.err) == (2, True)
    assert "cannot be read (No such file" in command("quantize", tiny, "--plan", tmp_path / "no", "--out", out).err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "is []; it must be an object."),
        (b'{"version": 1}', "has no 'rules'; it is a list of layers and recipes, as written by `workbench allocate`."),
        (b"\xff\xfe", "is not UTF-8 text (byte 0); save it as UTF-8."),
        (b"[" * 5000, "is 5,000 levels deep; at most 100 are read."),
    ],
    ids=["list", "no-rules", "not-utf-8", "deep"],
)
def test_a_file_that_is_no_plan_is_one_line(command: Callable[..., Said], tmp_path: Path, content: bytes, said: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_bytes(content)
    answer = command("quantize", "builtin", "--plan", plan, "--out", tmp_path / "out")
    assert (answer.status, answer.err) == (1, f"error: the plan {plan} {said}\n")
    assert not (tmp_path / "out").exists()


def test_the_version_is_that_of_the_package() -> None:
    said = subprocess.run([sys.executable, "-m", "workbench", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"workbench {wb.__version__}\n"
