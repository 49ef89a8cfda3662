"""Compare speed and memory with a peer doing the same work, in turns; prints medians and their ratio."""

import argparse

import torch

from ..lab.benchmarks import WORKLOADS, compare_loss, compare_train_step
from ..lab.decode_benchmark import Cell, compare_decoding
from ..lab.train_benchmark import compare_training


def main() -> int:
    """Reads what to compare, and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Close other programs first: timings are noisy.")
    commands = parser.add_subparsers(dest="command", required=True)
    train_step = commands.add_parser("train-step", help="forward and backward, against MarianMTModel")
    train_step.add_argument("--sizes", nargs="+", choices=WORKLOADS, default=["tiny", "base"], help="work to compare")
    loss = commands.add_parser("loss", help="projection and label-smoothed loss, against F.cross_entropy")
    train = commands.add_parser("train", help="training end to end, against MarianMT with transformers' trainer")
    train.add_argument("--train_data", nargs="+", required=True, help="pairs, such as source=train.en,target=train.de")
    train.add_argument("--turns", type=int, default=3, help="measured epochs of each program (%(default)s)")
    train.add_argument("--sentences", type=int, default=6400, help="pairs to train on (%(default)s)")
    decode = commands.add_parser("decode", help="greedy and beam search, against MarianMTModel and CTranslate2")
    decode.add_argument(
        "--sizes", nargs="+", choices=["tiny", "base"], default=["tiny", "base"], help="models to decode"
    )
    decode.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 32], help="sentences decoded together")
    decode.add_argument("--num_beams", nargs="+", type=int, default=[1, 4], help="beams; 1 is greedy")
    decode.add_argument("--steps", type=int, default=20, help="tokens of each translation (%(default)s)")
    decode.add_argument("--repeats", type=int, default=5, help="turns of each program (%(default)s)")
    for command in (train_step, loss):
        command.add_argument("--repeats", type=int, default=10, help="measured steps of each program (%(default)s)")
    args = parser.parse_args()

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if args.command == "loss":
        print("\n".join(compare_loss(args.repeats).lines()))
    elif args.command == "train":
        print("\n".join(compare_training(args.train_data, turns=args.turns, sentences=args.sentences).lines()))
    elif args.command == "decode":
        for size in args.sizes:
            for batch_size in args.batch_sizes:
                for num_beams in args.num_beams:
                    cell = Cell(size, batch_size, num_beams, steps=args.steps)
                    comparison = compare_decoding(cell, args.repeats)
                    print("\n".join(comparison.lines()), end="\n\n", flush=True)
    else:
        for size in args.sizes:
            print("\n".join(compare_train_step(size, args.repeats).lines()), end="\n\n")
    return 0
