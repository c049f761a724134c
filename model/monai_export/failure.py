"""What keeps a bundle from being exported."""


class ExportError(Exception):
    """Says what is at fault and what can be done."""
