"""What tests of criteria that make their gradients in the forward pass share."""

import gc

import torch
from torch.autograd.graph import saved_tensors_hooks


def value_and_gradients(function, criterion, student, teacher):
    """The value, and its gradients by the student's feature and by the criterion's weights."""
    value = function(student, teacher)
    return [value, *torch.autograd.grad(value, [student, *criterion.parameters()])]


def channels_last(feature):
    return feature.detach().contiguous(memory_format=torch.channels_last).requires_grad_(feature.requires_grad)


def large_tensors_kept(function, student, teacher):
    """How many tensors of at least the student feature's size the forward pass keeps for the backward pass."""
    size, saved = student.untyped_storage().nbytes(), []
    before = large_tensors(size) | {id_of(student), id_of(teacher)}
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        loss = function(student, teacher)
    after = large_tensors(size)  # with what autograd saved, which the list holds
    loss.backward()
    return len(after - before)


def large_tensors(size):
    """The storages of at least so many bytes that Python's objects hold."""
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    return {id_of(tensor) for tensor in tensors if tensor.untyped_storage().nbytes() >= size}


def id_of(tensor):
    return tensor.untyped_storage()._cdata
