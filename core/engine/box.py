"""What the machine is doing: processor, memory, NVIDIA cards. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import psutil

from tfm.core.engine.protocol import Box

_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # of the kernel's drivers


def box_stats(request_id: int) -> Box:
    """Figures of this moment; memory in bytes, loads in percent, temperatures in degrees Celsius.

    The processor's load is the mean over 0.1 s, which is how long this takes.
    """
    memory = psutil.virtual_memory()
    return Box(
        id=request_id,
        cpu_percent=psutil.cpu_percent(interval=0.1),
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        gpus=gpu_stats(),
        cpu_temperature=_cpu_temperature(),
    )


def _cpu_temperature() -> float | None:
    """Of the hottest sensor of the processor; None where the system shows none (containers, macOS)."""
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    names = [name for name in _CPU_SENSORS if name in sensors]
    readings = [sensor.current for name in names for sensor in sensors[name] if sensor.current]
    return max(readings, default=None)


def gpu_stats() -> tuple[dict[str, Any], ...]:
    """One dict a card: name, memory_used, memory_total, utilisation, temperature, watts.

    A figure that a card does not give is left out. No driver, no cards: an empty tuple.
    """
    import pynvml

    try:
        pynvml.nvmlInit()  # counts its users, so that two threads may be in here
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_card(pynvml, handle) for handle in handles)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def gpu_memory_of(pids: Collection[int]) -> int | None:
    """Bytes of all cards' memory that these processes hold; None where no driver says."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        holders = [user for handle in handles for user in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    held = [user.usedGpuMemory for user in holders if user.pid in pids and user.usedGpuMemory]
    return sum(held) if held else None  # inside a container the driver names other ids


def _card(nvml: Any, handle: Any) -> dict[str, Any]:
    def name() -> Any:
        raw = nvml.nvmlDeviceGetName(handle)
        return raw.decode() if isinstance(raw, bytes) else raw

    readings: dict[str, Callable[[], Any]] = {
        "name": name,
        "memory_used": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
        "memory_total": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total,
        "utilisation": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "temperature": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    card: dict[str, Any] = {}
    for key, read in readings.items():
        try:
            card[key] = read()
        except nvml.NVMLError:  # a virtual card, or one too old to know
            continue
    return card
