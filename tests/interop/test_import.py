"""Published layouts: goldens of other programs, a PyTorch VALL-E of many sizes, and the way to audio."""

import json

import numpy as np
import pytest
from encodec_models import run_without

from valle_jax import cli
from valle_jax.audio import write_audio
from valle_jax.errors import UserError
from valle_jax.interop import check, state_file
from valle_jax.interop.layout import convert, export
from valle_jax.text.token_table import TokenTable

torch = pytest.importorskip("torch")

from torch_valle import Valle, save_golden  # noqa: E402  (needs the check above)


@pytest.mark.parametrize("name", ["vallex_d64", "lifeiteng_d64"])
def test_goldens_of_other_programs(shared, name):
    agreement = check.check(shared / "goldens" / f"{name}.npz")
    assert agreement.holds, agreement


@pytest.mark.parametrize(
    "options",
    [
        {"width": 64, "layers": 1, "vallex": True, "tied": True, "symbols": 2048},
        {"width": 32, "layers": 2, "vallex": False, "tied": False, "heads": 4},
        {"width": 48, "layers": 2, "vallex": True, "tied": False, "heads": 3},
        {"width": 32, "layers": 1, "vallex": False, "tied": True, "nar_scale": 2},
        {"width": 32, "layers": 1, "vallex": False, "tied": True, "codebooks": 4},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_a_torch_model_of_any_size(tmp_path, options):
    save_golden(tmp_path / "golden.npz", seed=len(str(options)), **options)
    agreement = check.check(tmp_path / "golden.npz")
    assert agreement.holds, agreement
    imported = convert(state_file.read(tmp_path / "golden.npz"), n_heads=options.get("heads", 2))
    assert imported.tied == options["tied"] and imported.layout == ("vallex" if options["vallex"] else "lifeiteng")


def test_check_notices_a_wrong_tensor(tmp_path, capsys):
    save_golden(tmp_path / "golden.npz", width=32, layers=1, vallex=True, tied=True)
    with np.load(tmp_path / "golden.npz") as file:
        arrays = dict(file)
    arrays["state/nar_stage_embeddings.6.word_embeddings.weight"] += 0.1
    np.savez(tmp_path / "wrong.npz", **arrays)
    assert check.main([str(tmp_path / "golden.npz")]) == 0
    assert check.main([str(tmp_path / "wrong.npz")]) == 1
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["holds"]
    assert check.main([str(tmp_path / "none.npz")]) == 2


def state_dict(**options):
    torch.manual_seed(0)
    model = Valle(**({"width": 64, "heads": 1, "layers": 1, "vallex": True, "tied": True} | options))
    return {name: value.detach() for name, value in model.state_dict().items()}


def test_every_container_gives_the_same_tensors(tmp_path):
    from safetensors.torch import save_file

    state = state_dict()
    torch.save(state, tmp_path / "raw.pt")
    torch.save({"model": state, "optimizer": {"step": 3}}, tmp_path / "nested.pth")
    average = {name: value + 1 for name, value in state.items()}
    torch.save({"model": state, "model_avg": average}, tmp_path / "averaged.pt")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "distributed.pt")
    save_file({name: value.clone() for name, value in state.items()}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", text=np.zeros(3), **{f"state/{name}": value.numpy() for name, value in state.items()})
    for file in tmp_path.iterdir():
        read = state_file.read(file)
        assert read.keys() == state.keys(), file
        assert all(np.array_equal(read[name], state[name].numpy()) for name in state), file
    read = state_file.read(tmp_path / "averaged.pt", average=True)
    np.testing.assert_array_equal(read["ar_predict_layer.weight"], state["ar_predict_layer.weight"].numpy() + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("nar_decoder.norm.norm.bias"), "no tensor nar_decoder.norm.norm.bias"),
        (lambda state: state.update({"ar_text_prenet.1.weight": torch.ones(3)}), "ar_text_prenet.1.weight"),
        (lambda state: state.pop("ar_text_embedding.word_embeddings.weight"), "not a VALL-E of these layouts"),
        (
            lambda state: state.update({"nar_predict_layers.3.weight": torch.ones(1000, 64)}),
            "nar_predict_layers.3.weight has the shape [1000, 64], not [1024, 64]",
        ),
        (
            lambda state: state.update({"ar_decoder.layers.0.self_attn.in_proj_weight": torch.ones(100, 64)}),
            "in_proj_weight has the shape [100, 64], which does not fit",
        ),
        (lambda state: state.update({"x": torch.eye(3).to_sparse()}), "its x is a torch._utils._rebuild_sparse_tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, capsys, change, message):
    state = state_dict()
    change(state)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["import-checkpoint", str(tmp_path / "x.pt"), "--out", str(tmp_path / "model")])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "lifeiteng"], "of the layout vallex, not lifeiteng"),
        (["--prefix-mode", "2"], "prefix modes 0 and 1"),
        (["--heads", "3"], "64 wide, which 3 heads do not divide"),
        (["--heads", "0"], "which 0 heads do not divide"),
        (["--out", "x.pt/model"], "cannot make the model directory"),
        (["--text-table", "missing.json"], "cannot read text table missing.json"),
        (["--average"], "no moving average"),
    ],
)
def test_wrong_options_are_one_line_errors(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    torch.save(state_dict(), "x.pt")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["import-checkpoint", "x.pt", "--out", "model", *arguments])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.parametrize("options", [{"vallex": True}, {"vallex": False, "tied": False, "nar_scale": 2}])
def test_exported_and_imported_again(options):
    """The inverse, but for the row of the NAR's first table that is never looked up."""
    state = {name: value.numpy() for name, value in state_dict(**options).items()}
    imported = convert(state)
    back = export(imported.config_ar, imported.params_ar) | export(imported.config_nar, imported.params_nar)
    assert back.keys() == state.keys()
    padding = "nar_audio_embeddings.0.word_embeddings.weight"
    for name, value in state.items():
        rows = slice(0, 1024) if name == padding else slice(None)
        np.testing.assert_allclose(back[name][rows], value[rows], rtol=1e-6, err_msg=name)  # one product and quotient


