"""Where in an ECG a text is seen: a map over 12 leads x time windows.

A model with a tag head says it itself, and so does a tower that yields one token per lead and window: the vector is a
sum over patches, and so is its similarity to a text. Any other model is asked by occlusion.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgclep.leads import LEADS

if TYPE_CHECKING:
    from fgclep.models.dual_encoder import FGCLEPModel

WINDOWS = 10
"""Time windows per lead of an occlusion map; 1 s each in a 10 s ECG, so that each holds about one beat."""


def evidence(model: "FGCLEPModel", prepared: NDArray[np.float32], text: str) -> NDArray[np.float32]:
    """Return what each lead and window of an ECG adds to its similarity to a text.

    Args:
        model: a dual encoder.
        prepared: float32, shape (12, n_samples), as `EcgProcessor.prepare` returns it.
        text: what is looked for.

    Returns:
        float32, shape (12, windows); positive speaks for the text. See `evidence_maps`.

    Raises:
        ValueError: if the ECG has another shape than the model's input.
    """
    only: NDArray[np.float32] = evidence_maps(model, prepared, model.encode_text([text]))[0]
    return only


def evidence_maps(
    model: "FGCLEPModel", prepared: NDArray[np.float32], text_vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the evidence for several texts, which costs hardly more than for one.

    Three kinds, the best that the model can give:

    - with a tag head: what each patch adds to the cosine of the text and its tag-specific vector (the map adds up to
      that cosine);
    - patch tokens that are averaged (pool `mean`): what each patch adds to the cosine of the text and the pooled vector
      (adds up to the similarity that search ranks by);
    - otherwise: `occlusion_maps`.

    Args:
        model: a dual encoder.
        prepared: float32, shape (12, n_samples).
        text_vectors: float32, unit norm, shape (texts, dim).

    Returns:
        float32, shape (texts, 12, windows).

    Raises:
        ValueError: as `evidence`.
    """
    from fgclep.models.vit1d import ViT1d

    expected = (len(LEADS), model.config.n_samples)
    if prepared.shape != expected:
        raise ValueError(f"found an ECG of shape {prepared.shape}; expected {expected}")
    averaged = isinstance(model.ecg_encoder.tower, ViT1d) and model.ecg_encoder.pool == "mean"
    if model.tag_head is None and not averaged:
        return occlusion_maps(model, prepared, text_vectors)
    return _shares_of_patches(model, prepared, text_vectors)


def occlusion_maps(
    model: "FGCLEPModel", prepared: NDArray[np.float32], text_vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return how far each similarity falls when one window of one lead is held at the lead's median.

    One lead's other windows stay, because a lead that is flat throughout is an ECG unlike any in training, whose
    similarities say little. Findings that a single window shows (an ectopic beat) stand out; of those that every beat
    shows, each window holds a part. Arguments and result as of `evidence_maps`.
    """
    leads, samples = prepared.shape
    edges = np.linspace(0, samples, WINDOWS + 1).astype(int)
    copies = np.repeat(prepared[None], 1 + leads * WINDOWS, axis=0)
    baseline = np.median(prepared, axis=1)
    for lead in range(leads):
        for window in range(WINDOWS):
            copies[1 + lead * WINDOWS + window, lead, edges[window] : edges[window + 1]] = baseline[lead]
    similarity = text_vectors @ model.encode_ecg(copies).T  # (texts, copies)
    falls = similarity[:, :1] - similarity[:, 1:]
    return falls.reshape(len(text_vectors), leads, WINDOWS).astype(np.float32)


def _shares_of_patches(
    model: "FGCLEPModel", prepared: NDArray[np.float32], text_vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Split each similarity into what the patches add to it."""
    import torch

    model.eval()
    with torch.inference_mode():
        waveform = torch.from_numpy(prepared[None]).to(model.device)
        texts = torch.from_numpy(text_vectors).to(model.device)
        if model.tag_head is None:
            tokens = model.ecg_encoder.tower(waveform)
            patches = model.ecg_encoder.project(tokens[0].T)  # linear without bias: may come before the mean
            shares = texts @ patches.T / (len(patches) * patches.mean(dim=0).norm())
        else:
            shares = model.tag_head.align_queries(model.patch_tokens(waveform), texts).evidence[0]
    return np.asarray(shares.reshape(len(texts), len(LEADS), -1).float().cpu().numpy(), np.float32)
