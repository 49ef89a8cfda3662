"""Runs of recurrent models that have never been trained, for tests of what is said of them."""

from hf_vanilla_transformer.lab.recurrent_runs import TrainedRun


def trained(name, losses, final_loss=1.0, model=None, **more):
    fields = {"preset": "recurrent", "model": model or name, "learning_rate": 0.001, "parameters": 1234}
    fields |= {"updates": 5000, "minutes": 10.0, "clock": "cpu", "tokens_per_second": 1234.5, **more}
    return TrainedRun(name=name, losses=losses, final_loss=final_loss, **fields)
