"""Step 2 of FG-CLEP: ask for the waveform features behind each report, and keep those that the ECG bears out."""
