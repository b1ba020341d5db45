"""Sound files as people have them, in real formats."""

from pathlib import Path

import numpy as np
import soundfile

Wave = np.ndarray  # (samples,) or (samples, channels), in [−1, 1]


def tone(hz: float, seconds: float = 0.5, rate: int = 16000, level: float = 0.3) -> Wave:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write(path: Path, wave: Wave, rate: int = 16000, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


def write_domains(root: Path, domains: str = "ab", files: int = 8, ending: str = ".wav", rate: int = 16000) -> Path:
    """Two classes, a low and a high tone with noise, of so many files in each of the domains; every file is another."""
    for domain in domains:
        draw = np.random.default_rng(ord(domain))
        for name, hz in (("high", 1500), ("low", 300)):
            for i in range(files):
                wave = tone(hz * draw.uniform(0.9, 1.1), rate=rate)
                write(root / domain / name / f"{i}{ending}", wave + 0.02 * draw.standard_normal(len(wave)), rate)
    return root
