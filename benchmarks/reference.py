"""Our training steps and synthesis beside the published code's, in one process, on one set of weights.

    OMP_NUM_THREADS=1 python benchmarks/reference.py --size paper --repeats 3

Both sides first compute the same loss and gradient from the same weights and batch, and the difference is
printed. Then they run in turn; medians, ratios (reference over ours), arithmetic and the share of the
machine's measured matrix-product rate are printed. CPU time counts where other processes share the cores.
"""

from __future__ import annotations

import argparse
import gc
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn

import reference_path as theirs
from averaged_targets import averaged_targets
from synbrain.features.tokens import TokenSet
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import VAELossConfig
from synbrain.networks.fit.average import update_ema
from synbrain.networks.losses import mapper_loss, vae_losses
from synbrain.networks.mapper import Mapper
from synbrain.networks.precision import multiplies_bf16
from synbrain.networks.presets import Preset, preset
from synbrain.training.cost import saved_bytes, step_gflop

SIZES = {"paper": ("paper-4096", 15724), "small": ("small", 1500), "tiny": ("tiny", 1000)}
STAGES = ("vae", "mapper", "synthesis", "memory", "pipeline", "averaged")
LOSS = VAELossConfig(replicas=1)
DECAY = 0.9999
N_IMAGES, N_TRIALS, EPOCHS, MAPPER_STEPS, TRAIN_BATCH = 9000, 3, 15, 50_000, 24


