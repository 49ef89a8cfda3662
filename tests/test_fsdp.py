"""FSDP: what it would not save is refused before training. (test_accelerate_files.py has how it divides the model.)"""

import pytest
from accelerate.utils import DistributedType
from torch.distributed.fsdp import StateDictType

from hf_vanilla_transformer.training.fsdp import refuse_unsaved_models

FULL, SHARDED = StateDictType.FULL_STATE_DICT, StateDictType.SHARDED_STATE_DICT


@pytest.mark.parametrize("kind", [SHARDED, StateDictType.LOCAL_STATE_DICT, "SHARDED_STATE_DICT"])
def test_shards_in_place_of_a_model_are_refused(kind):
    with pytest.raises(ValueError, match=r"fsdp_state_dict_type=\w+ would leave shards.*use FULL_STATE_DICT"):
        refuse_unsaved_models(DistributedType.FSDP, 0, kind, 0)


@pytest.mark.parametrize(("engine", "stage"), [(DistributedType.FSDP, 0), (DistributedType.DEEPSPEED, 3)])
def test_adapters_of_divided_weights_are_refused(engine, stage):
    with pytest.raises(ValueError, match="lora_rank=4: adapters are merged into whole weights"):
        refuse_unsaved_models(engine, stage, FULL, 4)


def test_what_can_be_saved_may_be_trained():
    refuse_unsaved_models(DistributedType.FSDP, 0, FULL, 0)
    refuse_unsaved_models(DistributedType.FSDP, 0, "FULL_STATE_DICT", 0)
    refuse_unsaved_models(DistributedType.DEEPSPEED, 3, None, 0)
    for engine, stage in ((DistributedType.MULTI_GPU, 0), (DistributedType.NO, 0), (DistributedType.DEEPSPEED, 2)):
        refuse_unsaved_models(engine, stage, None, 4)
