"""Tones and questions against a slow reference: answers by the words, the spectrogram window by window."""

import hashlib

import numpy as np
import pytest

from episodes.datasets.scenes import tone_scenes, tones
from episodes.errors import EpisodesError

SCENES = 150


@pytest.fixture(scope="module")
def scenes():
    return tone_scenes.draw(SCENES, 5, seed=3)


def like(tone, words) -> bool:
    """Whether all that the words say is true of a tone."""
    instrument, note, _, loud, bright = tone
    mine = {tones.INSTRUMENTS[instrument], tones.NOTES[note], tones.LOUDNESS[loud], tones.BRIGHTNESS[bright]}
    known = {*tones.INSTRUMENTS, *tones.NOTES, *tones.LOUDNESS, *tones.BRIGHTNESS}
    return all(word in mine for word in words if word in known)


def answer(sentence, heard, spans):
    """What is right, by the words."""
    words = sentence.split()
    if sentence.startswith("are there more"):
        more, less = sentence.split(" than ")
        counts = [sum(like(tone, part.split()) for tone in heard) for part in (more, less)]
        return "yes" if counts[0] > counts[1] else "no"
    found = [i for i, tone in enumerate(heard) if like(tone, words)]
    if sentence.startswith("is there"):
        return "yes" if found else "no"
    if sentence.startswith("how many"):
        return str(len(found))
    assert len(found) == 1, sentence
    instrument, note = heard[found[0]][:2]
    if "before" in words or "after" in words:
        return tones.INSTRUMENTS[heard[found[0] + (1 if "after" in words else -1)][0]]
    if sentence.startswith("what note"):
        return tones.NOTES[note]
    if sentence.startswith("in what part"):
        middle = (spans[found[0]][0] + spans[found[0]][1] / 2) / 16_000
        assert min(abs(middle - 4 / 3), abs(middle - 8 / 3)) >= 0.1
        return "beginning" if middle < 4 / 3 else "middle" if middle < 8 / 3 else "end"
    assert sentence.startswith("what instrument plays the")
    return tones.INSTRUMENTS[instrument]


def test_answers(scenes) -> None:
    for n in range(SCENES):
        heard = [tone for tone in scenes.tones[n].tolist() if tone[0] >= 0]
        for q in range(8):
            sentence = " ".join(tone_scenes.VOCABULARY[w] for w in scenes.questions[n, q] if w)
            expected = answer(sentence, heard, scenes.spans[n].tolist())
            assert expected == tone_scenes.ANSWERS[scenes.answers[n, q]], sentence
            begin = tone_scenes.PHRASES[scenes.asked[n, q]][0]
            assert sentence.startswith(begin) or (scenes.asked[n, q] == 6 and " right after " in sentence)


def test_tones_follow_each_other(scenes) -> None:
    for n in range(SCENES):
        there = scenes.tones[n, :, 0] >= 0
        assert 4 <= there.sum() <= 8 and there[: there.sum()].all()
        spans = scenes.spans[n][there]
        assert spans[:, 1].min() >= 4000 and spans[:, 1].max() <= 7200
        ends = spans.sum(1)
        assert spans[0, 0] > 0 and (spans[1:, 0] > ends[:-1]).all() and ends[-1] < tones.SAMPLES


def test_spectrogram_window_by_window(scenes) -> None:
    """Of one scene, sample by sample and frequency by frequency."""
    n = 3
    wave = np.zeros(tones.SAMPLES)
    for tone, (start, length) in zip(scenes.tones[n].tolist(), scenes.spans[n].tolist(), strict=True):
        instrument, note, octave, loud, bright = tone
        if instrument < 0:
            continue
        pitch, time = 440 * 2 ** ((note + 3) / 12 + octave), np.arange(7200) / 16_000
        sound = np.zeros(7200)
        for k in range(8):
            if pitch * (k + 1) < 7600:
                share = tones.PARTIALS[instrument, k] * (0.6, 1.2)[bright] ** k
                sound += share * np.sin(2 * np.pi * pitch * (k + 1) * time)
        sound *= 0.1 / np.sqrt((sound**2).mean()) * (1 if loud else 10 ** (-9 / 20))
        wave[start : start + length] += sound[:length] * tones.envelope(instrument, length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    padded = np.concatenate((np.zeros(512), wave, np.zeros(512)))
    step = 32 ** (1 / 63)
    for frame in range(0, 128, 9):
        power = np.abs(np.fft.fft(padded[500 * frame : 500 * frame + 1024] * window)[:513]) ** 2
        for band in range(0, 64, 3):
            centre = 250 * step**band
            half = max(centre * (step - 1), 15.625)
            weights = [max(0, 1 - abs(15.625 * i - centre) / half) for i in range(513)]
            level = 2 * (60 + 10 * np.log10(weights @ power / (0.1 * 512) ** 2 * 2 + 1e-6))
            found = scenes.sounds[n, band, frame]
            if level > 60:  # well above the noise, which this wave is without
                assert abs(found - level) < 1.5
            else:
                assert found < 75
    loudest = scenes.sounds.max((1, 2))
    assert loudest.min() > 80 and loudest.max() < 140


def test_a_tone_rises_and_falls() -> None:
    for instrument in range(6):
        shape = tones.envelope(instrument, 5000)
        assert shape[0] == 0 and shape.max() <= 1 and shape.max() > 0.5 and shape[-1] < 0.01


def test_the_question_alone_says_little(scenes) -> None:
    kinds = [(scenes.asked == n).mean() for n in range(7)]
    assert min(kinds) > 0.1 and max(kinds) < 0.19
    for n, most in ((0, 0.66), (1, 0.33), (2, 0.6), (3, 0.27), (4, 0.17), (5, 0.43), (6, 0.27)):
        counts = np.bincount(scenes.answers[scenes.asked == n])
        assert counts.max() / counts.sum() < most, n
    assert len({tuple(row) for row in scenes.questions.reshape(-1, tone_scenes.WORDS)}) > 600


def test_checksum() -> None:
    """Version 1 of seed 0: whoever changes what is drawn changes every record made with it."""
    scenes = tone_scenes.draw(60)
    parts = (scenes.questions.astype(np.uint8), scenes.answers.astype(np.uint8), scenes.tones.astype(np.int8))
    summed = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
    assert summed.hexdigest()[:16] == "ce0e5eaf4a2f234f"
    # what is heard goes through transforms that machines may round differently
    sounds = scenes.sounds.astype(np.int64)
    assert abs(int(sounds.sum()) - 6_889_550) < 100
    assert abs(int((sounds * np.arange(64)[:, None] * np.arange(128)).sum()) - 17_964_435_515) < 300_000


def test_splits_are_apart_and_scene_i_is_scene_i() -> None:
    parts = [tone_scenes.split(name, 20) for name in ("test", "val", "train")]
    assert len(np.unique(np.concatenate([part.sounds.reshape(20, -1) for part in parts]), axis=0)) == 60
    some = tone_scenes.draw(5, 2010)
    for name in ("sounds", "tones", "spans", "asked", "questions", "answers"):
        assert np.array_equal(getattr(some, name), getattr(parts[2], name)[10:15])
    assert not np.array_equal(some.sounds, tone_scenes.draw(5, 2010, seed=1).sounds)
    with pytest.raises(EpisodesError, match="no split 'x'; there are test, val, train"):
        tone_scenes.split("x")
    with pytest.raises(EpisodesError, match="1001 scenes of test, which has 1000"):
        tone_scenes.split("test", 1001)
    with pytest.raises(EpisodesError, match="0 scenes from number 0"):
        tone_scenes.draw(0)
