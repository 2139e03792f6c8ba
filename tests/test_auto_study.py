"""studies.auto: a line for each run, and the loss against the preset in the table."""

import json

import numpy as np
from tiny import refused, write_weights

from studies import auto


def test_a_run_is_a_line_and_the_table_has_its_loss(tmp_path, capsys):
    write_weights(tmp_path / "w.safetensors")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).uniform(0.2, 0.8, (1, 16, 16)).astype(np.float32))
    flags = ["--problem", "denoise", "--image.path", tmp_path / "images.npy", "--weights", tmp_path / "w.safetensors"]
    flags += ["--iterations", 3, "--tv.iterations", 5, "--out", tmp_path / "auto.jsonl", "--astray", 2, "--levels"]
    auto.main([str(f) for f in flags])
    line = json.loads((tmp_path / "auto.jsonl").read_text())
    assert line["rule"] == "discrepancy" and line["preset"]["levels"] == line["auto"]["levels"] == 3
    assert line["trials"][0]["weight"] == 2 * line["preset"]["settings"]["weight"]
    assert line["evaluations"] == 3 * (len(line["trials"]) + 2) and all(t["psnr"] > 0 for t in line["trials"])
    capsys.readouterr()
    auto.main(["--table", "--out", str(tmp_path / "auto.jsonl")])
    head, _, row = capsys.readouterr().out.strip().splitlines()
    loss = line["psnr"]["preset"] - line["psnr"]["auto"]
    assert head.endswith("| loss |") and row.endswith(f"| {line['psnr']['auto']:.2f} | {loss:+.2f} |")
    assert "| discrepancy, from 2 times, levels too |" in row
    assert "which it sets itself" in refused(auto.main, ["--solver.weight", "1"], capsys)
