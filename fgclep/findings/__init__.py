"""The findings fgclep knows by name: ids, wordings, and how data sets label them."""
