"""Numbers as people say them."""


def duration(seconds: float) -> str:
    """Say a number of seconds: ``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def gigabytes(count: int) -> str:
    """Say a number of bytes: ``0.31 GB``, ``3.1 GB``, ``24 GB``."""
    size = count / 2**30
    return f"{size:.{2 if size < 1 else 1 if size < 10 else 0}f} GB"
