"""ECG and text encoders, and the dual encoder that joins them."""
