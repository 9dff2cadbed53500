"""Peak memory of loading and importing a checkpoint, as a multiple of its tensors' size.

Each row is a process of its own: what it holds after its imports is subtracted from its peak. The
model has random weights in the shape of Llama, so that nothing has to be downloaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

BOUND = 1.3  # what the project promises

MAKE = """
import sys, torch
from pathlib import Path
from tfm.core.checkpoint import save_checkpoint
from tfm.core.config import ModelConfig
from tfm.core.convert.huggingface_out import export_folder
from tfm.core.model import build_model
from tfm.core.tokenizer import Tokenizer
folder = Path(sys.argv[1])
tokenizer = Tokenizer.train(["a small vocabulary is enough"], 300)
config = ModelConfig.create(
    family="decoder-only", vocab_size=32000, d_model=768, n_heads=12, d_ff=2048, n_decoder_layers=12,
    norm="rmsnorm", positions="rotary", activation="silu", gated_ff=True, qkv_bias=False, out_bias=False,
    ff_bias=False, tie_output=False, **tokenizer.special_ids,
)
save_checkpoint(folder / "ours", build_model(config), config, tokenizer, "# bench")
export_folder(folder / "ours", folder / "theirs")
"""

MEASURE = """
import sys, re, torch
from pathlib import Path
from tfm.core.checkpoint import load_checkpoint
from tfm.core.convert.huggingface_in import import_folder
import tfm.core.model, safetensors.torch
def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
what, source, destination = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
before = status("VmRSS")
kept = load_checkpoint(source) if what == "load" else import_folder(source, destination)
print(status("VmHWM") - before)
"""


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="tfm-bench-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", MAKE, name], check=True)
        rows = [
            ("load a checkpoint folder", "load", folder / "ours"),
            ("import a Hugging Face folder", "import", folder / "theirs"),
        ]
        print(f"{'':32}{'tensors':>10}{'peak':>10}{'ratio':>8}   (promised: at most {BOUND})")
        for label, what, source in rows:
            size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
            command = [sys.executable, "-c", MEASURE, what, str(source), str(folder / "imported")]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{label:32}{size / 2**20:>6.0f} MiB{peak / 2**20:>6.0f} MiB{peak / size:>8.2f}")
