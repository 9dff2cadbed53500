"""What a run takes of its machine, gathered from the engine's answers. Pure data, no widgets."""

from __future__ import annotations

from typing import Any

from tfm.core.engine.protocol import Box, TrainerStats


class Machine:
    """The newest figures of the machine, and the load of the trainer between the last two of them."""

    def __init__(self) -> None:
        self.box: Box | None = None
        self.trainer: TrainerStats | None = None
        self.load: float | None = None  # percent of one core, over all its processes

    def take(self, box: Box | None, trainer: TrainerStats | None) -> None:
        before = self.trainer
        self.box, self.trainer = box, trainer
        if trainer is None or before is None or before.pid != trainer.pid or trainer.at <= before.at:
            self.load = None if trainer is None or before is None or before.pid != trainer.pid else self.load
        else:
            used = max(0.0, trainer.cpu_seconds - before.cpu_seconds)
            self.load = 100 * used / (trainer.at - before.at)

    def figures(self) -> list[tuple[str, str]]:
        """Names and values for a person; what nothing says is a dash."""
        box, trainer = self.box, self.trainer
        if box is None:
            return []
        used = f"{trainer.memory / 1e9:.1f}" if trainer else "-"
        mine = [("memory", f"{used} of {gigabytes(box.memory_total)}")]
        if trainer is not None and trainer.gpu_memory is not None:
            mine.append(("on the gpu", gigabytes(trainer.gpu_memory)))
        heat = f" {box.cpu_temperature:.0f} °C" if box.cpu_temperature is not None else ""
        load = f"{self.load:.0f} %" if self.load is not None else "-"
        return [*mine, ("cpu", load), ("machine", f"{box.cpu_percent:.0f} %{heat}"), *_cards(box.gpus)]


def _cards(gpus: tuple[dict[str, Any], ...]) -> list[tuple[str, str]]:
    """One entry a card: load, memory, temperature, power, as far as it says."""
    if not gpus:
        return [("gpu", "-")]
    entries = []
    for number, gpu in enumerate(gpus):
        parts = [f"{gpu['utilisation']} %"] if "utilisation" in gpu else []
        if "memory_used" in gpu and "memory_total" in gpu:
            parts.append(f"{gpu['memory_used'] / 1e9:.0f}/{gigabytes(gpu['memory_total'])}")
        parts += [f"{gpu['temperature']} °C"] if "temperature" in gpu else []
        parts += [f"{gpu['watts']:.0f} W"] if "watts" in gpu else []
        entries.append((f"gpu {number}" if len(gpus) > 1 else "gpu", " ".join(parts) or "-"))
    return entries


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number < 1e11 else f"{number / 1e9:.0f} GB"
