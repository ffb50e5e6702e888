"""Arguments in, tables out. No numerics, no SQL."""
