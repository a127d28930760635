"""Data that look like what the real models of the zoo were made for: speech in noise, and lines of text.

Random numbers do not: their ranges are not those of speech or print, and static int8 is all about ranges.  Everything
is computed from a seed with NumPy and Pillow (10.1 or newer, whose own font is used), so that every machine gets the
same samples without downloading any.  The speech is synthetic: a glottal pulse train through four moving resonances,
with hisses and pauses.  It is good enough to fill the ranges that speech fills, and no more is claimed of it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgequant.zoo import fetch

Sample = dict[str, np.ndarray]

SAMPLE_RATE = 48_000
WINDOW, HOP = 960, 480
"""Samples per frame and between frames: 20 ms and 10 ms, as DeepFilterNet3 takes them."""
ERB_BANDS, SPEC_BINS = 32, 96
_FORGET = 0.99
"""Of the running normalization: a time constant of 1 s at 100 frames a second."""
WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "invoice", "total", "amount", "2024", "Street"),
    *("No.", "price", "$19.99", "Berlin", "Tokyo", "contact@mail.com", "model", "quantized", "layer", "error", "48kHz"),
    *("ABC-1234", "Serial:", "X99Z", "speed", "limit", "open", "daily", "8:00-17:30", "welcome", "exit", "north"),
)


# ---- speech


def speech(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Something with the spectrum and the rhythm of speech: float64 [seconds * SAMPLE_RATE], largest value 0.5."""
    count = int(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    wander = 30 * np.cumsum(rng.standard_normal(count)) / np.sqrt(count)
    pitch = 120 + 60 * rng.random() + wander + 20 * np.sin(2 * np.pi * 3 * time + 6 * rng.random())
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    out = np.zeros(count)
    syllable = int(0.12 * SAMPLE_RATE)
    for start in range(0, count, syllable):
        part = slice(start, min(count, start + syllable))
        length = part.stop - part.start
        kind, sound = rng.random(), np.zeros(length)
        if kind < 0.65:
            sound = _voiced(rng, phase[part], float(pitch[part].mean()))
        elif kind < 0.85:
            sound = np.diff(rng.standard_normal(length), prepend=0.0) * 0.3
        out[part] = sound * np.hanning(length + 2)[1:-1] ** 0.3 * rng.uniform(0.2, 1)
    return out / (np.abs(out).max() + 1e-9) * 0.5


def _voiced(rng: np.random.Generator, phase: np.ndarray, pitch: float) -> np.ndarray:
    """Harmonics up to 8 kHz, weighted by four resonances."""
    ranges = ((250, 900), (800, 2500), (2200, 3500), (3500, 5000))
    centres = np.array([rng.uniform(*each) for each in ranges])
    widths = np.array([80.0, 120.0, 160.0, 250.0])
    gains = 10 ** (-6 * np.arange(4) / 20)
    sound = np.zeros(len(phase))
    for harmonic in range(1, int(8000 / pitch)):
        level = gains @ np.exp(-0.5 * ((harmonic * pitch - centres) / (2 * widths)) ** 2) + 0.02 / harmonic
        sound += level * np.sin(harmonic * phase + 0.3 * harmonic**2)
    return sound


@functools.cache
def erb_widths() -> tuple[int, ...]:
    """How many frequency bins each band of the ERB scale has, at least 2; together WINDOW / 2 + 1.

    Source: Glasberg and Moore 1990, ERB(f) = 24.7 (f / 228.8 + 1), integrated, as DeepFilterNet's libdf does it.
    """
    top = 9.265 * np.log1p(SAMPLE_RATE / 2 / (24.7 * 9.265))
    widths, before, over = [], 0, 0
    for band in range(1, ERB_BANDS + 1):
        edge = 24.7 * 9.265 * np.expm1(band * top / ERB_BANDS / 9.265)
        border = round(edge / (SAMPLE_RATE / WINDOW))
        width = border - before - over
        over = max(2 - width, 0)
        widths.append(max(width, 2))
        before = border
    widths[-1] += WINDOW // 2 + 1 - sum(widths)
    return tuple(widths)


def features(sound: np.ndarray) -> Sample:
    """DeepFilterNet3's inputs: feat_erb float32 [1, 1, S, 32] and feat_spec float32 [1, 2, S, 96].

    Log energy of each ERB band less its running mean, over 40 dB; the complex spectrum over its running level.
    """
    window = np.sin(np.pi / 2 * np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW) ** 2)
    frames = np.array([sound[at : at + WINDOW] * window for at in range(0, len(sound) - WINDOW, HOP)])
    spectrum = np.fft.rfft(frames, axis=1) / WINDOW
    edges = np.cumsum([0, *erb_widths()])
    power = np.abs(spectrum) ** 2
    bands = [power[:, low:high].mean(1) for low, high in itertools.pairwise(edges)]
    energy = 10 * np.log10(np.stack(bands, 1) + 1e-10)
    mean, level = np.linspace(-60.0, -90.0, ERB_BANDS), np.linspace(0.001, 0.0001, SPEC_BINS)
    erb, spec = np.empty_like(energy), np.empty((len(frames), SPEC_BINS), complex)
    for number, (loud, bins) in enumerate(zip(energy, spectrum[:, :SPEC_BINS], strict=True)):
        mean = loud * (1 - _FORGET) + mean * _FORGET
        level = np.abs(bins) * (1 - _FORGET) + level * _FORGET
        erb[number], spec[number] = (loud - mean) / 40, bins / np.sqrt(level)
    return {
        "feat_erb": erb[None, None].astype(np.float32),
        "feat_spec": np.stack([spec.real, spec.imag])[None].astype(np.float32),
    }


