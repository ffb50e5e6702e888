"""fgclep: find ECGs by what they look like, in words.

This package holds the science: records, text, models and training. It knows no index and no terminal.
"""

__version__ = "0.1.0"
