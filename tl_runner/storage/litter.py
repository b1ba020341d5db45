"""Names that other programs leave in folders: none of them is a class, a domain or an image."""

# Folders of macOS, Synology, QNAP, Windows, Linux and Python; names that begin with a dot are hidden anyway.
FOLDERS = {
    "__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "$recycle.bin",
    "system volume information", "lost+found", "__pycache__",
}  # fmt: skip
FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden (`.git`, `._x.jpg`) or left by another program (`@eaDir`)."""
    return name.startswith(".") or name.casefold() in FOLDERS | FILES
