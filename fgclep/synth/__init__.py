"""Synthetic 12-lead ECGs: a moving heart dipole seen by eight independent leads, with exact truth.

`waves` holds the dipole algebra, `beats` the shapes, `cases` the choice of findings, `rhythm` the timing,
`measure` the exact measurements, `truth` the findings that follow from them, `reports` the wording and
`artefacts` the noise. The door is `fgclep.datasets.synthetic`.
"""
