"""The functions of the CANN runtime that the real torch_npu calls, over host memory.

A function falls into one of three groups. The ones that answer something are written here. The
ones whose success means nothing (setting an option, waiting for work that is already done, telling
the profiler) return 0. All others fail with a sentence of their own: were they to return 0 as
well, torch_npu would believe that a kernel had run, and go on with uninitialised memory.
"""

from __future__ import annotations

import ctypes
import functools
import time
import traceback
from collections.abc import Callable
from ctypes import POINTER, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from typing import Any

from stepvideo_virtual_npu.cann.libraries import GeneratedLibrary, find_missing
from stepvideo_virtual_npu.cann.memory import HostBlocks
from stepvideo_virtual_npu.errors import VirtualNpuUnavailable
from stepvideo_virtual_npu.soc import Soc

_SUCCESS = 0
_INVALID_PARAMETER = 107000
_NO_CONTEXT = 107002
_OUT_OF_MEMORY = 207001
_FAILURE = 500000

RUNTIME, COMPILER = "libascendcl.so", "libacl_op_compiler.so"

# Beyond what torch_npu imports, it looks these up by name when it first needs them.
_LOOKED_UP = """
aclGetCannAttribute aclrtCreateEventWithFlag aclrtDestroyStreamForce aclrtGetDeviceInfo
aclrtGetDeviceUtilizationRate aclrtGetLastError aclrtGetPrimaryCtxState aclrtGetStreamOverflowSwitch
aclrtMallocAlign32 aclrtPeekAtLastError aclrtQueryEventStatus aclrtQueryEventWaitStatus
aclrtSetDeviceSatMode aclrtSetOpExecuteTimeOut aclrtSetOpWaitTimeout aclrtSetStreamFailureMode
aclrtSetStreamOverflowSwitch aclrtStreamGetId aclrtStreamQuery aclrtSynchronizeDevice
aclrtSynchronizeStreamWithTimeout
""".split()
_COMPILER_FUNCTIONS = """
aclSetCompileopt aclopCompileAndExecuteV2 aclopSetCompileFlag aclrtCtxSetSysParamOpt
aclrtGetSysParamOpt aclrtSetSysParamOpt
""".split()

# Success of these says nothing about a result. The aclop* and descriptor functions only prepare
# what aclopCompileAndExecute would run, and that one fails.
_MEANINGLESS = frozenset(
    """
aclAppLog aclFinalize aclGetTensorDescDimV2 aclGetTensorDescFormat aclGetTensorDescNumDims
aclGetTensorDescType aclInit aclSetTensorDescName aclSetTensorFormat aclSetTensorPlaceMent
aclSetTensorShape aclCreateDataBuffer aclCreateTensorDesc aclDestroyDataBuffer aclDestroyTensorDesc
aclmdlFinalizeDump aclmdlInitDump aclmdlSetDump
aclopCreateAttr aclopDestroyAttr aclopSetAttrBool aclopSetAttrDataType aclopSetAttrFloat
aclopSetAttrInt aclopSetAttrListBool aclopSetAttrListFloat aclopSetAttrListInt
aclopSetAttrListListInt aclopSetAttrString aclopSetCompileFlag aclSetCompileopt
aclrtCtxSetSysParamOpt aclrtGetSysParamOpt aclrtSetSysParamOpt
aclrtDestroyEvent aclrtDestroyStream aclrtDestroyStreamForce aclrtGetDeviceUtilizationRate
aclrtGetLastError aclrtPeekAtLastError aclrtGetStreamOverflowSwitch aclrtProcessReport
aclrtResetDevice aclrtResetEvent aclrtSetCurrentContext aclrtSetDeviceSatMode
aclrtSetOpExecuteTimeOut aclrtSetOpWaitTimeout aclrtSetStreamFailureMode
aclrtSetStreamOverflowSwitch aclrtStreamGetId aclrtStreamWaitEvent
aclrtSynchronizeDevice aclrtSynchronizeEvent aclrtSynchronizeStream
aclrtSynchronizeStreamWithTimeout
MsprofGetHashId MsprofRegisterCallback MsprofReportAdditionalInfo MsprofReportApi
MsprofReportCompactInfo MsprofSysCycleTime
rtDevBinaryRegister rtFunctionRegister rtGetC2cCtrlAddr
""".split()
)

_Prototype = tuple[Any, ...]
_PROTOTYPES: dict[str, _Prototype] = {}


