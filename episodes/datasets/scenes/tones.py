"""Tones of six made instruments, and how they are heard: samples, and a log spectrogram.

An instrument is what its partials weigh, how it rises and falls, and whether it swells. A tone has besides a
note, an octave, a loudness and a brightness, which is how much its upper partials weigh.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from episodes.counter import words

RATE, SAMPLES, WINDOW, HOP = 16_000, 64_000, 1024, 500
"""Samples a second, of a scene, of a window of the spectrogram, and from one window to the next."""
BANDS, FRAMES = 64, 128
LOWEST, HIGHEST = 250.0, 8000.0
"""The spectrogram's sizes, and the frequencies of its first and last band; two bands are a semitone apart."""
INSTRUMENTS = ("flute", "clarinet", "trumpet", "violin", "cello", "organ")
NOTES = ("c", "c-sharp", "d", "d-sharp", "e", "f", "f-sharp", "g", "g-sharp", "a", "a-sharp", "b")
LOUDNESS, BRIGHTNESS = ("quiet", "loud"), ("dark", "bright")
PARTIALS = np.array(
    (
        (1.0, 0.15, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0),  # flute
        (1.0, 0.0, 0.7, 0.0, 0.4, 0.0, 0.2, 0.0),  # clarinet: odd ones
        (0.4, 0.7, 1.0, 0.9, 0.7, 0.5, 0.3, 0.2),  # trumpet
        (1.0, 0.7, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3),  # violin
        (0.4, 1.0, 0.3, 0.1, 0.2, 0.1, 0.0, 0.0),  # cello
        (1.0, 0.9, 0.0, 0.8, 0.0, 0.0, 0.0, 0.7),  # organ: octaves
    )
)
"""Amplitudes of an instrument's partials."""
ATTACK = (0.04, 0.02, 0.08, 0.03, 0.01, 0.002)
DECAY = (0.0, 0.0, 0.0, 0.0, 6.0, 0.0)
TREMOLO = (0.0, 0.0, 0.0, 0.6, 0.0, 0.0)
"""Seconds in which a tone rises; by how many powers of e it falls in a second; by how much it swells, ten
times a second."""
SLOPE = (0.6, 1.2)
"""A dark and a bright tone: from one partial to the next their amplitude is this much of what it was."""
LEVEL, QUIET, GRAIN = 0.1, 10 ** (-9 / 20), 0.001
"""Mean square root of a loud tone; a quiet one's share of it; the noise's mean square root, -40 dB."""
NOISE = 403  # its stream of random numbers


def _bank() -> NDArray[np.float64]:
    """Every tone there is, without its rise and fall: [6 instruments, 12 notes, 2 octaves, 2, 7200]."""
    time = np.arange(7200) / RATE
    found = np.zeros((len(INSTRUMENTS), len(NOTES), 2, 2, len(time)))
    for note, octave in np.ndindex(len(NOTES), 2):
        pitch = 523.25 * 2 ** (note / 12 + octave)
        number = np.arange(1, 1 + PARTIALS.shape[1])
        sines = np.sin(2 * np.pi * pitch * number[:, None] * time) * (pitch * number < 7600)[:, None]
        for bright, slope in enumerate(SLOPE):
            found[:, note, octave, bright] = (PARTIALS * slope ** (number - 1)) @ sines
    return found * (LEVEL / np.sqrt((found**2).mean(-1, keepdims=True)))


def envelope(instrument: int, length: int) -> NDArray[np.float64]:
    """How a tone rises and falls: [length] factors."""
    time = np.arange(length) / RATE
    rise = np.minimum(1, time / ATTACK[instrument])
    fall = np.exp(-DECAY[instrument] * time) * np.minimum(1, (length / RATE - time) / 0.02)
    return rise * fall * (1 - TREMOLO[instrument] * (0.5 - 0.5 * np.cos(2 * np.pi * 10 * time)))


_banks: list[NDArray[np.float64]] = []  # made when it is first needed


def waves(
    numbers: NDArray[np.int64], seed: int, tones: NDArray[np.int64], spans: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What is heard in scenes of these numbers: [N, 64000]. tones and spans: as `tone_scenes.Scenes` has
    them."""
    if not _banks:
        _banks.append(_bank())
    grain = words(seed, numbers, NOISE, (SAMPLES // 4,)).view(np.uint16)  # [N, 64000]
    found = (grain / 65535 - 0.5) * (GRAIN * 12**0.5)
    for scene, i in zip(*np.nonzero(tones[..., 0] >= 0), strict=True):
        instrument, note, octave, loud, bright = tones[scene, i]
        start, length = spans[scene, i]
        tone = _banks[0][instrument, note, octave, bright, :length] * envelope(instrument, length)
        found[scene, start : start + length] += tone * (1 if loud else QUIET)
    return found


def bands() -> NDArray[np.float64]:
    """How much of each frequency of the transform a band takes: [513, 64], triangles on a log scale, at least
    a frequency wide."""
    at = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    step = (HIGHEST / LOWEST) ** (1 / (BANDS - 1))
    centres = LOWEST * step ** np.arange(BANDS)
    return np.maximum(0, 1 - np.abs(at[:, None] - centres) / np.maximum(centres * (step - 1), RATE / WINDOW))


def spectrogram(waves: NDArray[np.float64]) -> NDArray[np.uint8]:
    """``[N, 64000]`` -> uint8 [N, 64, 128]: half decibels above -60 dB of a loud tone's power, in Hann
    windows."""
    window, shares = np.hanning(WINDOW + 1)[:-1], bands()
    full = (LEVEL * window.sum()) ** 2 / 2
    found = np.empty((len(waves), BANDS, FRAMES), np.uint8)
    for number, wave in enumerate(waves):  # one by one they stay in the processor's cache
        padded = np.pad(wave, WINDOW // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:FRAMES]
        power = np.abs(np.fft.rfft(frames * window)) ** 2 @ shares  # [128, 64]
        level = 2 * (10 * np.log10(power / full + 1e-6) + 60)
        found[number] = np.clip(np.floor(level), 0, 255).T
    return found
