"""Measure a large caption file: how long it takes to open, its memory, the first batch, and memory over a training.

    python scripts/measure_scale.py                 # 1,000,000 rows, 2,000 steps of the debug model: minutes
    python scripts/measure_scale.py --rows 20000 --steps 40

Times are CPU seconds, so other programs on the machine disturb them little. The training is `main.py` itself, in a
process of its own; its memory is read at every row of its metrics. The last line is one JSON object. For Linux (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

from PIL import Image

from gill.data import BatchOrder, CaptionFile, CaptionTable, Share, training_steps
from gill.errors import GillError, TrainingError
from gill.models import find_family
from scripts.command import carry_out

NUM_PICTURES, BATCH_SIZE = 64, 8
_MIB = 2**20


def main(words: list[str] | None = None) -> int:
    """Write the file, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the caption file")
    parser.add_argument("--steps", type=int, default=2000, help="of the training")
    options = parser.parse_args(words)
    return carry_out("measure_scale", lambda: json.dumps(measure(options.rows, options.steps)))


def measure(num_rows: int, num_steps: int) -> dict[str, float]:
    """Numbers by name: seconds of the CPU, MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_captions(folder, num_rows)
        return {**measure_opening(folder / "captions.tsv"), **measure_training(folder, num_steps)}


def write_captions(folder: Path, num_rows: int) -> None:
    """`captions.tsv` of captions as long as CC3M's, over a few pictures, and a small `val.tsv`."""
    for number in range(NUM_PICTURES):
        Image.new("RGB", (32, 32), (4 * number, 90, 10)).save(folder / f"{number}.png")
    row = "picture {} of a small blue ring at the top left of the sea, and more\t{}.png\n"
    for name, count in (("captions", num_rows), ("val", NUM_PICTURES)):
        with (folder / f"{name}.tsv").open("w") as file:
            file.write("caption\timage\n")
            file.writelines(row.format(number, number % NUM_PICTURES) for number in range(count))


def measure_opening(path: Path) -> dict[str, float]:
    """Opening the file and reading the first batch, in this process."""
    before, start = peak_mib(), time.process_time()
    table = CaptionTable(path)
    opened, taken = time.process_time(), peak_mib() - before
    family = find_family("gill")
    _, encoder = family.build(family.presets["debug"].model, "cpu", 128, 0)
    source = CaptionFile(table, path.parent)
    built = time.process_time()
    order = BatchOrder(len(source), BATCH_SIZE, 0, source.lengths)
    next(training_steps(source, encoder, order, Share(), range(1)))
    first = time.process_time() - built
    return {"rows": len(table), "open_cpu_seconds": opened - start, "open_mib": taken, "first_batch_cpu_seconds": first}


def measure_training(folder: Path, num_steps: int) -> dict[str, float]:
    """Memory of a training over the file: after a tenth of its steps, and the most from there on."""
    settings = [f"--steps-per-epoch={num_steps}", "-b", str(BATCH_SIZE), f"--print-freq={max(num_steps // 40, 1)}"]
    data = [
        "--dataset",
        str(folder / "captions.tsv"),
        "--val-dataset",
        str(folder / "val.tsv"),
        "--image-dir",
        str(folder),
    ]
    place = ["--preset=debug", f"--log-base-dir={folder}", "--exp-name=run", "--diffusion-model=tiny", "--max-len=128"]
    quiet = ["--val-steps-per-epoch=1", "--set", "num_captions=0", "num_panels=0"]
    command = [sys.executable, str(REPOSITORY / "main.py"), *place, *settings, *data, *quiet]
    metrics, seen = folder / "run" / "metrics.jsonl", {}
    said = folder / "said.txt"  # not a pipe, which nobody would empty while the training fills it
    with said.open("w") as errors, subprocess.Popen(command, cwd=REPOSITORY, stdout=errors, stderr=errors) as process:
        while process.poll() is None:
            step = _last_step(metrics)
            if step:
                seen[step] = resident_mib(process.pid)
            time.sleep(0.2)
    if process.returncode:
        raise TrainingError(f"the training failed: {said.read_text(errors='replace')[-500:]}")
    settled = {step: mib for step, mib in seen.items() if step >= num_steps // 10 and mib}
    if not settled:
        raise GillError("the training was too short to be watched; give it more --steps")
    first = settled[min(settled)]
    return {"steps": num_steps, "resident_mib": first, "growth_mib": max(settled.values()) - first}


def peak_mib() -> float:
    """Most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB


def resident_mib(pid: int) -> float:
    """Memory a process has now; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / _MIB
    except (OSError, IndexError):
        return 0.0


def _last_step(metrics: Path) -> int:
    if not metrics.is_file():
        return 0
    lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


if __name__ == "__main__":
    sys.exit(main())