@dataclass
class Bench:
    """What every stage needs: sizes, device, and the rate that 100 % stands for."""

    sizes: Preset
    n_voxels: int
    batch: int
    repeats: int
    device: torch.device
    compile: bool
    bf16_too: bool
    peak: dict[str, float] = field(default_factory=dict)
    gflop: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def batch_of(self) -> tuple[Tensor, Tensor, Tensor]:
        """Responses (batch, n_voxels), noise and tokens (batch, tokens, dim)."""
        rng = torch.Generator().manual_seed(1)
        shape = (self.batch, self.sizes.vae.tokens, self.sizes.vae.dim)
        y = torch.randn(self.batch, self.n_voxels, generator=rng) * 0.3
        made = y, torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
        return made[0].to(self.device), made[1].to(self.device), made[2].to(self.device)

    def vae(self) -> BrainVAE:
        torch.manual_seed(0)
        return BrainVAE(self.sizes.vae).to(self.device)

    def mapper(self) -> Mapper:
        torch.manual_seed(0)
        mapper = Mapper(self.sizes.mapper)
        with torch.no_grad():  # it starts at zero output, where nothing can be compared
            for name, parameter in mapper.named_parameters():
                if "modulation" in name or name.startswith("final"):
                    parameter.normal_(std=0.02)
        return mapper.to(self.device)

    def bf16(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def compare(self, name: str, gflop: float, sides: Mapping[str, Callable[[], object]]) -> None:
        """Run the sides in turn and print medians; the first one is the reference."""
        wall: dict[str, list[float]] = {side: [] for side in sides}
        cpu: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(self.repeats):
            for side, work in sides.items():
                self.wait()
                start, used = time.perf_counter(), time.process_time()
                work()
                self.wait()
                wall[side].append(time.perf_counter() - start)
                cpu[side].append(time.process_time() - used)
        counted = wall if self.device.type == "cuda" else cpu
        base = statistics.median(counted[next(iter(sides))])
        for side in sides:
            took, busy = statistics.median(wall[side]), statistics.median(cpu[side])
            ratio = base / statistics.median(counted[side])
            rate = gflop * self.batch / statistics.median(counted[side])
            share = 100 * rate / self.peak["bf16" if side.endswith("bf16") else "fp32"]
            print(
                f"{name:<16} {side:<22} {took:9.3f} s wall {busy:9.3f} s cpu {ratio:6.2f}x "
                f"{gflop * self.batch:8.1f} GFLOP {rate:8.1f} GFLOP/s {share:4.0f} %",
                flush=True,
            )
            self.seconds[f"{name}/{side}"] = statistics.median(counted[side]) / self.batch

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of the best square matrix product."""
    best = 0.0
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    for _ in range(5):
        start = time.perf_counter() if device.type == "cuda" else time.process_time()
        for _ in range(10 if device.type == "cuda" else 1):
            a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = (time.perf_counter() if device.type == "cuda" else time.process_time()) - start
        best = max(best, (10 if device.type == "cuda" else 1) * 2 * n**3 / took / 1e9)
    return best


def has_bf16(device: torch.device) -> bool:
    return bool(torch.cuda.is_bf16_supported()) if device.type == "cuda" else multiplies_bf16()


def gradient(network: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Norm of a - b over the norm of b; tensor by tensor, as a whole copy would not fit beside the rest."""
    squares = [
        ((x - y).double().square().sum(), y.double().square().sum()) for x, y in zip(a, b, strict=True)
    ]
    return float((sum(s[0] for s in squares) / sum(s[1] for s in squares)) ** 0.5)


def with_bf16(bench: Bench, ours: Callable[[bool, bool], None]) -> dict[str, Callable[[], object]]:
    """Our side in float32 and, where the device has the instructions, in bf16, to be run in turn."""
    sides: dict[str, Callable[[], object]] = {"ours": lambda: ours(True, False)}
    if bench.bf16_too:
        sides["ours bf16"] = lambda: ours(True, True)
    return sides


def report_errors(
    bench: Bench,
    name: str,
    network: nn.Module,
    reference: Callable[[bool], None],
    ours: Callable[[bool, bool], None],
    losses: dict[str, float],
) -> None:
    """Loss and gradient of our side in each precision beside the reference's, from the same weights."""
    network.zero_grad()
    reference(False)
    expected, theirs_loss = gradient(network), losses["loss"]
    for half in (False, True) if bench.bf16_too else (False,):
        network.zero_grad()
        ours(False, half)
        error, off = difference(gradient(network), expected), abs(losses["loss"] / theirs_loss - 1)
        side = "bf16" if half else "float32"
        print(f"{name} {side}: loss differs by {off:.1e}, gradient by {error:.1e} (relative)", flush=True)
    network.zero_grad()


def vae_stage(bench: Bench) -> None:
    vae, (y, noise, tokens) = bench.vae(), bench.batch_of()
    optimizers = (
        theirs.default_adamw(vae, 0.05),
        torch.optim.AdamW(vae.parameters(), lr=1e-4, weight_decay=0.05, fused=True),
    )
    run = torch.compile(vae) if bench.compile else vae
    losses: dict[str, float] = {}

    def reference(update: bool = True) -> None:
        vae.zero_grad()
        recon, posterior, z = theirs.run_vae(vae, y, noise)
        total = vae_losses(recon, y, posterior, z, tokens, LOSS).total
        total.backward()
        losses["loss"] = total.item()
        if update:
            optimizers[0].step()

    def ours(update: bool, half: bool) -> None:
        vae.zero_grad()
        with torch.autocast(bench.device.type, dtype=torch.bfloat16, enabled=half):
            recon, posterior, z = run(y, noise)
        total = vae_losses(recon, y, posterior, z, tokens, LOSS).total
        total.backward()
        losses["loss"] = total.item()
        if update:
            optimizers[1].step()

    report_errors(bench, "vae step", vae, reference, ours, losses)
    share_state(optimizers)
    bench.compare("vae step", bench.gflop["vae_step"], {"reference": reference, **with_bf16(bench, ours)})


def share_state(optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]) -> None:
    """Let both update by nothing, so that steps are alike, from one state: two would only fill memory."""
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.0
    optimizers[0].step()
    optimizers[1].state = optimizers[0].state