def _acl(
    *names: str, arguments: _Prototype, result: Any = c_int
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a method as the body of one or several C functions."""

    def declare(method: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            _PROTOTYPES[name] = (method.__name__, result, arguments)
        return method

    return declare


class VirtualCann:
    """One virtual device: memory, streams and events. Work is done when it is issued."""

    def __init__(self, soc: Soc) -> None:
        self.device_memory = HostBlocks(soc.memory)
        self.pinned_memory = HostBlocks(soc.memory)
        self._device: int | None = None
        self._handles = 0
        self._recorded_at: dict[int, float] = {}
        self._soc_name = ctypes.create_string_buffer(soc.runtime_name.encode())
        self._message = ctypes.create_string_buffer(1024)
        self._libraries: dict[str, GeneratedLibrary] = {}

    def load(self) -> None:
        """Put the libraries into this process. torch must be imported, torch_npu must not."""
        missing = find_missing()
        if RUNTIME not in missing.libraries:
            raise VirtualNpuUnavailable(
                "a CANN runtime (libascendcl.so) is installed here, which a virtual device would "
                "get in the way of; start from a shell without CANN's set_env.sh"
            )
        functions = {
            RUNTIME: {*missing.functions, *_LOOKED_UP},
            COMPILER: set(_COMPILER_FUNCTIONS),
        }
        for soname in missing.libraries:
            library = GeneratedLibrary(soname, functions.get(soname, ()))
            self._libraries[soname] = library
            for name in library.functions:
                self._provide(library, name)

    def _provide(self, library: GeneratedLibrary, name: str) -> None:
        if name in _PROTOTYPES:
            method, result, arguments = _PROTOTYPES[name]
            body = self._guarded(name, getattr(self, method))
            library.provide(name, ctypes.CFUNCTYPE(result, *arguments), body)
        elif name not in _MEANINGLESS:
            refuse = functools.partial(self._refuse, name)
            library.provide(name, ctypes.CFUNCTYPE(c_int), refuse)

    def _refuse(self, name: str) -> int:
        self._message.value = f"the virtual NPU does not model {name}".encode()
        return _FAILURE

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            # ctypes would print an exception and return garbage to C++, much of it noexcept.
            except Exception:  # noqa: BLE001
                traceback.print_exc()
                return self._refuse(name)

        return call

    @_acl("aclrtGetDeviceCount", arguments=(POINTER(c_uint),))
    def _device_count(self, count: Any) -> int:
        count[0] = 1
        return _SUCCESS

    @_acl("aclrtGetDevice", arguments=(POINTER(c_int),))
    def _get_device(self, index: Any) -> int:
        # torch_npu sets one then, and empties the caches only of devices that it has set.
        if self._device is None:
            return _NO_CONTEXT
        index[0] = self._device
        return _SUCCESS

    @_acl("aclrtSetDevice", arguments=(c_int,))
    def _set_device(self, index: int) -> int:
        if index != 0:
            return _INVALID_PARAMETER
        self._device = index
        return _SUCCESS

    @_acl("aclrtGetSocName", arguments=(), result=c_void_p)
    def _get_soc_name(self) -> int:
        return ctypes.addressof(self._soc_name)

    @_acl("aclGetRecentErrMsg", arguments=(), result=c_void_p)
    def _recent_message(self) -> int:
        return ctypes.addressof(self._message)

    @_acl("aclrtGetPrimaryCtxState", arguments=(c_int, POINTER(c_uint), POINTER(c_int)))
    def _context_state(self, device: int, flags: Any, active: Any) -> int:
        # torch_npu passes null for what it does not want to know.
        if flags:
            flags[0] = 0
        if active:
            active[0] = 1
        return _SUCCESS

    @_acl("aclrtGetCurrentContext", "aclrtCreateStream", arguments=(POINTER(c_void_p),))
    def _new_handle(self, handle: Any) -> int:
        self._handles += 1
        handle[0] = self._handles << 8
        return _SUCCESS

    @_acl("aclrtCreateStreamWithConfig", arguments=(POINTER(c_void_p), c_uint, c_uint))
    def _new_stream(self, handle: Any, priority: int, flags: int) -> int:
        return self._new_handle(handle)

    @_acl(
        "aclrtCreateEventWithFlag",
        "aclrtCreateEventExWithFlag",
        arguments=(POINTER(c_void_p), c_uint),
    )
    def _new_event(self, handle: Any, flags: int) -> int:
        return self._new_handle(handle)

    @_acl("aclrtRecordEvent", arguments=(c_void_p, c_void_p))
    def _record_event(self, event: int, stream: int | None) -> int:
        self._recorded_at[event] = time.perf_counter()
        return _SUCCESS

    @_acl("aclrtEventElapsedTime", arguments=(POINTER(c_float), c_void_p, c_void_p))
    def _elapsed_time(self, milliseconds: Any, first: int, last: int) -> int:
        if first not in self._recorded_at or last not in self._recorded_at:
            return _INVALID_PARAMETER
        milliseconds[0] = 1e3 * (self._recorded_at[last] - self._recorded_at[first])
        return _SUCCESS

    @_acl(
        "aclrtQueryEventStatus",
        "aclrtQueryEventWaitStatus",
        arguments=(c_void_p, POINTER(c_int)),
    )
    def _event_is_complete(self, event: int, status: Any) -> int:
        status[0] = 1
        return _SUCCESS

    @_acl("aclrtStreamQuery", arguments=(c_void_p, POINTER(c_int)))
    def _stream_is_complete(self, stream: int | None, status: Any) -> int:
        status[0] = 0
        return _SUCCESS

    @_acl(
        "aclGetDeviceCapability", "aclrtGetDeviceInfo", arguments=(c_uint, c_int, POINTER(c_int64))
    )
    def _device_fact(self, device: int, fact: int, value: Any) -> int:
        value[0] = 1
        return _SUCCESS

    @_acl("aclGetCannAttribute", arguments=(c_int, POINTER(c_int)))
    def _cann_fact(self, fact: int, value: Any) -> int:
        value[0] = 1
        return _SUCCESS

    @_acl("aclrtDeviceCanAccessPeer", arguments=(POINTER(c_int), c_int, c_int))
    def _can_access_peer(self, answer: Any, device: int, peer: int) -> int:
        answer[0] = 0
        return _SUCCESS

    @_acl("aclrtGetMemInfo", arguments=(c_int, POINTER(c_size_t), POINTER(c_size_t)))
    def _memory_info(self, kind: int, free: Any, total: Any) -> int:
        free[0], total[0] = self.device_memory.free_bytes, self.device_memory.capacity
        return _SUCCESS

    @_acl("aclrtMalloc", "aclrtMallocAlign32", arguments=(POINTER(c_void_p), c_size_t, c_int))
    def _malloc(self, address: Any, size: int, policy: int) -> int:
        return _give(self.device_memory.allocate(size), address)

    @_acl("aclrtMallocHost", arguments=(POINTER(c_void_p), c_size_t))
    def _malloc_host(self, address: Any, size: int) -> int:
        return _give(self.pinned_memory.allocate(size), address)

    @_acl("aclrtFree", arguments=(c_void_p,))
    def _free(self, address: int) -> int:
        return _SUCCESS if self.device_memory.release(address) else _INVALID_PARAMETER

    @_acl("aclrtFreeHost", arguments=(c_void_p,))
    def _free_host(self, address: int) -> int:
        return _SUCCESS if self.pinned_memory.release(address) else _INVALID_PARAMETER

    @_acl("aclrtMemcpy", arguments=(c_void_p, c_size_t, c_void_p, c_size_t, c_int))
    def _copy(self, target: int, room: int, source: int, size: int, kind: int) -> int:
        if size > room:
            return _INVALID_PARAMETER
        ctypes.memmove(target, source, size)
        return _SUCCESS

    @_acl("aclrtMemcpyAsync", arguments=(c_void_p, c_size_t, c_void_p, c_size_t, c_int, c_void_p))
    def _copy_in_stream(
        self, target: int, room: int, source: int, size: int, kind: int, stream: int | None
    ) -> int:
        return self._copy(target, room, source, size, kind)

    @_acl("aclrtMemset", arguments=(c_void_p, c_size_t, c_int, c_size_t))
    def _fill(self, target: int, room: int, value: int, size: int) -> int:
        if size > room:
            return _INVALID_PARAMETER
        ctypes.memset(target, value, size)
        return _SUCCESS


def _give(block: int | None, address: Any) -> int:
    if block is None:
        return _OUT_OF_MEMORY
    address[0] = block
    return _SUCCESS
