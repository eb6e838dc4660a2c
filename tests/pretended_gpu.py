"""A GPU that is pretended: tensors lie on the host and say they are on `cuda:0`, and mixing them with others raises.

    with pretended_gpu() as device:
        model.to(device)(torch.ones(2, device=device))  # computed; `model(torch.ones(2))` raises as on a GPU

So where every tensor of a training or a reply lies is tested without a GPU, and the numbers can be compared with those
of the host. What it cannot know: speed, memory, kernels, and what torch's C++ allocates by itself; a backward pass that
adds to such a tensor is let through where it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GPU, HOST = torch.device("cuda:0"), torch.device("cpu")
_aten = torch.ops.aten
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
# A GPU takes places of a row from the host.
_BY_PLACES = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_device_of, _is_cuda_of, _is_cpu_of = (getattr(Tensor, name).__get__ for name in ("device", "is_cuda", "is_cpu"))


class OnGpu(Tensor):
    """A tensor that says it is on the GPU; its numbers are `on_host`."""

    on_host: Tensor

    @staticmethod
    def __new__(cls, on_host: Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            on_host.size(),
            strides=on_host.stride(),
            storage_offset=on_host.storage_offset(),
            dtype=on_host.dtype,
            device=HOST,
        )
        made.on_host = on_host
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["on_host"], None

    @staticmethod
    def __tensor_unflatten__(tensors: dict[str, Tensor], meta: None, size: Any, stride: Any) -> OnGpu:
        return OnGpu(tensors["on_host"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _device_of:
            return GPU
        if func in (_is_cuda_of, _is_cpu_of):
            return func == _is_cuda_of
        if func is Tensor.tolist:
            return args[0].on_host.tolist()
        if func is Tensor.numpy:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        if func is Tensor.cpu:
            return _moved(args[0], HOST)
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs)  # type: ignore[attr-defined]


class _Calls(TorchFunctionMode):
    """Calls whose device torch looks up in C++, before any of the tensors is asked."""

    is_paused = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.is_paused:
            return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return _moved(func(*args, **kwargs), device)
        return _moved(*args, **kwargs) if func is Tensor.to else func(*args, **kwargs)


class _Kernels(TorchDispatchMode):
    """Every kernel, so that what is made on the GPU is made."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Within it `cuda:0` can be computed on; folders of models are read on the host and moved, as ours are."""
    with pytest.MonkeyPatch.context() as patch:
        import diffusers
        import transformers

        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        for kind in (transformers.PreTrainedModel, diffusers.DiffusionPipeline):
            patch.setattr(kind, "from_pretrained", classmethod(_on_host(kind.from_pretrained.__func__)))  # type: ignore[attr-defined]
        with _Calls(), _Kernels():
            yield GPU


def _on_host(load: Callable[..., Any]) -> Callable[..., Any]:
    """As if there were no GPU: these fill weights of no device, which would be taken for the host's."""

    def loaded(*args: Any, **kwargs: Any) -> Any:
        before, _Calls.is_paused = _Calls.is_paused, True
        try:
            with _disable_current_modes():
                return load(*args, **kwargs)
        finally:
            _Calls.is_paused = before

    return loaded


def _moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`tensor.to(...)`"""
    own = GPU if isinstance(tensor, OnGpu) else HOST
    device, dtype = kwargs.get("device") or own, kwargs.get("dtype") or tensor.dtype
    for wanted in args:
        if isinstance(wanted, Tensor):
            device, dtype = wanted.device, wanted.dtype
        elif isinstance(wanted, torch.dtype):
            dtype = wanted
        elif isinstance(wanted, str | torch.device):
            device = wanted
    if torch.device(device).type == own.type and dtype == tensor.dtype:
        return tensor
    return _aten._to_copy.default(tensor, dtype=dtype, device=torch.device(device))


def _carry_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A kernel on the host's numbers, its results where a GPU would have them."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, OnGpu)]
    _check_devices(func, tensors)
    asked = kwargs.get("device")
    kwargs = {**kwargs, "device": HOST} if asked is not None else kwargs
    found = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
    if func is _aten.copy_.default:
        return args[0]
    name = func._schema.name.removeprefix("aten::")
    is_alike = name.startswith("new_") or name.endswith("_like")  # C++ asks for the host, where our numbers are
    is_on_gpu = bool(ours) if asked is None or is_alike else torch.device(asked).type == GPU.type

    def placed(result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        same = next((each for each in ours if each.on_host is result), None)  # changed in place
        return same if same is not None else OnGpu(result) if is_on_gpu else result

    return tree_map(placed, found)


def _numbers(value: Any) -> Any:
    return value.on_host if isinstance(value, OnGpu) else value


def _check_devices(func: Any, tensors: list[Tensor]) -> None:
    """Refuse what a GPU refuses; a number alone, which has no dimension, may come from anywhere."""
    is_backward = torch._C._current_graph_task_id() != -1  # type: ignore[attr-defined]
    others = [
        each for each in tensors if not isinstance(each, OnGpu) and each.dim() and (each.numel() or not is_backward)
    ]
    if func in _COPIES or not others or not any(isinstance(each, OnGpu) for each in tensors):
        return
    if func in _BY_PLACES and isinstance(tensors[0], OnGpu) and all(each.dtype == torch.int64 for each in others):
        return
    places = [("cuda:0" if isinstance(each, OnGpu) else "cpu", tuple(each.shape), each.dtype) for each in tensors]
    raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {places}")