def mapper_stage(bench: Bench) -> None:
    vae, mapper, (y, _, tokens) = bench.vae().requires_grad_(False).eval(), bench.mapper(), bench.batch_of()
    optimizers = (
        theirs.default_adamw(mapper, 0.0),
        torch.optim.AdamW(mapper.parameters(), lr=1e-4, weight_decay=0.0, fused=True),
    )
    average = {name: p.detach().clone() for name, p in mapper.named_parameters()}
    run = torch.compile(mapper) if bench.compile else mapper
    with torch.no_grad():
        exact = theirs.encode(vae, y).mean
    stored = exact.to(torch.float16)  # what our mapper stage reads from disk
    losses: dict[str, float] = {}
    half_of_theirs = torch.float16 if bench.device.type == "cuda" else None  # its --mixed-precision

    def reference(update: bool = True) -> None:
        with torch.no_grad():
            target = theirs.encode(vae, y).mean  # the frozen VAE, again in every step
        dtype, enabled = half_of_theirs or torch.bfloat16, half_of_theirs is not None
        with torch.autocast(bench.device.type, dtype=dtype, enabled=enabled):
            predicted = theirs.run_mapper(mapper, tokens)
        loss = mapper_loss(predicted, target)
        loss.backward()
        losses["loss"] = loss.item()
        if update:
            torch.nn.utils.clip_grad_norm_(mapper.parameters(), 1.0)
            optimizers[0].step()
            mapper.zero_grad()
            theirs.update_average(average, mapper, DECAY)

    def ours(update: bool, half: bool) -> None:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16, enabled=half):
            predicted = run(tokens)
        loss = mapper_loss(predicted, stored if update else exact)
        loss.backward()
        losses["loss"] = loss.item()
        if update:
            torch.nn.utils.clip_grad_norm_(mapper.parameters(), 1.0)
            optimizers[1].step()
            mapper.zero_grad()
            update_ema(average, dict(mapper.named_parameters()), DECAY)

    report_errors(bench, "mapper step", mapper, reference, ours, losses)
    reference(False)
    share_state(optimizers)
    mapper.zero_grad()
    gflop = bench.gflop["mapper_step"]
    bench.compare("mapper step", gflop, {"reference": reference, **with_bf16(bench, ours)})
    # what grows with the batch, without clipping, AdamW and EMA, which do not
    work = {"reference": lambda: reference(False), "ours": lambda: ours(False, False)}
    if bench.bf16_too:
        work["ours bf16"] = lambda: ours(False, True)
    bench.compare("mapper gradient", gflop, work)


@torch.no_grad()
def synthesis_stage(bench: Bench) -> None:
    vae, mapper, (_, _, tokens) = bench.vae().eval(), bench.mapper().eval(), bench.batch_of()
    folded = mapper.fold()
    found: dict[str, Tensor] = {}

    def reference() -> None:
        found["reference"] = theirs.decode(vae, theirs.run_mapper(mapper, tokens), bench.n_voxels)

    def ours() -> None:
        found["ours"] = vae.decode(folded(tokens), bench.n_voxels)

    def in_bf16() -> None:
        with bench.bf16():
            found["ours bf16"] = vae.decode(folded(tokens), bench.n_voxels).float()

    sides: dict[str, Callable[[], object]] = {"reference": reference, "ours": ours}
    if bench.bf16_too:
        sides["ours bf16"] = in_bf16
    for work in sides.values():
        work()
    for side in list(sides)[1:]:
        print(
            f"synthesis: {side} differs by {difference([found[side]], [found['reference']]):.1e} (relative)"
        )
    gflop = bench.gflop["vae_forward"] - bench.gflop["vae_encode"] + bench.gflop["mapper_forward"]
    bench.compare("synthesis", gflop, sides)


def memory_stage(bench: Bench) -> None:
    vae, (y, noise, _) = bench.vae(), bench.batch_of()
    y, noise = y[:1], noise[:1]
    kept = {"reference": saved_bytes(lambda: theirs.run_vae(vae, y, noise), vae)}
    kept["ours"] = saved_bytes(lambda: vae(y, noise), vae)
    vae.set_fast(False)
    kept["ours, plain operations"] = saved_bytes(lambda: vae(y, noise), vae)
    vae.set_fast(True)
    vae.checkpointing = True
    kept["ours, checkpointing"] = saved_bytes(lambda: vae(y, noise), vae)
    for side, n_bytes in kept.items():
        print(f"saved activations of one VAE sample: {side:<24} {n_bytes / 2**30:6.3f} GiB", flush=True)


