"""Models as hubs hold them: a config.json or params.json read as it is."""
