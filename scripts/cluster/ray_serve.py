"""Serve models with Ray Serve: the service of `vanilla-transformer serve` in as many copies as its load asks for.

    python scripts/cluster/ray_serve.py --model runs/en-de --languages en-de=en:de --min_replicas 1 --max_replicas 8
    vanilla-transformer benchmark serve --model runs/en-de --file test.en --url http://127.0.0.1:8000

It has the options of `serve`, but for those that are Ray's own business. Each replica has queues, limits and /metrics
of its own; Ray's proxy spreads requests over them, and Ray's own metrics count them all. Ctrl-C ends it.
`pip install "ray[serve]"`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from hf_vanilla_transformer.commands import serve as command
from hf_vanilla_transformer.commands.shared_options import check_engine_options
from hf_vanilla_transformer.serving.process import Service, load_app


def read_options(argv: Sequence[str] | None = None) -> tuple[Service, argparse.Namespace]:
    """Reads the options of `serve` and those of replicas."""
    parser = command.make_parser(None)
    parser.description, parser.epilog = __doc__, None
    replicas = parser.add_argument_group("replicas")
    replicas.add_argument("--min_replicas", type=int, default=1, metavar="N", help="(default: %(default)s)")
    replicas.add_argument("--max_replicas", type=int, default=2, metavar="N", help="(default: %(default)s)")
    replicas.add_argument("--ongoing", type=int, default=64, metavar="N", help="requests of a replica at a time, above "
        "which another replica is started (default: %(default)s)")  # fmt: skip
    replicas.add_argument("--cpus", type=float, default=1, help="of a replica, and its threads (default: %(default)s)")
    replicas.add_argument("--gpus", type=float, default=0, help="of a replica (default: %(default)s)")
    args = parser.parse_args(argv)
    check_engine_options(parser, args)
    if args.access_log:
        parser.error("--access_log is not for Ray, which writes one of its own into its folder of logs; leave it out")
    if args.shutdown_seconds is not None:
        parser.error("--shutdown_seconds is not for Ray, which ends replicas in its own way; leave it out")
    if args.port == 0:
        parser.error("--port 0 is not for Ray; say which")
    # Replicas may be anywhere; names of shipped checkpoints and of the Hub are found where they are.
    models, languages = command.models_and_languages(parser, args)
    folders = {name: str(Path(each).resolve()) if Path(each).exists() else each for name, each in models.items()}
    try:
        return command.make_service(args, folders, languages), args
    except (OSError, ValueError) as error:
        parser.error(str(error))


def main() -> None:
    """Serves until Ctrl-C."""
    service, args = read_options()
    from ray import serve  # which takes its time, and is not needed to refuse an option

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
    serve.start(http_options={"host": service.host, "port": service.port})
    serve.run(deployment.bind(), name="translate", blocking=True)


if __name__ == "__main__":
    main()