def pipeline_stage(bench: Bench) -> None:
    """Tokens of 9,000 images x 3 trials: a memory map on disk against repeated float32 in RAM."""
    tokens, dim = bench.sizes.mapper.token_shape
    repeated = N_IMAGES * N_TRIALS * tokens * dim * 4
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.npy"
        shape = (N_IMAGES, tokens, dim)
        store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)  # sparse
        size = path.stat().st_size
        del store
        mapped = np.load(path, mmap_mode="r")
        held = TokenSet("clip", "benchmark", {"final": mapped}, np.arange(N_IMAGES))
        rng, before, most, anonymous = np.random.default_rng(0), process.memory_info(), 0, 0
        for _ in range(20):
            batch = torch.from_numpy(held.read("final", rng.integers(0, N_IMAGES, TRAIN_BATCH)))
            now = process.memory_info()
            most = max(most, now.rss - before.rss)
            anonymous = max(anonymous, (now.rss - now.shared) - (before.rss - before.shared))
            del batch
    print(f"pipeline: reference holds {repeated / 1e9:.1f} GB of repeated float32 tokens in RAM (computed)")
    print(
        f"pipeline: ours {size / 1e9:.2f} GB on disk, {anonymous / 2**30:.2f} GiB of its own memory, "
        f"{most / 2**30:.2f} GiB resident with the file's pages, which the system takes back when short"
    )


def projection(bench: Bench) -> None:
    """Time of the whole subject-1 recipe at the measured rates, on this machine's one device."""
    vae_steps = N_IMAGES * N_TRIALS // TRAIN_BATCH * EPOCHS
    for side in ("reference", "ours", "ours bf16"):
        per = {stage: bench.seconds.get(f"{stage}/{side}") for stage in ("vae step", "mapper step")}
        if per["vae step"] is None or per["mapper step"] is None:
            continue
        hours = TRAIN_BATCH * (vae_steps * per["vae step"] + MAPPER_STEPS * per["mapper step"]) / 3600
        print(f"projected: {vae_steps} VAE + {MAPPER_STEPS} mapper steps of 24: {hours:.1f} h, {side}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="samples a step; 0: 1 on a CPU, 24 on CUDA")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--compile", action="store_true", help="torch.compile our networks")
    parser.add_argument("--force-bf16", action="store_true", help="run bf16 without hardware for it")
    options = parser.parse_args()
    name, n_voxels = SIZES[options.size]
    device = torch.device(options.device)
    batch = options.batch or (24 if device.type == "cuda" else 1)
    bf16 = has_bf16(device) or options.force_bf16
    bench = Bench(preset(name), n_voxels, batch, options.repeats, device, options.compile, bf16)
    processor = (
        torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    )
    print(f"{name}, {n_voxels} voxels, batch {batch}, {processor}, {torch.get_num_threads()} threads,")
    bench.peak = {"fp32": matmul_peak(device, torch.float32)}
    bench.peak["bf16"] = matmul_peak(device, torch.bfloat16) if has_bf16(device) else bench.peak["fp32"]
    bench.gflop = step_gflop(bench.sizes.vae, bench.sizes.mapper, n_voxels)
    rates = ", ".join(f"{rate:.1f} GFLOP/s in {kind}" for kind, rate in bench.peak.items())
    print(f"torch {torch.__version__}, matrix products at {rates}", flush=True)
    if not bf16:
        print("bf16 is left out, as this machine has no instructions for it (--force-bf16 runs it)")
    stages: dict[str, Callable[[], None]] = {
        "vae": lambda: vae_stage(bench),
        "mapper": lambda: mapper_stage(bench),
        "synthesis": lambda: synthesis_stage(bench),
        "memory": lambda: memory_stage(bench),
        "pipeline": lambda: pipeline_stage(bench),
        "averaged": averaged_targets,
    }
    for stage in options.stages:
        stages[stage]()
        gc.collect()
    projection(bench)
    if device.type == "cuda":
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