def noisy_speech(count: int, seed: int) -> list[Sample]:
    """Utterances of 0.8 to 2.5 s in white or rumbling noise, -5 to 30 dB above it, up to 30 dB softer than full."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        clean = speech(rng, rng.uniform(0.8, 2.5))
        noise = rng.standard_normal(len(clean))
        if number % 2:
            noise = np.cumsum(noise)
            noise -= np.convolve(noise, np.full(2000, 1 / 2000), "same")
        noise *= clean.std() / noise.std() * 10 ** (-rng.uniform(-5, 30) / 20)
        found.append(features((clean + noise) * 10 ** (rng.uniform(-30, 0) / 20)))
    return found


def decoder_inputs(names: tuple[str, ...], count: int, seed: int) -> list[Sample]:
    """What DeepFilterNet3's encoder hands to a decoder: its outputs of these names, by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(fetch("enc")), providers=["CPUExecutionProvider"])
    return [dict(zip(names, session.run(list(names), each), strict=True)) for each in noisy_speech(count, seed)]


# ---- text


def text_line(rng: np.random.Generator) -> Image.Image:
    """One to six words, dark on light or light on dark, with a little noise: RGB, as high as the print."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.integers(1, 7)))
    font = ImageFont.load_default(int(rng.integers(26, 37)))
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    pad = int(rng.integers(2, 9))
    paper, ink = rng.integers(180, 256, 3), rng.integers(0, 81, 3)
    if rng.random() >= 0.75:
        paper, ink = rng.integers(0, 71, 3), rng.integers(180, 256, 3)
    picture = Image.new("RGB", (right - left + 2 * pad, bottom - top + 2 * pad), tuple(map(int, paper)))
    ImageDraw.Draw(picture).text((pad - left, pad - top), text, font=font, fill=tuple(map(int, ink)))
    pixels = np.asarray(picture).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape) * rng.uniform(0, 8)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _tensor(picture: Image.Image, size: tuple[int, int], mean: object, deviation: object) -> Sample:
    """BGR, channels first: x float32 [1, 3, height, width]."""
    pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).astype(np.float32)[:, :, ::-1] / 255
    scaled = (pixels - np.asarray(mean, np.float32)) / np.asarray(deviation, np.float32)
    return {"x": np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)}


def lines_to_read(count: int, seed: int) -> list[Sample]:
    """Inputs of ppocr_rec: lines of text 48 pixels high, as wide as they come out (48 to 960)."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        picture = text_line(rng)
        width = min(max(48, 48 * picture.width // picture.height), 960)
        found.append(_tensor(picture, (width, 48), 0.5, 0.5))
    return found


def lines_to_turn(count: int, seed: int) -> list[Sample]:
    """Inputs of ppocr_cls: lines of text 160 by 80 pixels, every second one or so upside down."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        picture = text_line(rng)
        if rng.random() < 0.5:
            picture = picture.rotate(180)
        found.append(_tensor(picture, (160, 80), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return found


SOURCES: dict[str, Callable[[int, int], list[Sample]]] = {
    "enc": noisy_speech,
    "erb_dec": functools.partial(decoder_inputs, ("emb", "e3", "e2", "e1", "e0")),
    "df_dec": functools.partial(decoder_inputs, ("emb", "c0")),
    "ppocr_cls": lines_to_turn,
    "ppocr_rec": lines_to_read,
}


def samples(name: str, count: int, seed: int) -> list[Sample]:
    """`count` samples for a model of the zoo; the same ones for the same seed."""
    return SOURCES[name](count, seed)
