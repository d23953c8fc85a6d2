"""What the spectrum of a tile tells: how fine its detail is, and traces of a grid, of JPEG or of an enlargement.

Second derivatives of an enlarged picture are larger at some places between the old pixels than at others, again and again
with the period of the factor (Gallagher 2005, "Detection of linear and cubic interpolation in JPEG compressed images"). JPEG's
blocks leave a period of 8.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats32 = NDArray[np.float32]

_STEP = 4  # of the rows and columns whose spectra are averaged
_TINY = 1e-3


def sharpness(brightness: Floats32) -> float:
    """Return log10 of the power of fine detail over that of coarse detail: bands of 1/4 to 1/2 and up to 1/8 of the limit.

    A tile of noise comes to 0, real ones to -0.6 to -2, blurred ones to less than -2.1 (docs/audits.md).
    """
    centred = brightness - brightness.mean()
    power = _power(centred[::_STEP]) + _power(np.ascontiguousarray(centred.T[::_STEP]))
    n = len(power)
    coarse, fine = power[2 : max(n // 8, 3)].mean(), power[n // 4 : n // 2].mean()
    return float(np.log10((fine + _TINY) / (coarse + _TINY)))


def _power(lines: Floats32) -> NDArray[np.float64]:
    spectrum = fft.rfft(lines, axis=1)
    power: NDArray[np.float64] = (spectrum.real**2 + spectrum.imag**2).mean(axis=0, dtype=np.float64) / lines.shape[1]
    return power


def second_derivatives(brightness: Floats32) -> Floats32:
    """Return the mean size of second derivatives ``(2, size - 2)`` at each place across and down, 1 on average."""
    found = []
    for lines in (brightness, brightness.T):
        across = np.abs(2 * lines[:, 1:-1] - lines[:, :-2] - lines[:, 2:]).mean(axis=0)
        found.append(across / max(float(across.mean()), _TINY))
    return np.stack(found).astype(np.float32)


def periodic_peaks(derivatives: Floats32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies ``(n,)``, in cycles per pixel, and how far each stands out of its surroundings.

    Args:
        derivatives: ``(2, size - 2)``, of one tile or the mean of many, which shows weaker traces.
    """
    size = derivatives.shape[-1]
    window = np.hanning(size)
    flat = derivatives - _running_mean(derivatives)
    height = np.abs(np.fft.rfft(flat * window, axis=-1)).mean(axis=0)
    frequencies = np.fft.rfftfreq(size)
    used = frequencies > 0.1
    return np.asarray(frequencies[used], np.float64), np.asarray(height[used] / max(float(np.median(height[used])), _TINY))


def _running_mean(values: Floats32) -> Floats32:
    return np.asarray(cv2.blur(values, (15, 1)))


def is_of_jpeg(frequencies: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Return which frequencies are multiples of an eighth, as far as `size` places tell them apart."""
    return np.asarray(np.abs(frequencies * 8 - np.round(frequencies * 8)) / 8 < 2.5 / size)
