"""Serve models with Ray Serve: the service of `vanilla-transformer serve` in as many copies as its load asks for.

    python scripts/cluster/ray_serve.py --model runs/en-de --min_replicas 1 --max_replicas 8
    vanilla-transformer benchmark serve --model runs/en-de --file test.en --url http://127.0.0.1:8000

Each replica has queues, limits and /metrics of its own; Ray's proxy spreads requests over them, and Ray's own metrics
count them all. Ctrl-C ends it. `pip install "ray[serve]"`.
"""

import argparse
import os
from pathlib import Path

from fastapi import FastAPI
from ray import serve

from hf_vanilla_transformer.serving.process import Service, load_app


def main() -> None:
    """Reads the options, and serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, help="folders of trained models")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--min_replicas", type=int, default=1)
    parser.add_argument("--max_replicas", type=int, default=2)
    parser.add_argument("--ongoing", type=int, default=64, help="requests of a replica at a time, above which another "
        "replica is started (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cpus", type=float, default=1, help="of a replica, and its threads (default: %(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="of a replica (default: %(default)s)")
    args = parser.parse_args()
    # Replicas may be anywhere.
    folders = {Path(folder).name: str(Path(folder).resolve()) for folder in args.model}
    if len(folders) < len(args.model):
        parser.error("models are called by the names of their folders, and two have the same; rename one")
    service = Service(folders, {}, host=args.host, token=os.environ.get("VANILLA_TRANSFORMER_TOKEN"))

    def build() -> FastAPI:
        """Made by each replica for itself: models are loaded where they are used."""
        return load_app(service)

    deployment = serve.deployment(
        serve.ingress(build)(),
        name="translate",
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": args.ongoing,
        },
        # The service itself refuses what is too much, with 429.
        max_ongoing_requests=service.limits.max_connections,
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
    )
    serve.start(http_options={"host": args.host, "port": args.port})
    serve.run(deployment.bind(), name="translate", blocking=True)


if __name__ == "__main__":
    main()
