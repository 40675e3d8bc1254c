"""The verb `valle plan` on this machine's devices: what it prints and writes, and what it refuses in one line."""

import json

import pytest

from valle_jax.cli import main

SMALL = ["plan", "--preset=tiny", "--topology=cpu:4", "--set=model.n_layers=1", "--set=model.d_model=32"]
SMALL += ["--set=model.n_heads=2", "--set=model.d_ff=64", "--set=model.codebook_size=60", "--set=data.row_length=128"]


def test_a_step_is_planned_printed_and_written(tmp_path, capsys):
    main([*SMALL, "--stage=ar", "--mesh=data=2,fsdp=2", "--rows=8", f"--json={tmp_path / 'plan.json'}"])
    printed = capsys.readouterr().out
    assert "mesh data=2,fsdp=2, 8 rows of 128" in printed
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1} and plan["chips"] == 4 and plan["fits"]
    assert f"{plan['parameters'] / 1e6:.1f}M parameters" in printed
    assert plan["memory"]["arguments"] > 3 * 4 * plan["parameters"] / 4  # parameters and two moments, over four chips
    assert plan["flops"]["computed"] >= plan["flops"]["model"] > 0
    assert {"all-gather", "all-reduce"} & {collective["kind"] for collective in plan["collectives"]}
    assert plan["roofline"] is None  # nobody knows this processor's speed


def test_a_sampler_is_planned(tmp_path, capsys):
    sizes = ["--what=sample", "--rows=2", "--prompt-tokens=16", "--frames=16", f"--json={tmp_path / 'plan.json'}"]
    main([*SMALL, "--stage=nar", *sizes])
    assert "nar sampler on one" in capsys.readouterr().out
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["rows"] == 2 and plan["memory"]["arguments"] > 4 * plan["parameters"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mesh=dta=2"], "unknown axis 'dta'; the axes are data, fsdp, tensor"),
        (["--mesh=data=3", "--rows=8"], "8 rows per microbatch (train.rows / train.accumulate) are not divisible"),
        (["--mesh=tensor=4", "--rows=8"], "model.n_heads=2 is not divisible by mesh tensor=4"),
        (["--mesh=data=8", "--rows=8"], "needs 8 devices, there are 4"),
        (["--topology=cpu:4000"], "this machine has"),
        (["--topology=v5e"], "give GENERATION:SHAPE such as v5e:16x16"),
        (["--rows=0"], "--rows 0 must be positive"),
        (["--search", "--mesh=data=4"], "leave out --mesh"),
        (["--set=model.n_layer=2"], "n_layer"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main([*SMALL, "--stage=ar", *arguments])
    errors = capsys.readouterr().err
    assert stopped.value.code == 2 and message in errors
    assert errors.startswith("valle plan: ") and errors.count("\n") == 1
