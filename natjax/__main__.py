"""`python -m natjax` is the same program as `natjax`."""

from natjax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
