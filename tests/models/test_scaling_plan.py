"""Plans for a budget: optimal by the law, in time and memory as the trainer has them, refused where they don't fit."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from datalake.errors import UserError
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.objectives.next_token import next_token
from models.scaling.cost import activation_bytes, attention_flops, depth, shape
from models.scaling.plan import Machine, Planner, Text, machine
from models.scaling.published import chinchilla, worth
from models.training.flops import Work
from models.training.gpus import gpu

H100 = Machine("H100", 989e12, 80)


def planner(device=H100, text=None, context=2048):
    return Planner(chinchilla(), device, text, 32_768, context)


@pytest.mark.parametrize("flops", [1e15, 1e19, 3e21])
def test_a_plan_spends_its_budget_and_no_other_size_does_better(flops):
    law, plan = chinchilla(), planner(Machine("any", 1e15, 1e6)).of_flops(flops)
    assert 6 * plan.parameters * plan.tokens == pytest.approx(flops, rel=1e-6)
    for factor in (0.8, 0.97, 1.03, 1.25):
        size = plan.parameters * factor
        assert law.loss(size, flops / 6 / size) > plan.loss
    assert plan.loss_low < plan.loss < plan.loss_high
    assert plan.batch == round(0.58 * plan.tokens**0.571)
    assert plan.learning_rate == pytest.approx(1.79 * plan.parameters**-0.713 * plan.tokens**0.307)


def test_chinchillas_budget_makes_a_model_of_chinchillas_size():
    plan = planner(machine(None)).of_flops(5.76e23)
    assert plan.parameters == pytest.approx(70e9, rel=0.1)
    assert plan.tokens == pytest.approx(1.4e12, rel=0.1)


def test_hours_are_those_of_the_budget_and_count_attention():
    plan = planner().of_hours(24)
    assert plan.hours == pytest.approx(24)
    attention = plan.tokens * attention_flops(plan.parameters, 32_768, 2048)
    assert (plan.flops + attention) / (989e12 * 0.4 * 3600) == pytest.approx(24)
    shared = planner(Machine("H100", 989e12, 80, count=4)).of_hours(24)
    assert shared.hours == pytest.approx(6)
    assert shared.parameters == plan.parameters
    assert shared.memory_gb < plan.memory_gb


def test_a_loss_is_reached_by_the_cheapest_plan():
    plan = planner().of_loss(3.0)
    assert plan.loss == pytest.approx(3.0, abs=1e-6)
    assert planner().of_flops(plan.flops * 0.9).loss > 3.0


@pytest.mark.parametrize("loss", [1.8, 1.0, 1e-9])
def test_a_loss_below_the_floor_is_told(loss):
    with pytest.raises(UserError, match=r"below what this law gives any model \(E = 1.817\)"):
        planner().of_loss(loss)


def test_a_loss_that_the_smallest_model_reaches_is_told():
    with pytest.raises(UserError, match="a loss of 100 needs no plan: the smallest model that is planned, of 10,000"):
        planner().of_loss(100)


@pytest.mark.parametrize("flops", [1e-3, 1.0, 1e10, 1e27, 1e300])
def test_a_budget_that_makes_no_model_is_told(flops):
    with pytest.raises(UserError, match="plans are made from 3e\\+10 to 1e\\+26 FLOPs"):
        planner(machine(None)).of_flops(flops)


def test_hours_without_end_are_told():
    with pytest.raises(UserError, match="no plan has 1e\\+20 GPU hours"):
        planner().of_hours(1e20)


def test_text_that_has_to_be_seen_too_often_is_told_with_what_would_fit():
    text = Text("demo", 10_000_000)
    with pytest.raises(UserError) as error:
        planner(text=text).of_flops(1e17)
    wanted = planner().of_flops(1e17).tokens
    assert f"{wanted / 1e7:.3g} epochs" in str(error.value)
    assert f"worth {worth(wanted, 1e7) / 1e6:.3g}M new tokens" in str(error.value)
    most = float(str(error.value).split("--flops ")[1].split()[0])
    fitting = planner(text=text).of_flops(most)
    assert fitting.epochs is not None
    assert 3.5 < fitting.epochs <= 4
    assert planner(text=Text("demo", 10_000_000, epochs=100)).of_flops(1e17).epochs == pytest.approx(wanted / 1e7)


def test_text_seen_again_is_worth_less_than_new_text():
    new = planner().of_flops(1e17)
    twice = planner(text=Text("demo", new.tokens // 2)).of_flops(1e17)
    assert twice.epochs == pytest.approx(2)
    assert twice.loss > new.loss
    assert twice.loss == pytest.approx(chinchilla().loss(new.parameters, worth(new.tokens, new.tokens // 2)))


def test_a_model_too_large_for_the_device_is_told_with_how_many_would_do():
    with pytest.raises(UserError) as error:
        planner().of_flops(1e22)
    count = int(str(error.value).split("--gpus ")[1].split(",")[0])
    assert planner(Machine("H100", 989e12, 80, count=count)).of_flops(1e22).memory_gb <= 72
    with pytest.raises(UserError):
        planner(Machine("H100", 989e12, 80, count=count - 1)).of_flops(1e22)
    assert planner(machine(None)).of_flops(1e22).memory_gb > 80  # nobody has named a device


def test_devices_are_known_by_the_names_that_people_write():
    assert gpu("h100") == gpu("NVIDIA H100 80GB HBM3") == (989e12, 80)
    assert gpu("A100-40GB") == (312e12, 40)
    assert gpu("rtx4090") == gpu("NVIDIA GeForce RTX 4090") == (165e12, 24)
    assert gpu("NVIDIA GH200 480GB") == (989e12, 96)
    assert gpu("L4") == (121e12, 24)
    assert gpu("V100") is None
    with pytest.raises(UserError, match="no GPU 'V100' is known: choose one of B200"):
        machine("V100")
    with pytest.raises(UserError, match="no GPU '' is known"):
        machine("")


def test_a_processor_is_measured():
    here = machine("cpu")
    assert 1e8 < here.flops < 1e15
    assert here.memory_gb > 0.1


@pytest.mark.parametrize("parameters", [3e6, 1e7, 1e8, 1e9, 7e9, 1e11])
def test_a_shape_has_about_the_parameters_that_were_asked_for(parameters):
    made = shape(parameters, 4096, 1024)
    assert made.parameters == pytest.approx(parameters, rel=0.05)
    assert 0.5 <= made.layers / made.heads <= 2
    assert depth(parameters, 4096) == pytest.approx(made.layers, rel=0.35)


def test_a_shape_that_its_embedding_fills_is_the_smallest():
    assert shape(1e4, 32_768, 1024).layers == 1


def test_attention_costs_what_the_trainer_counts():
    network = NetworkConfig.of_depth(4, 8192, 256)
    work = Work.of(build_model(network))
    assert work is not None
    assert attention_flops(network.parameters, 8192, 256) == pytest.approx(work.attention * 256, rel=0.05)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("width", [128, 256])
def test_activations_are_those_that_the_decoder_saves(bfloat16, width):
    rows, length = 5, 64
    kept = {}
    sizes = []
    for layers in (2, 6):  # their difference is the layers' alone
        network = NetworkConfig(vocabulary=64, layers=layers, width=width, heads=width // 64, context=length)
        model = build_model(network)
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept.clear()

        def keep(tensor, own=own):
            place = tensor.untyped_storage().data_ptr()
            cast = tensor.dim() == 2 and tensor.shape[0] != rows * length  # a weight in bfloat16
            if place not in own and not cast:
                kept[place] = tensor
            return tensor

        tokens = torch.zeros(rows, length, dtype=torch.long)
        batch = SimpleNamespace(tokens=tokens, targets=tokens, segments=tokens, positions=None)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
        ):
            next_token(mask_documents=False)(model, batch)
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
    counted = [
        activation_bytes(network.model_copy(update={"layers": layers}), rows * length, bfloat16) for layers in (2, 6)
    ]
    assert counted[1] - counted[0] == pytest.approx(sizes[1] - sizes[0], rel=0.05)
    assert math.isfinite(counted[0])
