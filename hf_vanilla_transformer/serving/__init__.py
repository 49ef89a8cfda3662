"""A trained model as a service: `vanilla-transformer serve`.

FastAPI and uvicorn, not LitServe, although LitServe brings batching and streaming: it collects batches by number of
requests and not by tokens, it holds requests in the queues of another process, from which it cannot take those whose
client has left (its issue 165, closed as "won't fix"), and a full queue has no answer of its own. What would be left of
it is what it is built on itself. So FastAPI reads, checks and documents requests, limits bodies and writes server-sent
events; uvicorn speaks HTTP, listens for signals and shuts down in order; prometheus_client counts. Here are the queue,
and what only this package knows: models, tags and languages.

`app.create_app` makes the application, for any ASGI server; `process.serve` is all of the command. This package needs
the extra `serve`, and Python 3.11.
"""
