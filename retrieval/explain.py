"""Add to the hits of a text query the leads that carry its evidence; the search itself stays as fast as it is."""

from dataclasses import replace

from retrieval.encoder import Vector
from retrieval.evidence import EvidenceReader
from retrieval.searcher import Result


def explain(result: Result, reader: EvidenceReader, text_vector: Vector) -> Result:
    """Return the result with evidence in its hits.

    Args:
        result: of a query with a text.
        reader: of the index that was searched.
        text_vector: of the query's text, float32 (D,), unit norm.

    Returns:
        The same hits; a note tells how many records could not be read.
    """
    read = [reader.read(hit.row, text_vector) for hit in result.hits]
    hits = tuple(replace(hit, evidence=leads or ()) for hit, leads in zip(result.hits, read, strict=True))
    missing = sum(leads is None for leads in read)
    if not missing:
        return replace(result, hits=hits)
    where = result.index["data_root"]
    note = f"No evidence for {missing} of {len(hits)} hits: their waveforms cannot be read at {where}."
    return replace(result, hits=hits, notes=(*result.notes, note))
