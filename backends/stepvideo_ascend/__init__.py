"""The Ascend backend: torch_npu's fused operators, chosen by what their documentation allows and
tested on the device before they are used. Importing it imports neither torch_npu nor mindiesd."""
