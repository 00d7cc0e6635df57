"""Sizes of files, disks and memory, for people."""


def size_text(size: float) -> str:
    """A number of bytes for people, decimal as disks and downloads are: 1 kB is 1,000 bytes.

    Example:
        >>> size_text(23_459_000)
        '23 MB'
        >>> size_text(3_100_000_000)
        '3.1 GB'
    """
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB" if size < 999.95 else f"{size / 1000:.1f} TB"
