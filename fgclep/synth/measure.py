"""Exact measurements of a noise-free beat: intervals, levels and per-lead shapes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.leads import LEADS
from fgclep.synth.waves import TO_TWELVE, Floats, Waves

_STEP_S = 0.002
_QRS_GRID: Floats = np.arange(-0.16, 0.24, _STEP_S)
_P_GRID: Floats = np.arange(-0.06, 0.26, _STEP_S)
_T_GRID: Floats = np.arange(-0.06, 1.0, _STEP_S)


def span(waves: Waves, grid: Floats, least_mv: float, fraction: float) -> tuple[float, float]:
    """Return begin and end (s) of waves: where the largest lead first and last exceeds the threshold."""
    size = np.abs(TO_TWELVE @ waves.sample(grid)).max(axis=0)
    above = np.flatnonzero(size > max(least_mv, fraction * size.max()))
    return float(grid[above[0]]), float(grid[above[-1]])


def qrs_span(qrs: Waves) -> tuple[float, float]:
    """Return QRS onset and end, seconds from the beat's reference."""
    return span(qrs, _QRS_GRID, 0.025, 0.03)


def p_span(p: Waves) -> tuple[float, float]:
    """Return P onset and end, seconds from the P wave's reference."""
    return span(p, _P_GRID, 0.005, 0.08)


def t_end(t: Waves) -> float:
    """Return the end of T by the tangent at its steepest late slope, seconds from the beat's reference."""
    size = np.sqrt((t.sample(_T_GRID) ** 2).sum(axis=0))
    peak = int(size.argmax())
    slope = np.diff(size[peak:])
    steepest = peak + int(slope.argmin())
    return float(_T_GRID[steepest] - size[steepest] / (slope.min() / _STEP_S))


@dataclass(frozen=True)
class LeadShape:
    """What one lead shows in the noise-free beat; amplitudes in mV, durations in ms."""

    r_mv: float
    s_mv: float
    q_depth_mv: float
    q_duration_ms: float
    st_mv: float
    t_mv: float
    peak_to_peak_mv: float


def lead_shapes(
    qrs: Waves, span_s: tuple[float, float], repolarisation: Waves, t: Waves, to_leads: Floats
) -> dict[str, LeadShape]:
    """Measure every lead of a beat.

    Args:
        qrs: ventricular depolarisation.
        span_s: its measured onset and end.
        repolarisation: ST segment, T and U together.
        t: the T wave alone, whose peak times the search for each lead's T amplitude.
        to_leads: (12, 8) matrix from independent to displayed leads.

    Returns:
        lead name -> shape. ST level is at J + 60 ms, T the largest deflection around the T wave.
    """
    onset, j = span_s
    inside = np.arange(onset, j + 1e-9, _STEP_S)
    whole = to_leads @ qrs.sample(inside)
    late = to_leads @ repolarisation.sample(_T_GRID)
    st = late[:, int(np.argmin(np.abs(_T_GRID - j - 0.06)))]
    t_window = _t_search_window(t, j)
    late_t = late[:, t_window]
    peaks = late_t[np.arange(12), np.abs(late_t).argmax(axis=1)]
    shapes = {}
    for row, lead in enumerate(LEADS):
        depth, duration = _q_wave(whole[row])
        shapes[lead] = LeadShape(
            r_mv=float(max(whole[row].max(), 0.0)),
            s_mv=float(max(-whole[row].min(), 0.0)),
            q_depth_mv=depth,
            q_duration_ms=duration,
            st_mv=float(st[row]),
            t_mv=float(peaks[row]),
            peak_to_peak_mv=float(np.ptp(whole[row])),
        )
    return shapes


def _t_search_window(t: Waves, j: float) -> NDArray[np.bool_]:
    """Return which samples of the repolarisation grid may hold the T peak of a lead."""
    centre = float(np.average(t.centre, weights=np.abs(t.weights).sum(axis=0)))
    half = max(1.2 * float(t.right.max()), 0.02)
    times = _T_GRID
    return np.asarray((times >= min(max(centre - half, j + 0.08), centre)) & (times <= centre + half))


def _q_wave(lead: Floats) -> tuple[float, float]:
    """Return depth (mV) and duration (ms) of an initial negative deflection; zeros if the first one is positive.

    A complex that stays negative (QS) counts as a Q as long as the whole deflection.
    """
    strong = np.flatnonzero(np.abs(lead) > 0.025)
    if strong.size == 0 or lead[strong[0]] > 0:
        return 0.0, 0.0
    begin = strong[0]
    positive = np.flatnonzero(lead[begin:] > 0)
    end = begin + (positive[0] if positive.size else lead.size - begin)
    return float(-lead[begin:end].min()), float((end - begin) * _STEP_S * 1000)
