"""The table of GPUs knows them by the names that drivers give, and a processor is measured."""

from __future__ import annotations

import pytest
import torch

from tubelet.plan.count.peaks import GPUS, gpu_named, gpu_of, measured_peak, peak_flops

DRIVER_NAMES = {
    "NVIDIA A100-SXM4-40GB": "A100-40GB",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A100 80GB PCIe": "A100",
    "NVIDIA A100-PCIE-40GB": "A100-40GB",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 PCIe": "H100-PCIe",
    "NVIDIA H100 NVL": "H100-NVL",
    "NVIDIA H200": "H200",
    "NVIDIA GH200 480GB": "GH200",
    "NVIDIA B200": "B200",
    "NVIDIA A10": "A10",
    "NVIDIA L4": "L4",
    "NVIDIA L40": "L40",
    "NVIDIA L40S": "L40S",
    "Tesla V100-SXM2-32GB": "V100",
    "Tesla T4": "T4",
    "NVIDIA GeForce RTX 3090": "RTX-3090",
    "NVIDIA GeForce RTX 4090": "RTX-4090",
}


@pytest.mark.parametrize(("driver", "name"), DRIVER_NAMES.items())
def test_a_gpu_is_known_by_the_name_of_its_driver(driver: str, name: str) -> None:
    found = gpu_of(driver)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("driver", ["NVIDIA A10G", "NVIDIA GeForce RTX 3090 Ti", "AMD Instinct MI300X", "Quadro T400"])
def test_a_gpu_that_is_only_like_one_is_not_taken_for_it(driver: str) -> None:
    assert gpu_of(driver) is None


def test_every_entry_can_be_asked_for_and_its_figures_make_sense() -> None:
    for gpu in GPUS:
        assert gpu_named(gpu.name.lower()) is gpu
        assert gpu.bf16 is None or gpu.bf16 > gpu.fp32
        assert gpu.memory >= 16


def test_an_unknown_gpu_is_a_mistake_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="unknown device 'h10'; did you mean 'h100'"):
        gpu_named("h10")


def test_a_processor_is_measured_once_without_drawing_numbers() -> None:
    state = torch.random.get_rng_state()
    first = peak_flops(torch.device("cpu"), torch.float32)
    assert first is not None
    assert 1e9 < first < 1e14
    assert measured_peak(torch.float32, torch.get_num_threads()) == first
    assert torch.random.get_rng_state().equal(state)


def test_the_share_of_an_unknown_peak_is_unknown() -> None:
    assert peak_flops(torch.device("meta"), torch.bfloat16) is None
