"""Decoding speed beside transformers: the same weights, the same machine, the same run.

Greedy continuation, one lane and many, of SmolLM2-135M where it has been pulled, else of random
weights in its shape. Each engine runs in a process of its own, so that neither warms the other.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tfm.core.catalog import find_checkpoint

PROMPT = "Once upon a time, in a village by the sea,"
N_TOKENS = 96

MAKE = """
import sys
from pathlib import Path
from tfm.core.checkpoint import save_checkpoint
from tfm.core.config import ModelConfig
from tfm.core.model import build_model
from tfm.core.tokenizer import Tokenizer
tokenizer = Tokenizer.train(["once upon a time in a village by the sea"] * 3, 400)
config = ModelConfig.create(
    family="decoder-only", vocab_size=49152, d_model=576, n_heads=9, n_kv_heads=3, d_ff=1536,
    n_decoder_layers=30, max_positions=2048, norm="rmsnorm", positions="rotary", activation="silu",
    gated_ff=True, qkv_bias=False, out_bias=False, ff_bias=False, pad_id=0, bos_id=1,
)
save_checkpoint(Path(sys.argv[1]), build_model(config), config, tokenizer, "# random weights")
"""

OURS = """
import json, sys, time
from tfm.core.checkpoint import load_checkpoint
from tfm.core.engine.protocol import Lane
from tfm.core.generate import generate
from tfm.core.sampling.settings import SamplingSettings
folder, prompt, n_tokens, n_lanes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
checkpoint = load_checkpoint(folder)
lanes = [Lane(prompt=prompt, settings=SamplingSettings(temperature=0.0), seed=i) for i in range(n_lanes)]
def once(n):
    began, events = time.perf_counter(), 0
    for event in generate(checkpoint, lanes, max_tokens=n, n_top=0):
        events += hasattr(event, "piece")
    return events / (time.perf_counter() - began)
once(8)
print(json.dumps(max(once(n_tokens) for _ in range(3))))
"""

THEIRS = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
folder, prompt, n_tokens, n_lanes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json")
ids = torch.tensor([tokenizer(prompt).input_ids] * n_lanes)
def once(n):
    began = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(ids, do_sample=False, max_new_tokens=n, min_new_tokens=n, pad_token_id=0)
    return (out.shape[1] - ids.shape[1]) * n_lanes / (time.perf_counter() - began)
once(8)
print(json.dumps(max(once(n_tokens) for _ in range(3))))
"""


def run() -> None:
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: pip install -c constraints.txt -e '.[bench]'")
        return
    with tempfile.TemporaryDirectory(prefix="tfm-bench-") as name:
        ours, theirs = Path(name) / "ours", Path(name) / "theirs"
        try:
            ours, label = find_checkpoint("smollm2"), "SmolLM2-135M"
        except ValueError:
            label = "random weights in the shape of SmolLM2-135M"
            subprocess.run([sys.executable, "-c", MAKE, str(ours)], check=True)
        program = str(Path(sys.executable).with_name("tfm-tui"))
        subprocess.run([program, "export", str(ours), str(theirs)], check=True, capture_output=True)
        print(f"{label}, fp32, greedy, {N_TOKENS} tokens; tokens a second, best of three\n")
        print(f"{'lanes':>5}{'tfm-tui':>10}{'transformers':>14}{'ratio':>8}")
        for n_lanes in (1, 8, 32):
            speeds = [_measure(code, folder, n_lanes) for code, folder in ((OURS, ours), (THEIRS, theirs))]
            print(f"{n_lanes:>5}{speeds[0]:>10.1f}{speeds[1]:>14.1f}{speeds[0] / speeds[1]:>8.2f}")


def _measure(code: str, folder: Path, n_lanes: int) -> float:
    command = [sys.executable, "-c", code, str(folder), PROMPT, str(N_TOKENS), str(n_lanes)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
