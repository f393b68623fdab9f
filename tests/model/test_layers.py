"""What the towers leave out for speed changes no number: each short cut against the plain formula."""

import io
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from siglip.config import SiglipConfig, SiglipVisionConfig
from siglip.model import SiglipModel
from siglip.model.layers import MapAttention, Mlp, attend


def make_mlp(hidden_act: str = "gelu_pytorch_tanh", width: int = 7, mlp_dim: int = 29) -> Mlp:
    config = SiglipVisionConfig(
        hidden_size=width, num_attention_heads=1, intermediate_size=mlp_dim, hidden_act=hidden_act
    )
    return Mlp(config, torch.Generator().manual_seed(0))


def plain(mlp: Mlp, x: Tensor) -> Tensor:
    hidden = F.gelu(F.linear(x, mlp.fc1.weight, mlp.fc1.bias), approximate=mlp.approximate)
    return F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)


@pytest.mark.parametrize("hidden_act", ["gelu_pytorch_tanh", "gelu"])
@pytest.mark.parametrize("shape", [(1, 1, 7), (5, 7), (3, 3100, 7)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
)
def test_an_mlp_without_gradients_is_the_plain_mlp(
    hidden_act: str, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    mlp = make_mlp(hidden_act).to(dtype)
    x = 3.0 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = x.to(dtype)
    with torch.no_grad():
        got = mlp(before)
    assert got.dtype == dtype
    assert torch.equal(before, x.to(dtype))
    # the expectation is made in double precision from the same, already rounded numbers
    expected = plain(make_mlp(hidden_act).to(dtype).double(), before.double())
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


def test_the_short_activation_is_right_in_its_tails() -> None:
    mlp = make_mlp(width=1, mlp_dim=1).requires_grad_(False)
    for weight, bias in ((mlp.fc1.weight, mlp.fc1.bias), (mlp.fc2.weight, mlp.fc2.bias)):
        weight.fill_(1.0)
        bias.zero_()
    x = torch.tensor([-1e30, -100.0, -9.0, -3.0, -1e-3, -0.0, 0.0, 1e-3, 3.0, 9.0, 100.0, 1e30])
    with torch.no_grad():
        got = mlp(x[:, None])[:, 0]
    torch.testing.assert_close(got, F.gelu(x, approximate="tanh"), rtol=1e-6, atol=1e-6)


class WideTensors(TorchDispatchMode):
    """The storages of tensors with at least `numel` numbers."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel = numel
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() >= self.numel:
            self.storages.add(result.untyped_storage().data_ptr())
        return result


def test_without_gradients_the_wide_middle_of_an_mlp_is_made_only_once() -> None:
    mlp = make_mlp(width=8, mlp_dim=512)
    x = torch.randn(4, 300, 8)
    counts = []
    for record in (True, False):
        with torch.set_grad_enabled(record), WideTensors(4 * 300 * 512) as seen:
            mlp(x)
        counts.append(len(seen.storages))
    assert counts == [2, 1]


def test_tokens_lie_one_after_the_other_in_memory(tiny_model: SiglipModel) -> None:
    states = tiny_model.vision_model(torch.randn(2, 3, 30, 30), output_hidden_states=True).hidden_states
    assert states is not None
    assert all(state.is_contiguous() for state in states)


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True))


def test_the_last_token_alone_has_the_same_vector_and_gradients(tiny_model: SiglipModel) -> None:
    tower = tiny_model.text_model.double()
    ids = torch.randint(0, 100, (5, 16), generator=torch.Generator().manual_seed(1))
    whole, short = tower(ids), tower(ids, last_token_only=True)
    torch.testing.assert_close(short.pooler_output, whole.pooler_output)
    torch.testing.assert_close(short.last_hidden_state, whole.last_hidden_state[:, -1:])
    for one, other in zip(
        gradients(tower, whole.pooler_output.square().sum()),
        gradients(tower, short.pooler_output.square().sum()),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_hidden_states_hold_every_token_also_when_only_the_last_is_wanted(tiny_model: SiglipModel) -> None:
    output = tiny_model.text_model(torch.zeros(2, 16, dtype=torch.int64), output_hidden_states=True,
        last_token_only=True)  # fmt: skip
    assert output.hidden_states is not None
    assert {state.shape for state in (*output.hidden_states, output.last_hidden_state)} == {(2, 16, 32)}


@pytest.mark.parametrize("width", [(6, 2), (15, 3), (7, 1)])
def test_pooling_without_keys_and_values_is_multi_head_attention(width: tuple[int, int]) -> None:
    """Against torch's own, with biases and gradients, in float64."""
    size, heads = width
    config = SiglipVisionConfig(hidden_size=size, num_attention_heads=heads)
    pooling = MapAttention(config).double()
    for parameter in pooling.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    reference = nn.MultiheadAttention(size, heads, batch_first=True).double()
    reference.load_state_dict(pooling.state_dict())
    probe, x = torch.randn(1, 1, size).double(), torch.randn(4, 11, size).double()
    got = pooling(probe, x)
    expected = reference(probe.expand(4, 1, -1), x, x)[0][:, 0]
    torch.testing.assert_close(got, expected)
    theirs = dict(zip((n for n, _ in reference.named_parameters()), gradients(reference, expected.square().sum()),
        strict=True))  # fmt: skip
    for (name, _), gradient in zip(pooling.named_parameters(), gradients(pooling, got.square().sum()), strict=True):
        torch.testing.assert_close(gradient, theirs[name])


def test_half_precision_pooling_stays_close_to_float32(tiny_config: SiglipConfig) -> None:
    model = SiglipModel(tiny_config, generator=torch.Generator().manual_seed(0)).eval()
    pixels = torch.randn(8, 3, 30, 30, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.get_image_features(pixels)
        got = model.to(torch.bfloat16).get_image_features(pixels).float()
    assert F.cosine_similarity(got, expected).min() > 0.999


GRAPHS = """
import torch
from siglip.config import SiglipVisionConfig
from siglip.model.layers import Mlp
mlp = Mlp(SiglipVisionConfig(hidden_size=4, num_attention_heads=1, intermediate_size=8))
x = torch.randn(3000, 4)
with torch.no_grad():
    expected = mlp(x)
    exported = torch.export.export(mlp, (x[:5],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    traced = torch.jit.trace(mlp, x[:5])
    torch.testing.assert_close(exported.module()(x), expected)
    torch.testing.assert_close(traced(x), expected)
print(sum("gelu" in str(node.target) for node in exported.graph.nodes), str(traced.graph).count("aten::gelu"))
"""


def test_a_traced_or_exported_mlp_is_the_plain_one_and_takes_any_number_of_rows() -> None:
    # in a process of its own, where no annotation is checked while a graph is made
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", GRAPHS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_see_what_a_layer_gave_and_not_what_became_of_it(everywhere: bool) -> None:
    mlp, x = make_mlp(), torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    seen: list[Tensor] = []

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        if module is mlp.fc1:
            seen.append(output)

    register = nn.modules.module.register_module_forward_hook if everywhere else mlp.fc1.register_forward_hook
    hook = register(keep)
    with torch.no_grad():
        mlp(x)
    hook.remove()
    torch.testing.assert_close(seen[0], F.linear(x, mlp.fc1.weight, mlp.fc1.bias))


def test_an_adapter_around_a_layer_keeps_what_it_gave() -> None:
    mlp, x = make_mlp(), torch.randn(3, 7, generator=torch.Generator().manual_seed(1))

    class Adapter(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner, self.given = inner, torch.empty(0)

        def forward(self, x: Tensor) -> Tensor:
            self.given = self.inner(x)
            return self.given

    adapter = Adapter(mlp.fc1)
    swapped: Any = mlp
    swapped.fc1 = adapter
    with torch.no_grad():
        mlp(x)
    torch.testing.assert_close(adapter.given, F.linear(x, adapter.inner.weight, adapter.inner.bias))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["export", "trace"])
def test_exported_towers_and_the_pair_take_any_number_of_inputs(how: str, tiny_model: SiglipModel) -> None:
    ids, pixels = torch.ones(2, 16, dtype=torch.long), torch.randn(2, 3, 30, 30)
    more = torch.ones(5, 16, dtype=torch.long), torch.randn(5, 3, 30, 30)

    class Vectors(nn.Module):
        """Tuples, which a trace can return."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return self.model(*inputs).to_tuple()

    for model, few, many in (
        (tiny_model.text_model, (ids,), more[:1]),
        (tiny_model.vision_model, (pixels,), more[1:]),
        (tiny_model, (ids, pixels), more),
    ):
        expected = Vectors(model)(*many)
        if how == "trace":
            made = torch.jit.trace(Vectors(model), few)(*many)
        else:
            batch = torch.export.Dim("batch", min=1, max=64)
            shapes = tuple({0: batch} for _ in few)
            file = io.BytesIO()
            torch.export.save(torch.export.export(model, few, dynamic_shapes=shapes), file)
            file.seek(0)
            made = torch.export.load(file).module()(*many).to_tuple()
        for one, other in zip(made, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class Operations(TorchDispatchMode):
    """The names of what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tokens", [17, 300])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_that_learns_in_bfloat16_is_that_of_float32_up_to_rounding(tokens: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(tokens)
    given = [torch.randn(2, 3, tokens, 8, generator=generator).bfloat16() for _ in range(4)]
    mask = torch.rand(2, 1, tokens, tokens, generator=generator) < 0.7 if masked else None

    def learnt(dtype: torch.dtype) -> list[Tensor]:
        query, key, value, wanted = (part.to(dtype).detach().clone().requires_grad_() for part in given)
        mixed = attend(query, key, value, mask, scale=0.5)
        assert mixed.dtype == dtype
        (mixed * wanted).sum().backward()
        return [part.float() for part in (mixed, query.grad, key.grad, value.grad) if part is not None]

    with Operations() as learning:
        found = learnt(torch.bfloat16)
    for ours, expected in zip(found, learnt(torch.float32), strict=True):
        assert (ours - expected).norm() < 0.02 * expected.norm()
    fused = [name for name in learning.names if "scaled_dot_product" in name]
    assert bool(fused) == (tokens > 256)  # the square of so many would cost memory
