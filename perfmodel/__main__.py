"""Entry point of ``moeplan`` and ``python -m perfmodel``."""


def main() -> None:
    """Run the command line."""
    try:
        from perfmodel.cli.app import run

        run()
    except KeyboardInterrupt:  # before the command line is there to handle it
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
