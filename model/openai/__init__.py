"""The ``openai`` engine: any server that speaks OpenAI's protocol, one or several of them.

``engine.py`` is the engine, ``probe.py`` finds out what a server can do, ``dialects.py`` says it in
the server's words, ``client.py`` asks it. ``endpoint.py`` is one server with its health
(``breaker.py``) and its pace (``pace.py``); ``fleet.py`` is all of them, and whose turn it is.
"""
