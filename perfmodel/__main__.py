"""Entry point of ``moeplan`` and ``python -m perfmodel``."""


def main() -> None:
    """Run the command line."""
    from perfmodel.cli.app import run

    run()


if __name__ == "__main__":
    main()
