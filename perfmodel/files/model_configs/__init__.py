"""How is a model read as hubs hold it, in a config.json or params.json?"""