@pytest.mark.parametrize("table", ["{", "[]", '{"model": {"vocab": ["a"]}}', '{"model": {"vocab": {"a": "b"}}}'])
def test_a_file_that_is_no_text_table(tmp_path, table):
    (tmp_path / "table.json").write_text(table)
    with pytest.raises(UserError, match=r"table\.json is not a table of VALL-E-X"):
        TokenTable.of_vallex(tmp_path / "table.json", 512)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*x\.npz"):
        state_file.read(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"x\.npz is no such file"):
        check.check(tmp_path / "x.npz")


def tables(folder):
    """Small text tables of both kinds, with all that espeak needs for English."""
    letters = "_ abdefhijklmnoprstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒθː"
    vocabulary = {"[UNK]": 0, "oʊ": 1} | {letter: 2 + i for i, letter in enumerate(letters)}
    (folder / "bpe_69.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}}))
    (folder / "tokens.k2symbols").write_text("".join(f"{x} {i}\n" for i, x in enumerate(letters.replace(" ", ""))))
    return {"vallex": "bpe_69.json", "lifeiteng": "tokens.k2symbols"}


@pytest.mark.parametrize("layout", ["vallex", "lifeiteng"])
def test_from_text_to_wav_without_torch(tmp_path, layout, encodec_weights):
    torch.save({"model": state_dict(vallex=layout == "vallex")}, tmp_path / "x.pt")
    write_audio(tmp_path / "prompt.wav", 0.1 * np.random.default_rng(0).normal(size=24_000).astype(np.float32), 24_000)
    code = f"""
import os
from valle_jax import cli
os.chdir({str(tmp_path)!r})
weights = ["--codec-weights", {encodec_weights!r}]
cli.main(["import-checkpoint", "x.pt", "--out", "model", "--text-table", {tables(tmp_path)[layout]!r}, *weights])
say = ["--text", "go home", "--prompt", "prompt.wav", "--prompt-text", "hello there", "--out", "out.wav"]
cli.main(["synthesize", "--model", "model", *say, *weights])
"""
    done = run_without("torch", code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.wav").stat().st_size > 1000


def test_without_a_table_it_says_so(tmp_path, encodec_weights):
    from valle_jax.inference.synthesizer import Synthesizer

    torch.save(state_dict(), tmp_path / "x.pt")
    cli.main(
        ["import-checkpoint", str(tmp_path / "x.pt"), "--out", str(tmp_path / "m"), "--codec-weights", encodec_weights]
    )
    tts = Synthesizer.load(tmp_path / "m", codec_weights=encodec_weights)
    with pytest.raises(UserError, match="import it again with --text-table"):
        tts.synthesize("hello", prompt=np.ones(24_000, np.float32), prompt_text="one")
