"""Published encoders behind `fgclep.evaluation.encoders.Encoder`, each with its own input contract (METHOD E0)."""
