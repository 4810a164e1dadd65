"""The documented limits of the `npu::` operators, by name."""

from __future__ import annotations

from stepvideo_virtual_npu.contracts.activations import ACTIVATION_CONTRACTS
from stepvideo_virtual_npu.contracts.base import OperatorContract
from stepvideo_virtual_npu.contracts.convolution import CONVOLUTION_CONTRACTS
from stepvideo_virtual_npu.contracts.fusion_attention import FUSION_ATTENTION_CONTRACTS
from stepvideo_virtual_npu.contracts.inference_attention import INFERENCE_ATTENTION_CONTRACTS
from stepvideo_virtual_npu.contracts.merging import MERGING_CONTRACTS
from stepvideo_virtual_npu.contracts.norms import NORM_CONTRACTS
from stepvideo_virtual_npu.contracts.rotary import ROTARY_CONTRACTS

CONTRACTS: dict[str, OperatorContract] = {
    contract.name: contract
    for contract in (
        *FUSION_ATTENTION_CONTRACTS,
        *INFERENCE_ATTENTION_CONTRACTS,
        *MERGING_CONTRACTS,
        *ROTARY_CONTRACTS,
        *NORM_CONTRACTS,
        *ACTIVATION_CONTRACTS,
        *CONVOLUTION_CONTRACTS,
    )
}

__all__ = ["CONTRACTS", "OperatorContract"]
