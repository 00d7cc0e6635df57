"""Each system of the comparison against a slow, obvious reference (docs/method.md section 8)."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from csg.errors import InputError
from csg_train.methods import load_method
from csg_train.methods.asg import kl_of_predictions
from csg_train.methods.base import Batch
from csg_train.methods.contrast import nt_xent
from csg_train.methods.drpc import crop, enlarge, pyramid_consistency, random_region, restyle, style_files
from csg_train.methods.l2 import MAX_FISHER
from csg_train.methods.spec import method_settings
from tests.helpers.tiny_student import nudge, tiny


def batch_of(views=1, images=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (views, images, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.arange(images) % 3)


def build(name, **settings):
    """A system on the tiny student, its weights already off the teacher's by a little."""
    student, teacher = tiny()
    kind = load_method(name)
    method = kind(student, teacher if kind.needs_teacher else None, kind.Settings(**settings)).train()
    nudge(student)
    return method, teacher


def gradients(loss, module):
    return [g.numpy() for g in torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)]


def test_none_is_the_task_loss_alone():
    method, _ = build("none")
    batch = batch_of()
    losses, figures = method(batch)
    log_p = torch.log_softmax(method.student(batch.views[0]).double(), 1).detach().numpy()
    slow = -np.mean([log_p[i, label] for i, label in enumerate(batch.labels)])
    assert losses.keys() == {"task"}
    assert not figures
    assert losses["task"].item() == pytest.approx(slow, rel=1e-5)


def test_l2_pulls_each_weight_of_the_encoder_and_none_of_the_head():
    method, teacher = build("l2", weight=0.3)
    losses, _ = method(batch_of())
    slow, pulls = 0.0, []
    encoder = method.student.encoder
    for now, start in zip(encoder.parameters(), teacher.encoder.parameters(), strict=True):
        slow += sum((a - b) ** 2 for a, b in zip(now.flatten().tolist(), start.flatten().tolist(), strict=True))
        pulls.append((2 * 0.3 * (now - start)).detach().numpy())
    assert losses["l2"].item() == pytest.approx(0.3 * slow, rel=1e-4)
    for found, pull in zip(gradients(losses["l2"], encoder), pulls, strict=True):
        np.testing.assert_allclose(found, pull, rtol=1e-4, atol=1e-7)
    head = torch.autograd.grad(losses["l2"], list(method.student.head.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in head)


def test_ewc_weighs_by_the_squared_gradients_of_single_images():
    student, teacher = tiny()
    method = load_method("ewc")(student, teacher, load_method("ewc").Settings(images=5)).train()
    batches = [batch_of(images=4, seed=0), batch_of(images=4, seed=1)]
    torch.manual_seed(7)
    method.prepare(batches)
    torch.manual_seed(7)
    images = [*batches[0].views[0], *batches[1].views[0]][:5]
    slow = [torch.zeros_like(p) for p in student.encoder.parameters()]
    for image in images:
        logits = teacher.classify(student.encoder(image[None]))
        label = torch.multinomial(torch.softmax(logits.detach(), 1), 1).item()
        student.zero_grad()
        F.cross_entropy(logits, torch.tensor([label])).backward()
        for total, parameter in zip(slow, student.encoder.parameters(), strict=True):
            total += parameter.grad**2
    mean = torch.cat([s.flatten() for s in slow]).mean()
    for (name, _), expected in zip(student.encoder.named_parameters(), slow, strict=True):
        torch.testing.assert_close(method.anchored.importance(name), (expected / mean).clamp(max=MAX_FISHER))
    nudge(student)
    distance = sum(
        (method.anchored.importance(name) * (p - method.anchored.anchor(name)) ** 2).sum()
        for name, p in student.encoder.named_parameters()
    )
    losses, _ = method(batch_of())
    torch.testing.assert_close(losses["l2"], 0.1 * distance)


@pytest.mark.parametrize("anchor", ["imagenet", "last"])
def test_si_is_its_path_integral(anchor):
    """Three epochs of three steps of momentum SGD, followed weight by weight in NumPy."""
    student, _ = tiny()
    method = load_method("si")(student, None, load_method("si").Settings(weight=0.7, xi=0.1, anchor=anchor)).train()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.5, momentum=0.9)

    def weights():
        return [p.detach().double().numpy().copy() for p in student.encoder.parameters()]

    starts, omegas = weights(), [np.zeros(p.shape) for p in student.encoder.parameters()]
    anchors, penalties = starts, []
    for epoch in range(3):
        paths = [np.zeros_like(start) for start in starts]
        for step in range(3):
            batch, before = batch_of(seed=3 * epoch + step), weights()
            losses, _ = method(batch)
            penalty = sum((o * (w - a) ** 2).sum() for o, w, a in zip(omegas, before, anchors, strict=True))
            penalties.append(penalty)
            assert losses["si"].item() == pytest.approx(0.7 * penalty, rel=1e-4, abs=1e-9)
            task = gradients(losses["task"], student.encoder)
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
            method.after_step()
            for path, gradient, old, new in zip(paths, task, before, weights(), strict=True):
                path -= gradient * (new - old)
        method.after_epoch()
        for omega, path, start, now in zip(omegas, paths, starts, weights(), strict=True):
            omega += np.maximum(path, 0) / ((now - start) ** 2 + 0.1)
        starts = weights()
        anchors = starts if anchor == "last" else anchors
    assert max(omega.max() for omega in omegas) > 1e-4
    assert (penalties[3] > 1e-4) == (anchor == "imagenet"), "an epoch starts away from ImageNet, at its own start"
    for name, omega, expected in zip(method.consolidated.names, omegas, anchors, strict=True):
        np.testing.assert_allclose(method.consolidated.importance(name).numpy(), omega, rtol=2e-3, atol=1e-7)
        np.testing.assert_allclose(method.consolidated.anchor(name).numpy(), expected)


def test_feature_l2_is_the_squared_distance_at_each_position():
    method, teacher = build("feature-l2", weight=0.2)
    batch = batch_of()
    losses, _ = method(batch)
    ours = method.student.encoder(batch.views[0])["layer4"].detach().double().numpy()
    theirs = teacher(batch.views[0])["layer4"].double().numpy()
    images, channels, rows, columns = ours.shape
    distances = [
        sum((ours[b, c, i, j] - theirs[b, c, i, j]) ** 2 for c in range(channels))
        for b, i, j in np.ndindex(images, rows, columns)
    ]
    assert losses["feature"].item() == pytest.approx(0.2 * np.mean(distances), rel=1e-5)
    mean, _ = build("feature-l2", weight=0.2 * channels, channels="mean")
    torch.testing.assert_close(mean(batch)[0]["feature"], losses["feature"])


@pytest.mark.parametrize("pooled", [True, False])
def test_asg_imitates_the_predictions_and_leaves_the_classifier_alone(pooled):
    method, teacher = build("asg", weight=0.1, pooled=pooled)
    batch = batch_of()
    losses, _ = method(batch)
    theirs, ours = (encoder(batch.views[0])["layer4"].detach() for encoder in (teacher, method.student.encoder))
    places = [(b, slice(None), slice(None)) for b in range(4)] if pooled else list(np.ndindex(4, 3, 3))
    slow = []
    for b, i, j in places:
        features = (m[b, :, i, j].reshape(5, -1).mean(1) for m in (theirs, ours))
        p, q = (torch.softmax(teacher.head(x).double(), 0).tolist() for x in features)
        slow.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
    assert losses["imitation"].item() == pytest.approx(0.1 * np.mean(slow), rel=1e-4)
    losses["imitation"].backward()
    assert all(parameter.grad is not None for parameter in method.student.encoder.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_cap_of_asg_shrinks_the_weight_of_the_step():
    """Published with 9 for learned rates in segmentation: the weight of such a step is cap / KL."""
    batch = batch_of()
    free, _ = build("asg", weight=75.0)
    whole = free(batch)[0]["imitation"]
    for cap in (whole.item() / 3, 2 * whole.item()):
        method, _ = build("asg", weight=75.0, cap=cap)
        found = method(batch)[0]["imitation"]
        assert found.item() == pytest.approx(min(whole.item(), cap), rel=1e-5)
        share = min(1.0, cap / whole.item())
        for ours, theirs in zip(
            gradients(found, method.student.encoder), gradients(whole, free.student.encoder), strict=True
        ):
            np.testing.assert_allclose(ours, share * theirs, rtol=1e-4, atol=1e-7)
    assert method_settings("asg-l2o", "seg", {}).cap == 9
    assert method_settings("asg-l2o", "cls", {}).cap is None
    assert method_settings("asg", "seg", {}).cap is None


def test_kl_of_equal_predictions_is_zero():
    logits = torch.randn(5, 7)
    assert kl_of_predictions(logits, logits + 3).item() == pytest.approx(0, abs=1e-6)


def test_restyling_takes_low_amplitudes_and_keeps_phases():
    generator = np.random.default_rng(0)
    content, style = generator.integers(0, 256, (2, 12, 10, 3), dtype=np.uint8)
    slow = np.empty((12, 10, 3))
    for channel in range(3):
        spectrum, other = (
            np.fft.fft2(content[..., channel].astype(float)),
            np.fft.fft2(style[..., channel].astype(float)),
        )
        for row in range(12):
            for column in range(10):
                near = min(row, 12 - row) / 12 <= 0.1 and min(column, 10 - column) / 10 <= 0.1
                amplitude = abs(other[row, column]) if near else abs(spectrum[row, column])
                spectrum[row, column] = amplitude * np.exp(1j * np.angle(spectrum[row, column]))
        slow[..., channel] = np.fft.ifft2(spectrum).real
    found = restyle(torch.from_numpy(content)[None], torch.from_numpy(style)[None], 0.1)[0].numpy()
    assert np.abs(found - np.clip(slow, 0, 255)).max() <= 0.51
    itself = restyle(torch.from_numpy(content)[None], torch.from_numpy(content)[None], 0.1)[0].numpy()
    assert np.array_equal(itself, content)


def test_pyramid_consistency_is_the_distance_from_the_mean_on_every_grid():
    versions = torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    slow = []
    for grid in (1, 2, 4):  # a 4x4 map has no 8x8 grid
        cell = 4 // grid
        pooled = versions.numpy().reshape(3, 2, 4, grid, cell, grid, cell).mean((4, 6))
        slow.append(np.abs(pooled - pooled.mean(0)).mean())
    assert pyramid_consistency(list(versions)).item() == pytest.approx(np.mean(slow), rel=1e-5)


def test_a_region_is_compared_at_two_scales():
    """Rows 2 and 3 of 4, columns 1 to 3 of 4: the right cells of the map, and the right pixels, enlarged."""
    region = (0.5, 1.0, 0.25, 1.0)
    layer4 = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert crop(layer4, region).tolist() == [[[[9, 10, 11], [13, 14, 15]]]]
    images = torch.zeros(1, 16, 32, 3, dtype=torch.uint8)
    images[:, 8:, 8:] = 200
    enlarged = enlarge(images, region)
    assert enlarged.shape == images.shape
    assert enlarged.dtype == torch.uint8
    assert (enlarged == 200).all()
    steps = torch.arange(8, dtype=torch.uint8)[None, :, None, None].expand(1, 8, 8, 3)
    slow = [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]  # the first half of the rows, bilinear
    assert enlarge(steps, (0.0, 0.5, 0.0, 0.5))[0, :, 3, 0].tolist() == [round(value) for value in slow]


def test_random_regions_cover_whole_positions_of_at_least_half_the_sides():
    torch.manual_seed(0)
    regions = [random_region(torch.zeros(2, 3, 7, 2)) for _ in range(200)]
    for top, bottom, left, right in regions:
        assert all(float(edge * side).is_integer() for edge, side in ((left, 2), (right, 2)))
        assert min(abs(7 * edge - round(7 * edge)) for edge in (top, bottom)) < 1e-9
        assert 4 <= round(7 * (bottom - top)) <= 7
        assert 0 <= top < bottom <= 1
        assert 0 <= left < right <= 1
    assert len(set(regions)) > 10
    assert random_region(torch.zeros(1, 1, 1, 1)) == (0, 1, 0, 1)


def test_drpc_trains_on_each_version(tmp_path, real_digits):
    student, _ = tiny()
    kind = load_method("drpc")
    settings = kind.Settings(styles=str(real_digits.paths[0].parent), versions=2, max_styles=5, weight=0.5)
    method = kind(student, None, settings)
    seen = []
    hook = student.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    losses, _ = method(batch_of())
    hook.remove()
    *versions, enlarged = seen
    assert len(versions) == 3
    assert not torch.equal(versions[0], versions[1])
    tasks = [F.cross_entropy(student(version), batch_of().labels).item() for version in versions]
    assert losses["task"].item() == pytest.approx(np.mean(tasks), rel=1e-5)
    maps = [student.encoder(version)["layer4"] for version in versions]
    torch.testing.assert_close(losses["consistency/across"], 0.5 * pyramid_consistency(maps))
    edges = [(a / 3, b / 3) for a in range(3) for b in range(a + 1, 4)]
    regions = [(*rows, *columns) for rows in edges for columns in edges]
    ((which, region),) = {
        (index, region)
        for index, version in enumerate(versions)
        for region in regions
        if torch.equal(enlarge(version, region), enlarged)
    }
    slow = pyramid_consistency([crop(maps[which], region), student.encoder(enlarged)["layer4"]])
    torch.testing.assert_close(losses["consistency/within"], 0.5 * slow)


def test_nt_xent_is_the_formula():
    first, second = F.normalize(torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    loss, ranked = nt_xent(first, second, 0.3)
    everything = torch.cat([first, second]).double().numpy()
    slow, right = [], []
    for i in range(10):
        positive = (i + 5) % 10
        similar = {j: math.exp(everything[i] @ everything[j] / 0.3) for j in range(10) if j != i}
        slow.append(-math.log(similar[positive] / sum(similar.values())))
        right.append(max(similar, key=similar.get) == positive)
    assert loss.item() == pytest.approx(np.mean(slow), rel=1e-5)
    assert ranked.item() == pytest.approx(np.mean(right))


def test_moco_keys_come_from_the_moving_average_and_enter_the_queue_after_the_step():
    method, _ = build("moco-v2", queue=8, momentum=0.9, stages=["layer4"])
    before = [p.detach().clone() for p in method.key_encoder.parameters()]
    batch = batch_of(views=2)
    queue = method.queues.queues["layer4"]
    keys = method.key_projection(method.key_encoder(batch.views[1]))["layer4"]
    old = queue.keys.clone()
    losses, _ = method(batch)
    assert torch.equal(queue.keys, old)
    losses["contrast/layer4"].backward()
    assert all(p.grad is None for p in method.key_encoder.parameters())
    method.after_step()
    torch.testing.assert_close(queue.keys[:4], keys)
    for kept, start, now in zip(
        method.key_encoder.parameters(), before, method.student.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(kept, 0.9 * start + 0.1 * now)


@pytest.mark.parametrize("name", ["simclr", "moco-v2", "csg"])
def test_the_switches_of_the_ablation(name):
    plain, _ = build(name, apool=False, mlp=False, stages=["layer4"])
    assert [type(layer).__name__ for layer in plain.projection.heads["layer4"]] == ["Linear"]
    losses, _ = plain(batch_of(views=2))
    assert losses.keys() == {"task", "contrast/layer4"}
    maps = plain.student.encoder(batch_of().views[0])
    pooled = maps["layer4"].relu().mean((2, 3))
    slow = F.normalize(plain.projection.heads["layer4"](pooled), dim=1)
    torch.testing.assert_close(plain.projection(maps)["layer4"], slow)
    full, _ = build(name)
    assert full(batch_of(views=2))[0].keys() == {"task", "contrast/layer3", "contrast/layer4"}
    detached, _ = build(name, attention="detached")
    detached.load_state_dict(full.state_dict())
    gradient, fixed = (
        gradients(method(batch_of(views=2))[0]["contrast/layer4"], method.student.encoder)
        for method in (full, detached)
    )
    assert not np.allclose(gradient[0], fixed[0], rtol=1e-3, atol=0)


def test_csg_in_parts_is_csg_at_once():
    """Accumulation: the parts' losses are the batch's, and their keys enter the queue together."""
    whole, _ = build("csg", queue=32)
    parts, _ = build("csg", queue=32)
    parts.load_state_dict(whole.state_dict())
    batch = batch_of(views=2, images=6)
    total = sum(whole(batch)[0].values())
    shares = [(len(part.labels) / 6, sum(parts(part)[0].values())) for part in batch.split(4)]
    torch.testing.assert_close(sum(share * loss for share, loss in shares), total)
    for method in (whole, parts):
        method.after_step()
    torch.testing.assert_close(whole.queues.state_dict(), parts.queues.state_dict())


def test_the_running_statistics_of_csg_are_of_the_q_view_alone():
    """In segmentation only the k-view is jittered: its statistics are not those of the images to come."""
    method, _ = build("csg", queue=8)
    encoder = method.student.encoder
    encoder.layer3 = torch.nn.Sequential(encoder.layer3, torch.nn.BatchNorm2d(4))
    alone = copy.deepcopy(encoder)
    batch = batch_of(views=2)
    batch.views[1] //= 8
    method(batch)
    alone(batch.views[0])
    for name, statistic in alone.named_buffers():
        torch.testing.assert_close(encoder.get_buffer(name), statistic, msg=name)


def test_style_images_are_listed_as_images_to_train_on(tmp_path):
    for name in ("a/0.png", "a/._0.png", ".hidden/1.png", "note.txt", "2.GIF"):
        (tmp_path / "styles" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "styles" / name).touch()
    (tmp_path / "linked").symlink_to("styles")
    assert style_files(tmp_path / "linked", 9) == [tmp_path / "linked/2.GIF", tmp_path / "linked/a/0.png"]
    with pytest.raises(InputError, match="contains no style image"):
        style_files(tmp_path / "styles" / ".hidden" / "none", 9)


@pytest.mark.parametrize("mean", ["identity", "linear"])
def test_miro_is_the_likelihood_of_the_teachers_maps_given_the_students(mean):
    """Element by element: log of the variance and the scaled square, half their mean, in each stage."""
    method, teacher = build("miro", weight=0.2, mean=mean)
    nudge(method.models, by=0.3)
    batch = batch_of()
    losses, _ = method(batch)
    maps, targets = method.student.encoder(batch.views[0]), teacher(batch.views[0])
    for stage, model in method.models.items():
        f, target = maps[stage].detach().double().numpy(), targets[stage].double().numpy()
        if mean == "linear":
            weight, bias = (p.detach().double().numpy() for p in (model.mean.weight[:, :, 0, 0], model.mean.bias))
            f = np.einsum("dc,bchw->bdhw", weight, f) + bias[:, None, None]
        terms = []
        for index in np.ndindex(f.shape):
            variance = math.log(1 + math.exp(float(model.bias[index[1]]))) + 1e-5
            terms.append((math.log(variance) + (target[index] - f[index]) ** 2 / variance) / 2)
        assert losses[f"information/{stage}"].item() == pytest.approx(0.2 * np.mean(terms), rel=1e-4, abs=1e-6)
    assert losses.keys() == {"task", *(f"information/{stage}" for stage in ("layer3", "layer4"))}


def test_miro_starts_from_the_teachers_own_maps_with_a_variance_of_a_tenth():
    student, teacher = tiny()
    method = load_method("miro")(student, teacher, load_method("miro").Settings(weight=1.0, mean="linear"))
    losses, _ = method(batch_of())
    for stage, model in method.models.items():
        torch.testing.assert_close(model.variance(), torch.full_like(model.bias, 0.1))
        assert losses[f"information/{stage}"].item() == pytest.approx(math.log(0.1) / 2, rel=1e-4)


def test_the_gaussians_of_miro_train_as_heads_and_only_the_student_has_gradients():
    method, teacher = build("miro")
    losses, _ = method(batch_of())
    sum(losses.values()).backward()
    heads = set(method.head_parameters())
    assert {model.bias for model in method.models.values()} < heads
    assert all(p.grad is not None for p in method.parameters())
    assert all(p.grad is None for p in teacher.parameters())
